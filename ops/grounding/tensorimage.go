package grounding

import (
	"fmt"
	"image"
	"image/color"
	"math"

	"gorgonia.org/tensor"

	"stheno/internal/op"
)

// TensorImage makes a picture of a tensor, for ImageTensor, Patches and the drawings: (height, width) or (1, height, width) is
// grey, (3, height, width) RGB and (4, height, width) RGBA with colours not multiplied by alpha; channels may also stand last, as in
// (height, width, 3). What could be either is read as channels first. Numbers are uint8, or floats from 0 to 1; those of
// pixels beyond are clipped. The picture has 8 bits a channel.
func TensorImage(x *tensor.Dense) (image.Image, error) {
	const fn = "grounding.TensorImage"
	if x == nil {
		return nil, fmt.Errorf("%s: got a nil tensor", fn)
	}
	channels, h, w, at, err := pixelLayout(fn, x)
	if err != nil {
		return nil, err
	}
	value, err := pixelValue(fn, x)
	if err != nil {
		return nil, err
	}
	out := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{A: 255}
			for ch, to := range []*uint8{&c.R, &c.G, &c.B, &c.A}[:max(channels, 3)] {
				v, ok := value(at(min(ch, channels-1), y, x))
				if !ok {
					return nil, fmt.Errorf("%s: got NaN at channel %d, y %d, x %d, want numbers", fn, ch, y, x)
				}
				*to = v
			}
			out.SetNRGBA(x, y, c)
		}
	}
	return out, nil
}

// pixelLayout finds the channels; at is the index of a pixel in row-major memory.
func pixelLayout(fn string, x *tensor.Dense) (channels, h, w int, at func(ch, y, x int) int, err error) {
	s := x.Shape()
	isChannels := func(n int) bool { return n == 1 || n == 3 || n == 4 }
	switch {
	case s.Dims() == 2:
		channels, h, w = 1, s[0], s[1]
	case s.Dims() == 3 && isChannels(s[0]):
		channels, h, w = s[0], s[1], s[2]
	case s.Dims() == 3 && isChannels(s[2]):
		channels, h, w = s[2], s[0], s[1]
		at = func(ch, y, x int) int { return (y*w+x)*channels + ch }
	default:
		return 0, 0, 0, nil, fmt.Errorf("%s: got shape %v, want (height, width), or that with 1, 3 or 4 channels first or last", fn, s)
	}
	if h < 1 || w < 1 || h > maxSide || w > maxSide {
		return 0, 0, 0, nil, fmt.Errorf("%s: got %d × %d pixels, want sides of 1 to %d", fn, w, h, maxSide)
	}
	if at == nil {
		at = func(ch, y, x int) int { return (ch*h+y)*w + x }
	}
	return channels, h, w, at, nil
}

// pixelValue returns pixels of x as bytes, not ok for NaN. Views are read in their own order.
func pixelValue(fn string, x *tensor.Dense) (func(i int) (uint8, bool), error) {
	unit := func(v float64) (uint8, bool) {
		return uint8(math.Round(255 * min(1, max(0, v)))), !math.IsNaN(v)
	}
	switch d := x.Data().(type) {
	case []uint8:
		d = op.RowMajor(x, d)
		return func(i int) (uint8, bool) { return d[i], true }, nil
	case []float32:
		d = op.RowMajor(x, d)
		return func(i int) (uint8, bool) { return unit(float64(d[i])) }, nil
	case []float64:
		d = op.RowMajor(x, d)
		return func(i int) (uint8, bool) { return unit(d[i]) }, nil
	}
	return nil, fmt.Errorf("%s: got %v, want uint8, float32 or float64", fn, x.Dtype())
}
