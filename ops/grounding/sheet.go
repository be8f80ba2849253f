package grounding

import (
	"fmt"
	"image"
	"image/color"
	"math"

	"golang.org/x/image/draw"
)

// SheetConfig configures ContactSheet.
type SheetConfig struct {
	// Columns is the number of pictures side by side. 0 makes the sheet about square.
	Columns int
	// Captions stand below the pictures. nil means none; else there is one for each.
	Captions []string
	// Cell is the width that pictures are brought to, in pixels. 0 means 240.
	Cell int
}

// ContactSheet puts pictures on one page, in rows. Each keeps its proportions within a square cell.
func ContactSheet(pictures []image.Image, cfg SheetConfig) (*Picture, error) {
	const fn = "grounding.ContactSheet"
	n := len(pictures)
	if n == 0 {
		return nil, fmt.Errorf("%s: got no pictures, want at least one", fn)
	}
	if cfg.Columns == 0 {
		cfg.Columns = int(math.Ceil(math.Sqrt(float64(n))))
	}
	if cfg.Cell == 0 {
		cfg.Cell = 240
	}
	switch {
	case cfg.Columns < 1:
		return nil, fmt.Errorf("%s: Columns: got %d, want at least 1, or 0 for as many as fit", fn, cfg.Columns)
	case cfg.Cell < 16 || cfg.Cell > 2048:
		return nil, fmt.Errorf("%s: Cell: got %d, want 16 to 2048, or 0 for 240", fn, cfg.Cell)
	case cfg.Captions != nil && len(cfg.Captions) != n:
		return nil, fmt.Errorf("%s: Captions: got %d, want %d as there are pictures", fn, len(cfg.Captions), n)
	}
	for i, p := range pictures {
		if p == nil || p.Bounds().Empty() {
			return nil, fmt.Errorf("%s: picture %d: got none or an empty one", fn, i)
		}
	}
	return sheet(pictures, cfg), nil
}

func sheet(pictures []image.Image, cfg SheetConfig) *Picture {
	const gap, size = 8, 13
	line := 0
	if cfg.Captions != nil {
		line = size + 8
	}
	cols := min(cfg.Columns, len(pictures))
	rows := (len(pictures) + cols - 1) / cols
	high := 0 // of the tallest picture: rows are no taller than they must be
	for _, p := range pictures {
		high = max(high, inside(p.Bounds(), cfg.Cell).Y)
	}
	out := image.NewRGBA(image.Rect(0, 0, gap+cols*(cfg.Cell+gap), gap+rows*(high+line+gap)))
	draw.Draw(out, out.Rect, image.White, image.Point{}, draw.Src)
	f := face(size)
	for i, p := range pictures {
		x, y := gap+i%cols*(cfg.Cell+gap), gap+i/cols*(high+line+gap)
		s := inside(p.Bounds(), cfg.Cell)
		at := image.Rectangle{Max: s}.Add(image.Pt(x+(cfg.Cell-s.X)/2, y+(high-s.Y)/2))
		draw.CatmullRom.Scale(out, at, p, p.Bounds(), draw.Over, nil)
		if line > 0 {
			write(out, f, fitting(f, cfg.Captions[i], cfg.Cell), x, y+high+size+2, color.RGBA{30, 30, 30, 255})
		}
	}
	return &Picture{out}
}

// inside is the size of b brought to fit a square.
func inside(b image.Rectangle, cell int) image.Point {
	s := float64(cell) / float64(max(b.Dx(), b.Dy()))
	return image.Pt(max(1, round(s*float64(b.Dx()))), max(1, round(s*float64(b.Dy()))))
}
