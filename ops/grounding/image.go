package grounding

import (
	"fmt"
	"image"
	"image/color"
	"math"

	"golang.org/x/image/draw"
	"gorgonia.org/tensor"
)

// Fit says how a picture of one shape is brought to another.
type Fit int

const (
	// Stretch scales width and height separately.
	Stretch Fit = iota
	// Pad keeps the proportions and fills what is left, at the right or bottom, with the mean colour.
	Pad
	// Crop keeps the proportions and cuts off what is too much, evenly on both sides.
	Crop
)

// String returns "stretch", "pad" or "crop".
func (f Fit) String() string {
	switch f {
	case Stretch:
		return "stretch"
	case Pad:
		return "pad"
	case Crop:
		return "crop"
	}
	return fmt.Sprintf("Fit(%d)", int(f))
}

// PatchConfig configures ImageTensor and Patches.
type PatchConfig struct {
	// Patch is the side of a patch in pixels, 1 to 256. 0 means 16.
	Patch int
	// Width and Height are the size that pictures are resized to, multiples of Patch. 0 means the multiple that is nearest
	// to the picture's own size.
	Width, Height int
	// Fit says what happens to the proportions.
	Fit Fit
	// Grey makes one channel, the luma, of the picture; otherwise there are three.
	Grey bool
	// Mean and Std are taken off and divided by, for each channel (Grey uses the first), pixels being 0 to 1. A Std of
	// zeros means 0.5 for both, as in the first vision transformers.
	Mean, Std [3]float64
}

// maxSide bounds the sides of resized pictures: 2³⁰ pixels at most, which indices and memory can hold.
const maxSide = 1 << 15

func (c PatchConfig) normalised(fn string, img image.Image) (PatchConfig, error) {
	if img == nil {
		return c, fmt.Errorf("%s: got a nil image", fn)
	}
	b := img.Bounds()
	if b.Empty() {
		return c, fmt.Errorf("%s: got an image of %d × %d pixels, want at least one", fn, b.Dx(), b.Dy())
	}
	if c.Patch == 0 {
		c.Patch = 16
	}
	if c.Patch < 1 || c.Patch > 256 {
		return c, fmt.Errorf("%s: Patch: got %d, want 1 to 256, or 0 for 16", fn, c.Patch)
	}
	for _, s := range []struct {
		name string
		side *int
		own  int
	}{{"Width", &c.Width, b.Dx()}, {"Height", &c.Height, b.Dy()}} {
		if *s.side == 0 {
			*s.side = max(1, (s.own+c.Patch/2)/c.Patch) * c.Patch
		}
		if *s.side < 0 || *s.side%c.Patch != 0 || *s.side > maxSide {
			return c, fmt.Errorf("%s: %s: got %d, want a multiple of Patch (%d) up to %d", fn, s.name, *s.side, c.Patch, maxSide)
		}
	}
	if c.Fit < Stretch || c.Fit > Crop {
		return c, fmt.Errorf("%s: Fit: got %v, want stretch, pad or crop", fn, c.Fit)
	}
	if c.Std == [3]float64{} {
		if c.Mean != [3]float64{} {
			return c, fmt.Errorf("%s: Mean: got %v without Std, want both or none", fn, c.Mean)
		}
		c.Mean, c.Std = [3]float64{0.5, 0.5, 0.5}, [3]float64{0.5, 0.5, 0.5}
	}
	for i := range c.Std {
		if c.Grey && i > 0 {
			break
		}
		if !(c.Std[i] > 0) || math.IsInf(c.Std[i], 0) || math.IsNaN(c.Mean[i]) || math.IsInf(c.Mean[i], 0) {
			return c, fmt.Errorf("%s: channel %d: got Mean %v and Std %v, want finite ones and a positive Std", fn, i, c.Mean[i], c.Std[i])
		}
	}
	return c, nil
}

// channels is 3, or 1 for Grey.
func (c PatchConfig) channels() int {
	if c.Grey {
		return 1
	}
	return 3
}

// ImageTensor resizes a picture of any colour model and size and normalises it: a float32 tensor (channels, height,
// width), and the grid that leads back to the original. Resampling is by the Catmull–Rom kernel, widened when it
// shrinks; transparent pixels are shown on white.
func ImageTensor(img image.Image, cfg PatchConfig) (*tensor.Dense, *Grid, error) {
	cfg, err := cfg.normalised("grounding.ImageTensor", img)
	if err != nil {
		return nil, nil, err
	}
	pix, g := planes(img, cfg)
	return tensor.New(tensor.WithShape(cfg.channels(), cfg.Height, cfg.Width), tensor.WithBacking(pix)), g, nil
}

// Patches is ImageTensor cut into patches: a float32 tensor (patches, channels·Patch·Patch), each row in the order channel,
// y, x, in which checkpoints of vision transformers have the weights of their patch embedding.
func Patches(img image.Image, cfg PatchConfig) (*tensor.Dense, *Grid, error) {
	cfg, err := cfg.normalised("grounding.Patches", img)
	if err != nil {
		return nil, nil, err
	}
	pix, g := planes(img, cfg)
	s := cutting{1, cfg.channels(), cfg.Height, cfg.Width, cfg.Patch, cfg.Patch}
	out := make([]float32, len(pix))
	cut(s, out, pix)
	return tensor.New(tensor.WithShape(g.Len(), s.channels*cfg.Patch*cfg.Patch), tensor.WithBacking(out)), g, nil
}

// planes is the resized, normalised picture, channel after channel.
func planes(img image.Image, c PatchConfig) ([]float32, *Grid) {
	b := img.Bounds()
	g := &Grid{Cols: c.Width / c.Patch, Rows: c.Height / c.Patch, Patch: c.Patch, Bounds: b,
		x0: float64(b.Min.X), y0: float64(b.Min.Y), x1: float64(b.Max.X), y1: float64(b.Max.Y)}
	src, dst := b, image.Rect(0, 0, c.Width, c.Height)
	sx, sy := float64(c.Width)/float64(b.Dx()), float64(c.Height)/float64(b.Dy())
	switch c.Fit {
	case Pad:
		s := min(sx, sy)
		dst.Max = image.Pt(min(c.Width, max(1, round(s*float64(b.Dx())))), min(c.Height, max(1, round(s*float64(b.Dy())))))
		g.x1 = g.x0 + float64(c.Width)*float64(b.Dx())/float64(dst.Dx())
		g.y1 = g.y0 + float64(c.Height)*float64(b.Dy())/float64(dst.Dy())
	case Crop:
		s := max(sx, sy)
		w := min(b.Dx(), max(1, round(float64(c.Width)/s)))
		h := min(b.Dy(), max(1, round(float64(c.Height)/s)))
		src = image.Rect(0, 0, w, h).Add(b.Min).Add(image.Pt((b.Dx()-w)/2, (b.Dy()-h)/2))
		v := toSpan(src)
		g.x0, g.y0, g.x1, g.y1 = v.x0, v.y0, v.x1, v.y1
	}
	canvas := image.NewRGBA(image.Rect(0, 0, c.Width, c.Height))
	draw.Draw(canvas, dst, image.White, image.Point{}, draw.Src)
	if src.Size() == dst.Size() {
		draw.Draw(canvas, dst, img, src.Min, draw.Over)
	} else {
		draw.CatmullRom.Scale(canvas, dst, img, src, draw.Over, nil)
	}
	return normalise(canvas, dst, c), g
}

// normalise turns pixels inside dst into (x − mean)/std; what is outside is padding and becomes 0.
func normalise(canvas *image.RGBA, dst image.Rectangle, c PatchConfig) []float32 {
	n := c.Width * c.Height
	out := make([]float32, c.channels()*n)
	var level [3][256]float32 // what becomes of each of the 256 values
	for ch := range c.channels() {
		for v := range level[ch] {
			level[ch][v] = float32((float64(v)/255 - c.Mean[ch]) / c.Std[ch])
		}
	}
	for y := dst.Min.Y; y < dst.Max.Y; y++ {
		for x := dst.Min.X; x < dst.Max.X; x++ {
			p, at := canvas.Pix[canvas.PixOffset(x, y):], y*c.Width+x
			if c.Grey {
				out[at] = float32((float64(luma(p))/0xffff - c.Mean[0]) / c.Std[0])
				continue
			}
			for ch := range 3 {
				out[ch*n+at] = level[ch][p[ch]]
			}
		}
	}
	return out
}

func luma(p []uint8) uint16 {
	return color.Gray16Model.Convert(color.RGBA{p[0], p[1], p[2], 255}).(color.Gray16).Y
}
