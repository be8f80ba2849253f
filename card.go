package stheno

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/card"
)

// residence is where weights are, for all models that share some: one and what Quantize made of it.
type residence struct {
	open atomic.Int32                    // graphs that are not closed
	host map[*tensor.Dense]*tensor.Dense // of weights on the card, the memory that they had
}

// ToCard moves the weights to memory that the card and the host share, where they stay: graphs made after it read
// them there, and ops.AdamW updates them there, while without it every run copies them. Parameters keep their tensors; the memory that
// they had is kept for FromCard, and what it holds is old until then.
//
// It wants the build tag cuda and a card, and no open graph or session of the model. Models that share weights (Quantize) share where
// these lie, and what is open. Train does this by itself, for as long as it lasts.
func (m *Model) ToCard() error {
	_, err := m.toCard()
	return err
}

// toCard returns the weights that were not there before.
func (m *Model) toCard() (moved []stored, err error) {
	const fn = "stheno: Model.ToCard"
	if !G.CUDA {
		return nil, fmt.Errorf("%s: got a build without the tag cuda, want one with it", fn)
	}
	for _, w := range m.stored() {
		if !w.onCard() {
			moved = append(moved, w)
		}
	}
	if len(moved) == 0 {
		return nil, nil
	}
	if err := m.home.noneOpen(fn); err != nil {
		return nil, err
	}
	there := make([]*tensor.Dense, len(moved))
	for i, w := range moved {
		if there[i], err = cardTensor(w.value); err != nil {
			for _, d := range there[:i] {
				err = errors.Join(err, freeCardTensor(d))
			}
			return nil, fmt.Errorf("%s: %s: %w", fn, w.name, err)
		}
	}
	if m.home.host == nil {
		m.home.host = map[*tensor.Dense]*tensor.Dense{}
	}
	for i, w := range moved {
		host := *w.value
		m.home.host[w.value], *w.value = &host, *there[i]
	}
	return moved, nil
}

func (r *residence) noneOpen(fn string) error {
	if n := r.open.Load(); n > 0 {
		return fmt.Errorf("%s: got %d open graphs, want them closed first: they read the weights where they are", fn, n)
	}
	return nil
}

// stored is a tensor of weights: a parameter, or codes, scales or zero points of a quantized one.
type stored struct {
	name  string
	value *tensor.Dense
}

func (w stored) onCard() bool { return card.Holds(w.value.Uintptr()) }

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
// more. It wants no open graph or session of the model, or of one that shares weights with it.
func (m *Model) FromCard() error { return m.fromCard(m.stored()) }

func (m *Model) fromCard(all []stored) error {
	const fn = "stheno: Model.FromCard"
	if err := m.home.noneOpen(fn); err != nil {
		return err
	}
	var errs []error
	for _, w := range all {
		host := m.home.host[w.value]
		if host == nil {
			continue
		}
		old := *w.value
		errs = append(errs, tensor.Copy(host, &old))
		*w.value = *host
		delete(m.home.host, w.value)
		errs = append(errs, freeCardTensor(&old))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	return nil
}

// OnCard reports whether all weights lie in memory of the card.
func (m *Model) OnCard() bool {
	return !slices.ContainsFunc(m.stored(), func(w stored) bool { return !w.onCard() })
}

// lendToCard moves the weights to the card for as long as something lasts, if that can be, and nothing keeps them where they are. Where
// the card has no room for them, full says so.
func (m *Model) lendToCard() (back func(), full, err error) {
	if !G.CUDA || m.home.open.Load() > 0 {
		return func() {}, nil, nil
	}
	moved, err := m.toCard()
	switch {
	case card.OutOfMemory(err):
		return func() {}, err, nil
	case card.None(err):
		return nil, nil, fmt.Errorf("%w; graphs of a build with the tag cuda want a card, those of one without it run on the CPU", err)
	case err != nil:
		return nil, nil, err
	}
	// Where graphs were opened meanwhile and are still open, the weights stay: that is no failure of what lasted.
	return func() { m.fromCard(moved) }, nil, nil
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
