package quantize

import (
	"fmt"
	"math"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// SmoothConfig configures SmoothScales.
type SmoothConfig struct {
	// Alpha is how much of the spread between channels moves from the inputs to the weights, above 0 and below 1. 0 means 0.5.
	Alpha float64

	// PowersOfTwo rounds the scales to powers of two. Scaling then rounds nothing, and products keep their bits.
	PowersOfTwo bool
}

// SmoothScales are the scales of SmoothQuant (Xiao et al. 2022, arXiv 2211.10438, equation 4), one for each channel j of a layer's
// inputs:
//
//	s_j = max|x_j|^α / max|w_j|^(1−α)
//
// inputs are the largest magnitudes max|x_j| of the channels, as Stats.AbsMax has them, and weights, of shape (channels,
// outputs), are all matrices that read these inputs. As x·w = (x/s)·(s·w), the model stays the same function when ScaleInputs
// multiplies the weights by s and DivideOutputs divides what makes x by it: gamma and beta of a norm, or the weights and the bias of
// the layer before. Rounded to codes, x/s then errs less, its channels being more alike. A channel of zeros has the scale 1.
func SmoothScales(inputs []float64, cfg SmoothConfig, weights ...*tensor.Dense) ([]float64, error) {
	const fn = "quantize.SmoothScales"
	if cfg.Alpha == 0 {
		cfg.Alpha = 0.5
	}
	if !(cfg.Alpha > 0 && cfg.Alpha < 1) {
		return nil, fmt.Errorf("%s: Alpha: got %v, want a number above 0, below 1", fn, cfg.Alpha)
	}
	if len(inputs) == 0 || len(weights) == 0 {
		return nil, fmt.Errorf("%s: got %d inputs and %d weights, want at least one of each", fn, len(inputs), len(weights))
	}
	for j, x := range inputs {
		if !(x >= 0 && x <= math.MaxFloat64) {
			return nil, fmt.Errorf("%s: inputs: got %v at channel %d, want a finite number of 0 or more", fn, x, j)
		}
	}
	largest := make([]float64, len(inputs))
	for i, w := range weights {
		x, err := rowsFor(w, len(inputs))
		if err != nil {
			return nil, fmt.Errorf("%s: weights %d: %w", fn, i, err)
		}
		n := len(x) / len(inputs)
		for j := range largest {
			m := kernel.AbsMax(x[j*n : (j+1)*n])
			if !(m <= math.MaxFloat64) {
				return nil, fmt.Errorf("%s: weights %d: got a number that is not finite in row %d", fn, i, j)
			}
			largest[j] = max(largest[j], m)
		}
	}
	s := make([]float64, len(inputs))
	for j := range s {
		s[j] = 1
		if inputs[j] > 0 && largest[j] > 0 {
			s[j] = math.Pow(inputs[j], cfg.Alpha) / math.Pow(largest[j], 1-cfg.Alpha)
		}
		if cfg.PowersOfTwo {
			s[j] = math.Exp2(math.RoundToEven(math.Log2(s[j])))
		}
	}
	return s, nil
}

// rowsFor are the numbers of a matrix with the given number of rows, a copy.
func rowsFor(w *tensor.Dense, rows int) ([]float64, error) {
	switch {
	case w == nil:
		return nil, fmt.Errorf("got nil, want a matrix")
	case w.Dtype() != tensor.Float32 && w.Dtype() != tensor.Float64:
		return nil, fmt.Errorf("got dtype %v, want float32 or float64", w.Dtype())
	case w.Dims() != 2 || w.Shape()[0] != rows || w.Shape()[1] < 1:
		return nil, fmt.Errorf("got shape %v, want a matrix of %d rows", w.Shape(), rows)
	}
	return float64s(w)
}

// lastFor are the numbers of a tensor of rank 1 or more with the given last dimension, a copy.
func lastFor(v *tensor.Dense, last int) ([]float64, error) {
	switch {
	case v == nil:
		return nil, fmt.Errorf("got nil, want a tensor")
	case v.Dtype() != tensor.Float32 && v.Dtype() != tensor.Float64:
		return nil, fmt.Errorf("got dtype %v, want float32 or float64", v.Dtype())
	case v.Dims() < 1 || v.Shape()[v.Dims()-1] != last || v.Shape().TotalSize() == 0:
		return nil, fmt.Errorf("got shape %v, want %d in the last dimension, and every dimension at least 1", v.Shape(), last)
	}
	return float64s(v)
}

// ScaleInputs returns the weights w, of shape (inputs, outputs), with row j multiplied by s[j]. w is only read.
func ScaleInputs(w *tensor.Dense, s []float64) (*tensor.Dense, error) {
	const fn = "quantize.ScaleInputs"
	if err := checkScales(fn, s); err != nil {
		return nil, err
	}
	x, err := rowsFor(w, len(s))
	if err != nil {
		return nil, fmt.Errorf("%s: w: %w", fn, err)
	}
	n := len(x) / len(s)
	for i := range x {
		x[i] *= s[i/n]
	}
	return like(w, x), nil
}

// DivideOutputs returns v, whose last dimension is channels, with channel j divided by s[j]: a norm's gamma or beta, a bias, or
// the weights (inputs, outputs) of a layer. v is only read.
func DivideOutputs(v *tensor.Dense, s []float64) (*tensor.Dense, error) {
	const fn = "quantize.DivideOutputs"
	if err := checkScales(fn, s); err != nil {
		return nil, err
	}
	x, err := lastFor(v, len(s))
	if err != nil {
		return nil, fmt.Errorf("%s: v: %w", fn, err)
	}
	for i := range x {
		x[i] /= s[i%len(s)]
	}
	return like(v, x), nil
}

func checkScales(fn string, s []float64) error {
	if len(s) == 0 {
		return fmt.Errorf("%s: s: got no scales, want one for each channel", fn)
	}
	for j, v := range s {
		if !(v > 0 && v <= math.MaxFloat64) {
			return fmt.Errorf("%s: s: got %v at channel %d, want a finite number above 0", fn, v, j)
		}
	}
	return nil
}

// like is a tensor with the shape and dtype of d.
func like(d *tensor.Dense, x []float64) *tensor.Dense {
	if d.Dtype() == tensor.Float64 {
		return tensor.New(tensor.WithShape(d.Shape()...), tensor.WithBacking(x))
	}
	out, y := op.New[float32](d.Shape())
	for i, v := range x {
		y[i] = float32(v)
	}
	return out
}
