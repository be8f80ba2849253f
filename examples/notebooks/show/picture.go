package show

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"os"
)

// Picture is what Draw and Matrix return. A cell whose value it is shows it.
type Picture struct {
	image.Image
	// Density is the number of pixels of the picture to one of the screen.
	Density float64
}

// PNG is the picture as a PNG file's bytes.
func (p *Picture) PNG() ([]byte, error) {
	if p == nil || p.Image == nil {
		return nil, fmt.Errorf("show.Picture.PNG: got no picture")
	}
	b := p.Bounds()
	flat := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(flat, flat.Bounds(), p.Image, b.Min, draw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, flat); err != nil {
		return nil, fmt.Errorf("show.Picture.PNG: %w", err)
	}
	return out.Bytes(), nil
}

// Save writes the picture as a PNG file.
func (p *Picture) Save(path string) error {
	b, err := p.PNG()
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("show.Picture.Save: %w", err)
	}
	return nil
}

// Render is how a notebook shows the picture: as PNG, at the size that its density gives it.
func (p *Picture) Render() struct{ Data, Metadata, Transient map[string]any } {
	var out struct{ Data, Metadata, Transient map[string]any }
	b, err := p.PNG()
	if err != nil {
		out.Data = map[string]any{"text/plain": err.Error()}
		return out
	}
	density := p.Density
	if !(density > 0) {
		density = 1
	}
	size := func(n int) int { return max(1, int(math.Round(float64(n)/density))) }
	out.Data = map[string]any{"image/png": b, "text/plain": p.String()}
	out.Metadata = map[string]any{"image/png": map[string]any{"width": size(p.Bounds().Dx()), "height": size(p.Bounds().Dy())}}
	return out
}

// String names the size.
func (p *Picture) String() string {
	if p == nil || p.Image == nil {
		return "no picture"
	}
	return fmt.Sprintf("picture of %d × %d pixels", p.Bounds().Dx(), p.Bounds().Dy())
}

// Matrix draws a matrix of rows × cols values, row by row, one square of so many pixels for each: white is low or less, the
// darkest high or more. Values that are not finite are grey. Where low and high are both 0 they are those of the values.
func Matrix(rows, cols int, values []float32, low, high float64, pixels int) (*Picture, error) {
	if rows < 1 || cols < 1 || rows*cols != len(values) || pixels < 1 || rows*pixels > 1<<14 || cols*pixels > 1<<14 {
		return nil, fmt.Errorf("show.Matrix: got %d × %d with %d values at %d pixels each, want that many values and a side of at most 16384 pixels",
			rows, cols, len(values), pixels)
	}
	if low == 0 && high == 0 {
		low, high = math.Inf(1), math.Inf(-1)
		for _, v := range values {
			if x := float64(v); x-x == 0 {
				low, high = min(low, x), max(high, x)
			}
		}
	}
	img := image.NewRGBA(image.Rect(0, 0, cols*pixels, rows*pixels))
	for i, v := range values {
		y, x := i/cols*pixels, i%cols*pixels
		draw.Draw(img, image.Rect(x, y, x+pixels, y+pixels), image.NewUniform(shade(float64(v), low, high)), image.Point{}, draw.Src)
	}
	return &Picture{Image: img, Density: 1}, nil
}

// shade goes from white by the first colour of charts to ink.
func shade(v, low, high float64) color.RGBA {
	if v-v != 0 {
		return faded
	}
	t := 0.0
	if high > low {
		t = min(1, max(0, (v-low)/(high-low)))
	}
	from, to := color.RGBA{255, 255, 255, 255}, curves[0]
	if t *= 2; t > 1 {
		from, to, t = curves[0], ink, t-1
	}
	mix := func(a, b uint8) uint8 { return uint8(math.Round(float64(a) + t*(float64(b)-float64(a)))) }
	return color.RGBA{mix(from.R, to.R), mix(from.G, to.G), mix(from.B, to.B), 255}
}
