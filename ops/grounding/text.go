package grounding

import (
	"fmt"
	"image"
	"image/color"
	"slices"
	"sync"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gomedium"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

// typeface parses the embedded font once. A face is not safe for concurrent use, the font is.
var typeface = sync.OnceValue(func() *opentype.Font {
	f, err := opentype.Parse(gomedium.TTF)
	if err != nil {
		panic(fmt.Sprintf("grounding: the embedded font: %v", err))
	}
	return f
})

// face is the font at a height in pixels.
func face(size float64) font.Face {
	f, err := opentype.NewFace(typeface(), &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		panic(fmt.Sprintf("grounding: the embedded font at %v pixels: %v", size, err))
	}
	return f
}

// fitting shortens text until it is at most width pixels wide.
func fitting(f font.Face, text string, width int) string {
	if font.MeasureString(f, text).Ceil() <= width {
		return text
	}
	for r := []rune(text); len(r) > 0; r = r[:len(r)-1] {
		if s := string(r) + "…"; font.MeasureString(f, s).Ceil() <= width {
			return s
		}
	}
	return ""
}

// label writes text on a plate of colour c above the box, or below or inside it where there is no room or another plate
// lies. It returns the plate.
func label(out *image.RGBA, box image.Rectangle, text string, c color.RGBA, taken []image.Rectangle) image.Rectangle {
	if text == "" {
		return image.Rectangle{}
	}
	size := float64(max(12, min(22, min(out.Rect.Dx(), out.Rect.Dy())/16)))
	f := face(size)
	pad := int(size / 4)
	text = fitting(f, text, out.Rect.Dx()-2*pad)
	w, h := font.MeasureString(f, text).Ceil()+2*pad, int(size)+2*pad
	x := max(0, min(box.Min.X, out.Rect.Dx()-w))
	var plate image.Rectangle
	for i, y := range []int{box.Min.Y - h, box.Max.Y, box.Min.Y, box.Max.Y - h, 0, out.Rect.Dy() - h} {
		at := image.Rect(x, y, x+w, y+h)
		free := at.Intersect(out.Rect) == at && !slices.ContainsFunc(taken, at.Overlaps)
		if free || i == 0 {
			plate = at
		}
		if free {
			break
		}
	}
	// Nowhere is free: above the box as far as there is room.
	plate = plate.Add(image.Pt(0, max(0, -plate.Min.Y)))
	draw.Draw(out, plate, image.NewUniform(c), image.Point{}, draw.Src)
	write(out, f, text, plate.Min.X+pad, plate.Min.Y+pad+int(size*0.82), color.RGBA{0, 0, 0, 255})
	return plate
}

// write puts text with its baseline's start at (x, y).
func write(out *image.RGBA, f font.Face, text string, x, y int, c color.Color) {
	d := font.Drawer{Dst: out, Src: image.NewUniform(c), Face: f, Dot: fixed.P(x, y)}
	d.DrawString(text)
}
