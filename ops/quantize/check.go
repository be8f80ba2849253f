package quantize

import (
	"fmt"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
)

// Check reports a Packed that is not one that Quantize could have made, such as one put together from a damaged file: tensors
// of another shape or dtype than Config, In and Out ask for, scales that are not positive numbers, zero points that are no
// codes, 16-bit weights that are not finite. It reads every number once.
func (p *Packed) Check() error {
	const fn = "quantize.Check"
	if p == nil {
		return fmt.Errorf("%s: got nil, want what Quantize returns", fn)
	}
	cfg, err := p.Config.normal(fn)
	if err != nil {
		return err
	}
	if cfg != p.Config {
		return fmt.Errorf("%s: Config: got %+v, want defaults filled in: %+v", fn, p.Config, cfg)
	}
	if p.In < 1 || p.Out < 1 || p.In > kernel.MaxQuantizedRows {
		return fmt.Errorf("%s: got %d inputs and %d outputs, want 1 to %d inputs, 1 or more outputs", fn, p.In, p.Out, kernel.MaxQuantizedRows)
	}
	l := layoutOf(cfg, p.In, p.Out)
	for _, part := range []struct {
		name  string
		value *tensor.Dense
		shape tensor.Shape
		dtype tensor.Dtype
	}{
		{"codes", p.Codes, l.codes, l.dtype},
		{"scales", p.Scales, l.scales, tensor.Float32},
		{"zeros", p.Zeros, zerosShape(l), tensor.Uint8},
	} {
		switch {
		case part.shape == nil && part.value == nil:
		case part.shape == nil:
			return fmt.Errorf("%s: %s: got a tensor, want none for %v", fn, part.name, cfg)
		case part.value == nil:
			return fmt.Errorf("%s: %s: got nil, want shape %v for %v", fn, part.name, part.shape, cfg)
		case part.value.Dtype() != part.dtype:
			return fmt.Errorf("%s: %s: got dtype %v, want %v for %v", fn, part.name, part.value.Dtype(), part.dtype, cfg)
		case part.value.Dims() != part.shape.Dims() || !part.value.Shape().Eq(part.shape):
			return fmt.Errorf("%s: %s: got shape %v, want %v for %v", fn, part.name, part.value.Shape(), part.shape, cfg)
		}
	}
	q, err := p.view()
	if err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	for i, s := range q.Scales {
		if !(s > 0 && s <= 0x1p127) {
			return fmt.Errorf("%s: scales: got %v at element %d, want a positive number", fn, s, i)
		}
	}
	for i, z := range q.Zeros {
		if int(z) >= cfg.Scheme.levels() {
			return fmt.Errorf("%s: zeros: got %d at element %d, want 0 to %d", fn, z, i, cfg.Scheme.levels()-1)
		}
	}
	exponent := uint16(0x7c00) // all ones: an infinity or NaN
	if cfg.Scheme == BF16 {
		exponent = 0x7f80
	}
	for i, h := range q.Halves {
		if h&exponent == exponent {
			return fmt.Errorf("%s: codes: got an infinity or NaN at element %d, want finite numbers", fn, i)
		}
	}
	return nil
}
