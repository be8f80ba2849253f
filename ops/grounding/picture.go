package grounding

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"

	"golang.org/x/image/draw"

	"stheno/internal/aside"
)

// Picture is a drawing: an image.Image that a notebook shows by itself and that can be written as PNG.
type Picture struct{ *image.RGBA }

// PNG is the picture as a PNG file's bytes.
func (p *Picture) PNG() ([]byte, error) {
	if p == nil || p.RGBA == nil {
		return nil, fmt.Errorf("grounding.Picture.PNG: got no picture")
	}
	var b bytes.Buffer
	if err := png.Encode(&b, p.RGBA); err != nil {
		return nil, fmt.Errorf("grounding.Picture.PNG: %w", err)
	}
	return b.Bytes(), nil
}

// Save writes the picture as a PNG file, whole or not at all.
func (p *Picture) Save(path string) error {
	b, err := p.PNG()
	if err != nil {
		return err
	}
	if err := aside.Write(path, func(f *os.File) error { _, err := f.Write(b); return err }); err != nil {
		return fmt.Errorf("grounding.Picture.Save: %w", err)
	}
	return nil
}

// HTML is an <img> element that holds the picture.
func (p *Picture) HTML() string {
	b, err := p.PNG()
	if err != nil {
		return ""
	}
	return fmt.Sprintf(`<img width="%d" height="%d" src="data:image/png;base64,%s">`, p.Bounds().Dx(), p.Bounds().Dy(),
		base64.StdEncoding.EncodeToString(b))
}

// palette are eight colours that stay apart on photographs and for most colour-blind people (Okabe and Ito 2008, the grey
// and black replaced).
var palette = []color.RGBA{
	{230, 159, 0, 255}, {0, 158, 255, 255}, {0, 190, 120, 255}, {240, 60, 90, 255},
	{204, 121, 220, 255}, {240, 228, 66, 255}, {90, 230, 230, 255}, {255, 140, 190, 255},
}

// Colour is the colour of phrase i in pictures. They repeat after eight.
func Colour(i int) color.RGBA { return palette[((i%len(palette))+len(palette))%len(palette)] }

// DrawConfig configures Overlay and DrawBoxes.
type DrawConfig struct {
	// Scale enlarges the picture by a whole number before drawing. 0 chooses one that makes the shorter side at least 224
	// pixels.
	Scale int
	// Alpha is how much of the heat map covers the picture, in (0, 1]. 0 means 0.5.
	Alpha float64
	// Colour is the index of the first phrase's colour.
	Colour int
	// Low and High are the values of the map that are drawn coldest and hottest. Both 0 means the map's own smallest and
	// largest.
	Low, High float64
	// NoBoxes leaves boxes out of Overlay.
	NoBoxes bool
}

func (c DrawConfig) normalised(fn string, img image.Image) (DrawConfig, error) {
	if img == nil || img.Bounds().Empty() {
		return c, fmt.Errorf("%s: got no image or an empty one", fn)
	}
	if c.Alpha == 0 {
		c.Alpha = 0.5
	}
	short := min(img.Bounds().Dx(), img.Bounds().Dy())
	if c.Scale == 0 {
		c.Scale = min(16, (224+short-1)/short)
	}
	switch {
	case !(c.Alpha > 0 && c.Alpha <= 1):
		return c, fmt.Errorf("%s: Alpha: got %v, want a number in (0, 1], or 0 for 0.5", fn, c.Alpha)
	case c.Scale < 1 || c.Scale > 64:
		return c, fmt.Errorf("%s: Scale: got %d, want 1 to 64, or 0 for one that fits", fn, c.Scale)
	case (c.Low != 0 || c.High != 0) && !(c.Low < c.High):
		return c, fmt.Errorf("%s: Low and High: got %v and %v, want Low below High, or both 0", fn, c.Low, c.High)
	}
	return c, nil
}

// enlarged is a copy of img, on white, scale times as large.
func enlarged(img image.Image, scale int) *image.RGBA {
	b := img.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, b.Dx()*scale, b.Dy()*scale))
	draw.Draw(out, out.Bounds(), image.White, image.Point{}, draw.Src)
	if scale == 1 {
		draw.Draw(out, out.Bounds(), img, b.Min, draw.Over)
	} else {
		draw.BiLinear.Scale(out, out.Bounds(), img, b, draw.Over, nil)
	}
	return out
}

// Overlay draws what one token speaks of: the picture under its heat map, bilinear between patches, with the boxes and the
// label.
func Overlay(img image.Image, r *Result, cfg DrawConfig) (*Picture, error) {
	const fn = "grounding.Overlay"
	cfg, err := cfg.normalised(fn, img)
	if err != nil {
		return nil, err
	}
	if err := r.check(fn, img); err != nil {
		return nil, err
	}
	if cfg.Low == 0 && cfg.High == 0 {
		cfg.Low, cfg.High = math.Inf(1), math.Inf(-1)
		for p, m := range r.Grid.Mask() {
			if m != 0 {
				cfg.Low, cfg.High = min(cfg.Low, r.Map[p]), max(cfg.High, r.Map[p])
			}
		}
	}
	out := enlarged(img, cfg.Scale)
	heat(out, r, cfg)
	if !cfg.NoBoxes {
		label(out, frames(out, r, cfg, Colour(cfg.Colour)), r.Label, Colour(cfg.Colour), nil)
	} else {
		label(out, out.Bounds(), r.Label, Colour(cfg.Colour), nil)
	}
	return &Picture{out}, nil
}

func (r *Result) check(fn string, img image.Image) error {
	if r == nil || r.Grid == nil || len(r.Map) != r.Grid.Len() {
		return fmt.Errorf("%s: got no result, want one of Results", fn)
	}
	if r.Grid.Bounds != img.Bounds() {
		return fmt.Errorf("%s: got an image with bounds %v, want the one that was grounded, %v", fn, img.Bounds(), r.Grid.Bounds)
	}
	return nil
}

// heat lays the map over the picture.
func heat(out *image.RGBA, r *Result, cfg DrawConfig) {
	g := r.Grid
	s := float64(cfg.Scale)
	for y := range out.Rect.Dy() {
		v := (float64(g.Bounds.Min.Y) + (float64(y)+0.5)/s - g.y0) / (g.y1 - g.y0) * float64(g.Rows)
		for x := range out.Rect.Dx() {
			u := (float64(g.Bounds.Min.X) + (float64(x)+0.5)/s - g.x0) / (g.x1 - g.x0) * float64(g.Cols)
			if u < 0 || v < 0 || u > float64(g.Cols) || v > float64(g.Rows) {
				continue // cropped off: nothing is known
			}
			t := 0.0
			if cfg.High > cfg.Low {
				t = (g.sample(r.Map, u, v) - cfg.Low) / (cfg.High - cfg.Low)
			}
			h := hot(min(max(t, 0), 1))
			p := out.Pix[out.PixOffset(x, y):]
			for c := range 3 {
				p[c] = uint8(math.Round((1-cfg.Alpha)*float64(p[c]) + cfg.Alpha*255*h[c]))
			}
		}
	}
}

// heatStops are colours from cold to hot at even distances: dark blue, violet, red, orange, light yellow (after matplotlib's
// inferno and plasma, whose lightness grows evenly).
var heatStops = [][3]float64{
	{0.05, 0.03, 0.30}, {0.36, 0.06, 0.55}, {0.72, 0.18, 0.45}, {0.95, 0.45, 0.22}, {0.99, 0.76, 0.20}, {0.99, 0.99, 0.70},
}

func hot(t float64) [3]float64 {
	x := t * float64(len(heatStops)-1)
	i := min(int(x), len(heatStops)-2)
	f := x - float64(i)
	var c [3]float64
	for j := range c {
		c[j] = heatStops[i][j]*(1-f) + heatStops[i+1][j]*f
	}
	return c
}

// DrawBoxes draws the first box of each result with its label, one colour a phrase.
func DrawBoxes(img image.Image, results []*Result, cfg DrawConfig) (*Picture, error) {
	const fn = "grounding.DrawBoxes"
	cfg, err := cfg.normalised(fn, img)
	if err != nil {
		return nil, err
	}
	out := enlarged(img, cfg.Scale)
	at := make([]image.Rectangle, len(results))
	for i, r := range results {
		if err := r.check(fn, img); err != nil {
			return nil, err
		}
		if len(r.Boxes) > 0 {
			first := Result{Boxes: r.Boxes[:1], Grid: r.Grid}
			at[i] = frames(out, &first, cfg, Colour(cfg.Colour+i))
		}
	}
	var taken []image.Rectangle
	for i, r := range results { // above all frames
		if len(r.Boxes) > 0 {
			taken = append(taken, label(out, at[i], r.Label, Colour(cfg.Colour+i), taken))
		}
	}
	return &Picture{out}, nil
}

// frames frames the boxes of r, the first thickest, and returns that one's place, or the whole picture without any.
func frames(out *image.RGBA, r *Result, cfg DrawConfig, c color.RGBA) image.Rectangle {
	at := func(b Box) image.Rectangle {
		o := r.Grid.Bounds.Min
		return image.Rect((b.Min.X-o.X)*cfg.Scale, (b.Min.Y-o.Y)*cfg.Scale, (b.Max.X-o.X)*cfg.Scale, (b.Max.Y-o.Y)*cfg.Scale)
	}
	thick := max(2, min(out.Rect.Dx(), out.Rect.Dy())/112)
	for i := len(r.Boxes) - 1; i > 0; i-- {
		frame(out, at(r.Boxes[i]), c, max(1, thick/2))
	}
	if len(r.Boxes) == 0 {
		return out.Rect
	}
	frame(out, at(r.Boxes[0]).Inset(-1), color.RGBA{0, 0, 0, 255}, thick+2)
	frame(out, at(r.Boxes[0]), c, thick)
	return at(r.Boxes[0])
}

// frame draws the edge of a rectangle, inside it.
func frame(out *image.RGBA, r image.Rectangle, c color.RGBA, thick int) {
	fill := func(x0, y0, x1, y1 int) {
		draw.Draw(out, image.Rect(x0, y0, x1, y1).Intersect(r), image.NewUniform(c), image.Point{}, draw.Src)
	}
	fill(r.Min.X, r.Min.Y, r.Max.X, r.Min.Y+thick)
	fill(r.Min.X, r.Max.Y-thick, r.Max.X, r.Max.Y)
	fill(r.Min.X, r.Min.Y, r.Min.X+thick, r.Max.Y)
	fill(r.Max.X-thick, r.Min.Y, r.Max.X, r.Max.Y)
}
