package quantize

import (
	"gorgonia.org/tensor"

	"stheno/internal/op"
)

// float64s returns a tensor's numbers, a copy, in float64.
func float64s(d *tensor.Dense) ([]float64, error) {
	if d.Dtype() == tensor.Float64 {
		x, err := op.Data[float64](d)
		return append([]float64(nil), x...), err
	}
	x, err := op.Data[float32](d)
	if err != nil {
		return nil, err
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out, nil
}
