package kvcompress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// The file of an Evicting is a frame with, of each head of each sequence, the keys, values, positions and accumulated attention of the
// slots in use.
const evictMagic = "sthenev1"

type evictHeader struct {
	Shape     Shape
	Config    Config
	Sequences []evictSequence
}

type evictSequence struct{ Len, Held, Fresh, Floor int }

// Save writes the cache to a file, which is complete or not there: it is written aside and renamed.
func (c *Evicting) Save(path string) error {
	h := evictHeader{Shape: c.shape, Config: c.cfg}
	for _, q := range c.seqs {
		h.Sequences = append(h.Sequences, evictSequence{q.n, q.held, q.fresh, q.floor})
	}
	return saveFrame(path, evictMagic, h, c.numbers)
}

// numbers calls f with the numbers of all slots in use, in the order of a file.
func (c *Evicting) numbers(f func(part any) error) error {
	for b, q := range c.seqs {
		for h := range c.shape.KVHeads {
			at, dk, dv := c.at(b, h), c.shape.HeadDim, c.shape.ValueDim
			for _, part := range []any{c.k[at*dk:][:q.held*dk], c.v[at*dv:][:q.held*dv], c.place[at:][:q.held], c.weight[at:][:q.held]} {
				if err := f(part); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Restore replaces what is cached by what Save wrote. A file that is damaged, or that belongs to a cache of another shape or
// another Config, Config.Model included, is refused, and the cache is left as it was.
func (c *Evicting) Restore(path string) error {
	return restoreFrame(path, evictMagic, c.read)
}

func (c *Evicting) read(header []byte, r *bytes.Reader) error {
	var h evictHeader
	if err := readHeader(header, &h); err != nil {
		return err
	}
	if err := sameCache(h.Shape, c.shape, h.Config, c.cfg, len(h.Sequences)); err != nil {
		return err
	}
	need, most := int64(0), 0
	for b, q := range h.Sequences {
		if q.Len < 0 || q.Len > c.shape.Capacity || q.Held < 0 || q.Held > q.Len || q.Fresh < 0 || q.Fresh > q.Held || q.Floor < 0 || q.Floor > q.Len ||
			q.Len-q.Floor > q.Held || q.Floor == 0 && q.Held != q.Len {
			return fmt.Errorf("sequence %d: got %d tokens, %d of them held, %d in order, all from %d on, which no cache of %d has", b, q.Len, q.Held, q.Fresh, q.Floor, c.shape.Capacity)
		}
		need += int64(q.Held) * int64(c.shape.KVHeads) * int64(4*(c.shape.HeadDim+c.shape.ValueDim)+4+8)
		most = max(most, q.Held)
	}
	if int64(r.Len()) != need {
		return fmt.Errorf("got %d bytes of numbers, want %d", r.Len(), need)
	}
	n := newEvicting(c.shape, c.cfg)
	if most > n.slots {
		n.resize(min(c.shape.Capacity, most+evictSlack))
	}
	for b, q := range h.Sequences {
		n.seqs[b] = keptTokens{n: q.Len, held: q.Held, fresh: q.Fresh, floor: q.Floor}
	}
	if err := n.numbers(func(part any) error { return binary.Read(r, binary.LittleEndian, part) }); err != nil {
		return err
	}
	for b := range n.seqs {
		for h := range c.shape.KVHeads {
			if err := n.checkSlots(b, h); err != nil {
				return fmt.Errorf("sequence %d: head %d: %w", b, h, err)
			}
		}
	}
	*c = *n
	return nil
}

// checkSlots reports positions and weights that no cache has: those of sinks come first, those of the fresh tokens last, all from the
// floor on are there, and none twice.
func (c *Evicting) checkSlots(b, h int) error {
	q, at := c.seqs[b], c.at(b, h)
	places := c.place[at:][:q.held]
	for i, p := range places {
		want := int(p)
		switch {
		case q.floor == 0 || i < c.cfg.SinkTokens:
			want = i
		case i >= q.held-q.fresh:
			want = q.n - q.held + i
		}
		if int(p) != want || p < 0 || int(p) >= q.n {
			return fmt.Errorf("got token %d in slot %d, which no cache of %d tokens has", p, i, q.n)
		}
	}
	sorted := slices.Sorted(slices.Values(places))
	for i, p := range sorted {
		if i > 0 && p == sorted[i-1] {
			return fmt.Errorf("got token %d twice", p)
		}
	}
	if from, _ := slices.BinarySearch(sorted, int32(q.floor)); q.held-from != q.n-q.floor {
		return fmt.Errorf("got %d tokens from %d on, want %d", q.held-from, q.floor, q.n-q.floor)
	}
	for i, w := range c.weight[at:][:q.held] {
		if !(w >= 0 && w <= math.MaxFloat64) {
			return fmt.Errorf("got an accumulated attention of %v in slot %d, want a finite number of at least 0", w, i)
		}
	}
	return nil
}
