package stheno

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// gradSums adds up the gradients of several runs.
type gradSums struct{ grads []G.ValueGrad }

func newGradSums(m *Model) *gradSums {
	s := &gradSums{}
	for _, p := range m.params {
		sum := tensor.New(tensor.WithShape(p.Value.Shape()...), tensor.Of(m.dtype))
		s.grads = append(s.grads, &paramGrad{name: p.Name, value: p.Value, grad: sum})
	}
	return s
}

// add adds weight·grads to the sums, or starts them anew, and returns the sums.
func (s *gradSums) add(grads []G.ValueGrad, first bool, weight float64) ([]G.ValueGrad, error) {
	errs := make([]error, len(grads))
	parallel.Run(len(grads), func(_ *parallel.Worker, i int) {
		from, err := grads[i].Grad()
		if err != nil {
			errs[i] = err
			return
		}
		to := s.grads[i].(*paramGrad)
		switch src := from.Data().(type) {
		case []float32:
			errs[i] = addScaled(to, src, first, float32(weight))
		case []float64:
			errs[i] = addScaled(to, src, first, weight)
		default:
			errs[i] = fmt.Errorf("%s: got a gradient of %T, want floats", to.name, src)
		}
	})
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return s.grads, nil
}

func addScaled[T kernel.Float](to *paramGrad, src []T, first bool, weight T) error {
	dst, ok := to.grad.Data().([]T)
	if !ok || len(dst) != len(src) {
		return fmt.Errorf("%s: got a gradient of %d elements of %T, want %d of %v", to.name, len(src), *new(T), to.value.Size(), to.value.Dtype())
	}
	if first {
		clear(dst)
	}
	kernel.Axpy(dst, weight, src)
	return nil
}
