package kvcompress

import (
	"fmt"

	"stheno/internal/parallel"
)

// Truncate forgets all but the first n tokens of each sequence.
//
// What is left stands for the same numbers as before. Forgetting up to Recent − GroupSize tokens leaves the state that a cache of
// n tokens would have, but that tokens which have been coded stay coded. Forgetting more may cut through a group: its remaining
// tokens move back among the recent ones, as the numbers that their codes stand for, and are coded anew, with a second rounding,
// when they are old again.
func (c *Compressed) Truncate(n int) error {
	lens, err := c.shape.shortened(c.LenOf, n)
	if err != nil {
		return err
	}
	return c.TruncateEach(lens)
}

// CheckTruncate returns the error that Truncate would return, and changes nothing.
func (c *Compressed) CheckTruncate(n int) error {
	lens, err := c.shape.shortened(c.LenOf, n)
	if err != nil {
		return err
	}
	return c.checkTruncate(lens)
}

// TruncateEach is Truncate with a length for each sequence.
func (c *Compressed) TruncateEach(n []int) error {
	if err := c.checkTruncate(n); err != nil {
		return err
	}
	for b := range c.seqs {
		c.truncate(&c.seqs[b], n[b])
	}
	return nil
}

func (c *Compressed) checkTruncate(n []int) error {
	if err := c.shape.checkTruncate(c.LenOf, n); err != nil {
		return err
	}
	for b := range c.seqs {
		if s := &c.seqs[b]; n[b] > c.sinks && n[b] < c.sinks+s.first*c.group {
			return fmt.Errorf("kvcompress: Truncate: got %d tokens, want at most the %d sinks or at least %d: the window has dropped those between",
				n[b], c.sinks, c.sinks+s.first*c.group)
		}
	}
	return nil
}

func (c *Compressed) truncate(s *stream, n int) {
	l := &c.layout
	if n <= l.sinks {
		s.reset(l)
		s.n = n
		return
	}
	// The group that is or was being filled keeps its scales only if all of its tokens, which those took into account, stay.
	i, at := l.place(min(n, s.coded))
	start := l.sinks + i*l.group
	if at > 0 && n < start+l.group {
		c.takeBack(s, i, start, min(n, s.coded))
	}
	s.n = n
	s.coded = min(s.coded, n)
	keep, rest := l.place(s.coded)
	if rest > 0 {
		keep++
	}
	s.drop(keep)
}

// takeBack moves the tokens from start to end, all of page i, into the ring.
func (c *Compressed) takeBack(s *stream, i, start, end int) {
	l := &c.layout
	p, count := s.pages[i], end-start
	parallel.Run(l.heads, func(w *parallel.Worker, h int) {
		k := parallel.Scratch[float32](w, slotKeys, count*l.dk)
		v := parallel.Scratch[float32](w, slotValues, count*l.dv)
		p.decode(l, h, k, v, 0, count)
		l.rotateRows(k)
		for j := range count {
			s.putHead(l, h, (start+j)%l.recent, k[j*l.dk:][:l.dk], v[j*l.dv:][:l.dv])
		}
	})
	s.coded = start
}

// Fork returns a cache of the same tokens that goes its own way from here on. Coded groups are shared until one of the two writes
// to them; recent tokens are copied. The fork of a cache on a card is one in memory of the host, and shares nothing.
func (c *Compressed) Fork() *Compressed {
	f := *c
	f.seqs, f.counts, f.parts = make([]stream, len(c.seqs)), make([]int, len(c.seqs)), nil
	for b := range c.seqs {
		if c.seqs[b].fixed != nil {
			f.seqs[b] = c.onHost(&c.seqs[b])
			continue
		}
		s := c.seqs[b]
		s.pages, s.owner, s.spare, s.room = append([]*page(nil), s.pages...), new(owner), nil, 0
		for _, p := range s.pages {
			if p != nil {
				p.shared.Store(true)
			}
		}
		s.sinkK, s.sinkV = append([]float32(nil), s.sinkK...), append([]float32(nil), s.sinkV...)
		s.k, s.v = append([]float32(nil), s.k...), append([]float32(nil), s.v...)
		s.halfK, s.halfV = append([]uint16(nil), s.halfK...), append([]uint16(nil), s.halfV...)
		f.seqs[b] = s
	}
	return &f
}
