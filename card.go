package stheno

import (
	"errors"
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/card"
)

// ToCard moves the weights to memory that the card and the host share, where they stay: graphs made after it read
// them there, and ops.AdamW updates them there, while without it every run copies them. Parameters keep their tensors; the memory that
// they had is kept for FromCard, and what it holds is old until then.
//
// It wants the build tag cuda and a card, and no open graph or session of the model. Train does this by itself, for as long as it lasts.
func (m *Model) ToCard() error {
	const fn = "stheno: Model.ToCard"
	if !G.CUDA {
		return fmt.Errorf("%s: got a build without the tag cuda, want one with it", fn)
	}
	if n := m.open.Load(); n > 0 {
		return fmt.Errorf("%s: got %d open graphs, want them closed first: they read the weights where they are", fn, n)
	}
	if m.OnCard() {
		return nil
	}
	all := m.stored()
	moved := make([]*tensor.Dense, len(all))
	for i, w := range all {
		var err error
		if moved[i], err = cardTensor(w.value); err != nil {
			for _, d := range moved[:i] {
				err = errors.Join(err, freeCardTensor(d))
			}
			return fmt.Errorf("%s: %s: %w", fn, w.name, err)
		}
	}
	m.host = make([]*tensor.Dense, len(all))
	for i, w := range all {
		host := *w.value
		m.host[i], *w.value = &host, *moved[i]
	}
	return nil
}

// stored is a tensor of weights: a parameter, or codes, scales or zero points of a quantized one.
type stored struct {
	name  string
	value *tensor.Dense
}

func (m *Model) stored() (all []stored) {
	for _, p := range m.params {
		all = append(all, stored{p.Name, p.Value})
	}
	for _, l := range m.cfg.layers() {
		p := m.packed[l.weight]
		if p == nil {
			continue
		}
		for _, d := range []*tensor.Dense{p.Codes, p.Scales, p.Zeros} {
			if d != nil {
				all = append(all, stored{l.weight, d})
			}
		}
	}
	return all
}

// FromCard moves the weights back to the memory that they had. Slices that were taken of their memory meanwhile must not be used any
// more. It wants no open graph or session of the model.
func (m *Model) FromCard() error {
	const fn = "stheno: Model.FromCard"
	if n := m.open.Load(); n > 0 {
		return fmt.Errorf("%s: got %d open graphs, want them closed first: they read the weights where they are", fn, n)
	}
	if !m.OnCard() {
		return nil
	}
	var errs []error
	for i, w := range m.stored() {
		old := *w.value
		errs = append(errs, tensor.Copy(m.host[i], &old))
		*w.value = *m.host[i]
		errs = append(errs, freeCardTensor(&old))
	}
	m.host = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	return nil
}

// OnCard reports whether the weights lie in memory of the card.
func (m *Model) OnCard() bool {
	return len(m.params) > 0 && card.Holds(m.params[0].Value.Uintptr())
}

// lendToCard moves the weights to the card for as long as something lasts, if that can be, and nothing keeps them where they are.
func (m *Model) lendToCard() (back func(), err error) {
	if !G.CUDA || m.OnCard() || m.open.Load() > 0 {
		return func() {}, nil
	}
	if err := m.ToCard(); err != nil {
		return nil, err
	}
	// Where graphs were opened meanwhile and are still open, the weights stay: that is no failure of what lasted.
	return func() { m.FromCard() }, nil
}

// cardTensor is a copy of d on the card.
func cardTensor(d *tensor.Dense) (*tensor.Dense, error) {
	switch x := d.Data().(type) {
	case []float32:
		return cardCopy(x, d.Shape())
	case []float64:
		return cardCopy(x, d.Shape())
	case []uint8:
		return cardCopy(x, d.Shape())
	case []uint16:
		return cardCopy(x, d.Shape())
	}
	return nil, fmt.Errorf("got %v, want float32, float64, uint8 or uint16", d.Dtype())
}

func cardCopy[T float32 | float64 | uint8 | uint16](x []T, shape tensor.Shape) (*tensor.Dense, error) {
	to, err := card.Alloc[T](len(x))
	if err != nil {
		return nil, err
	}
	copy(to, x)
	return dense(to, shape), nil
}

func freeCardTensor(d *tensor.Dense) error {
	switch x := d.Data().(type) {
	case []float32:
		return card.Free(x)
	case []float64:
		return card.Free(x)
	case []uint8:
		return card.Free(x)
	case []uint16:
		return card.Free(x)
	}
	return nil
}

// copied is a copy of a slice of numbers.
func copied(data any) any {
	if x, ok := data.([]float64); ok {
		return append([]float64(nil), x...)
	}
	return append([]float32(nil), data.([]float32)...)
}
