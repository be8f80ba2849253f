package kvcompress

import (
	"errors"
	"fmt"
	"unsafe"

	G "gorgonia.org/gorgonia"

	"stheno/internal/card"
	"stheno/internal/memory"
)

// ToCard moves the cache to memory that a card and the host share, where it stays: Attend nodes that are made after it append and attend
// there, on codes as they lie, and every method works as before. All memory that the capacity can fill is taken at once. FromCard
// gives it back.
//
// It wants the build tag cuda and a card, and no machine running with the cache. On the card, keys and values that FP16 cannot hold
// become infinities or NaN, where Append has an error.
func (c *Compressed) ToCard() error {
	const fn = "kvcompress: Compressed.ToCard"
	if !G.CUDA {
		return fmt.Errorf("%s: got a build without the tag cuda, want one with it", fn)
	}
	if c.OnCard() {
		return nil
	}
	moved := make([]stream, len(c.seqs))
	for b := range c.seqs {
		var err error
		if moved[b], err = c.onCard(&c.seqs[b]); err != nil {
			for i := range b {
				err = errors.Join(err, moved[i].leaveCard())
			}
			return fmt.Errorf("%s: %w", fn, err)
		}
	}
	copy(c.seqs, moved)
	return nil
}

// FromCard moves the cache back to memory of the host. Graphs that were made while it was on the card must not run any more.
func (c *Compressed) FromCard() error {
	if !c.OnCard() {
		return nil
	}
	var errs []error
	for b := range c.seqs {
		old := c.seqs[b]
		c.seqs[b] = c.onHost(&old)
		errs = append(errs, old.leaveCard())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("kvcompress: Compressed.FromCard: %w", err)
	}
	return nil
}

// OnCard reports whether the cache lies in memory of the card.
func (c *Compressed) OnCard() bool { return len(c.seqs) > 0 && c.seqs[0].fixed != nil }

// ToCard is Compressed.ToCard for a cache in float32.
func (c *Plain) ToCard() error {
	const fn = "kvcompress: Plain.ToCard"
	if !G.CUDA {
		return fmt.Errorf("%s: got a build without the tag cuda, want one with it", fn)
	}
	if c.OnCard() {
		return nil
	}
	var k, v []float32
	if err := errors.Join(cardCopy(&k, c.k), cardCopy(&v, c.v)); err != nil {
		return fmt.Errorf("%s: %w", fn, errors.Join(err, leave(k), leave(v)))
	}
	c.k, c.v = k, v
	return nil
}

// FromCard is Compressed.FromCard for a cache in float32.
func (c *Plain) FromCard() error {
	if !c.OnCard() {
		return nil
	}
	k, v := c.k, c.v
	c.k, c.v = memory.Make[float32](len(k)), memory.Make[float32](len(v))
	copy(c.k, k)
	copy(c.v, v)
	if err := errors.Join(leave(k), leave(v)); err != nil {
		return fmt.Errorf("kvcompress: Plain.FromCard: %w", err)
	}
	return nil
}

// OnCard reports whether the cache lies in memory of the card.
func (c *Plain) OnCard() bool { return card.Holds(uintptr(unsafe.Pointer(unsafe.SliceData(c.k)))) }

// onCard is a copy of s in memory of the card: one slab, in which a page lies at its number.
func (c *Compressed) onCard(s *stream) (_ stream, err error) {
	l, m := &c.layout, *s
	m.owner, m.spare, m.room = new(owner), nil, l.most
	all := &slab{owner: m.owner, pages: l.most}
	m.sinkK, m.sinkV, m.k, m.v, m.halfK, m.halfV = nil, nil, nil, nil, nil, nil
	m.fixed = make([]*page, l.most)
	for i := range m.fixed {
		m.fixed[i] = &page{slab: all, i: i}
	}
	err = errors.Join(
		cardCopy(&m.sinkK, s.sinkK), cardCopy(&m.sinkV, s.sinkV), cardCopy(&m.k, s.k), cardCopy(&m.v, s.v),
		cardCopy(&m.halfK, s.halfK), cardCopy(&m.halfV, s.halfV),
		cardCopy(&all.codes, make([]uint8, l.most*l.codes())), cardCopy(&all.halves, make([]uint16, l.most*l.halves())))
	if err != nil {
		return m, errors.Join(err, m.leaveCard())
	}
	m.pages = make([]*page, len(s.pages))
	for i, p := range s.pages {
		if p != nil {
			m.pages[i] = m.fixed[i]
			m.pages[i].copyFrom(l, p)
		}
	}
	return m, nil
}

// cardCopy sets to to a copy of x on the card, nil if x is empty.
func cardCopy[T float32 | uint16 | uint8](to *[]T, x []T) error {
	if len(x) == 0 {
		return nil
	}
	y, err := card.Alloc[T](len(x))
	copy(y, x)
	*to = y
	return err
}

// leaveCard frees the memory of a stream of onCard.
func (s *stream) leaveCard() error {
	errs := []error{leave(s.sinkK), leave(s.sinkV), leave(s.k), leave(s.v), leave(s.halfK), leave(s.halfV)}
	if len(s.fixed) > 0 {
		errs = append(errs, leave(s.fixed[0].codes), leave(s.fixed[0].halves))
	}
	return errors.Join(errs...)
}

func leave[T float32 | uint16 | uint8](x []T) error {
	if unsafe.SliceData(x) == nil {
		return nil
	}
	return card.Free(x)
}

// onHost is a copy of s in memory of the host.
func (c *Compressed) onHost(s *stream) stream {
	m := newStream(&c.layout, s.halfK != nil)
	m.hold(&c.layout, s)
	return m
}

// hold makes an empty s hold what from holds, in memory of its own.
func (s *stream) hold(l *layout, from *stream) {
	s.n, s.coded, s.first = from.n, from.coded, from.first
	copy(s.sinkK, from.sinkK)
	copy(s.sinkV, from.sinkV)
	copy(s.k, from.k)
	copy(s.v, from.v)
	copy(s.halfK, from.halfK)
	copy(s.halfV, from.halfV)
	for _, p := range from.pages {
		if p == nil {
			s.pages = append(s.pages, nil)
			continue
		}
		q := s.newPage(l)
		q.copyFrom(l, p)
		s.pages = append(s.pages, q)
	}
}
