package kvcompress

import (
	"slices"

	"stheno/internal/memory"
	"stheno/ops/flashattn"
)

// Plain is a Cache that keeps every key and value as the float32 it is. Its memory is allocated once.
//
// Keys and values are stored head by head, (batch, kvHeads, capacity, dim), so that a query streams through the tokens of
// its head.
type Plain struct {
	shape     Shape
	k, v      []float32
	lens      []int // of each sequence
	positions []int // of the first query of each sequence
}

var (
	_ Cache  = (*Plain)(nil)
	_ Ragged = (*Plain)(nil)
)

// NewPlain returns an empty cache.
func NewPlain(shape Shape) (*Plain, error) {
	shape, err := shape.normal()
	if err != nil {
		return nil, err
	}
	rows := shape.Batch * shape.KVHeads * shape.Capacity
	return &Plain{
		shape:     shape,
		k:         memory.Make[float32](rows * shape.HeadDim),
		v:         memory.Make[float32](rows * shape.ValueDim),
		lens:      make([]int, shape.Batch),
		positions: make([]int, shape.Batch),
	}, nil
}

// Shape returns the sizes the cache was made with.
func (c *Plain) Shape() Shape { return c.shape }

// Len is the number of tokens of the longest sequence.
func (c *Plain) Len() int { return slices.Max(c.lens) }

// LenOf is the number of tokens of sequence b.
func (c *Plain) LenOf(b int) int { return c.lens[b] }

// Bytes is the memory of keys and values, used or not.
func (c *Plain) Bytes() int64 { return 4 * int64(len(c.k)+len(c.v)) }

// Reset forgets everything and keeps the memory.
func (c *Plain) Reset() { clear(c.lens) }

// Truncate forgets all but the first n tokens of each sequence.
func (c *Plain) Truncate(n int) error {
	lens, err := c.shape.shortened(c.LenOf, n)
	if err == nil {
		copy(c.lens, lens)
	}
	return err
}

// TruncateEach forgets all but the first n[b] tokens of each sequence b.
func (c *Plain) TruncateEach(n []int) error {
	if err := c.shape.checkTruncate(c.LenOf, n); err != nil {
		return err
	}
	copy(c.lens, n)
	return nil
}

// Append adds seq tokens to each sequence.
func (c *Plain) Append(k, v []float32, seq int) error { return c.AppendSome(k, v, seq, nil) }

// AppendSome adds the first counts[b] of seq tokens to sequence b, all of them if counts is nil.
func (c *Plain) AppendSome(k, v []float32, seq int, counts []int) error {
	if err := c.shape.checkAppend(c.LenOf, k, v, seq, counts); err != nil {
		return err
	}
	for b := range c.lens {
		n := seq
		if counts != nil {
			n = counts[b]
		}
		c.scatter(c.k, k, b, seq, n, c.shape.HeadDim)
		c.scatter(c.v, v, b, seq, n, c.shape.ValueDim)
		c.lens[b] += n
	}
	return nil
}

// scatter copies the first n tokens of sequence b of (batch, seq, kvHeads, dim) behind the tokens of each head.
func (c *Plain) scatter(dst, src []float32, b, seq, n, dim int) {
	s := c.shape
	for i := range n {
		for h := range s.KVHeads {
			to := ((b*s.KVHeads+h)*s.Capacity + c.lens[b] + i) * dim
			copy(dst[to:to+dim], src[((b*seq+i)*s.KVHeads+h)*dim:])
		}
	}
}

// Attend attends the queries of the seq newest tokens over everything cached.
func (c *Plain) Attend(out, q []float32, seq, heads int, cfg flashattn.Config, sinks []float32) error {
	return c.AttendSome(out, q, seq, heads, nil, cfg, sinks)
}

// AttendSome attends the first counts[b] queries of each sequence b, its newest tokens, or all of them if counts is nil.
func (c *Plain) AttendSome(out, q []float32, seq, heads int, counts []int, cfg flashattn.Config, sinks []float32) error {
	s := c.shape
	if err := s.checkAttend(c.LenOf, out, q, seq, heads, counts, sinks); err != nil {
		return err
	}
	for b, n := range c.lens {
		c.positions[b] = n - seq
		if counts != nil {
			c.positions[b] = n - counts[b]
		}
	}
	if c.Len() == 0 {
		clear(out)
		return nil
	}
	cfg.Causal = true
	err := flashattn.Forward(
		flashattn.Contiguous(out, s.Batch, seq, heads, s.ValueDim),
		flashattn.Contiguous(q, s.Batch, seq, heads, s.HeadDim),
		c.heads(c.k, s.HeadDim), c.heads(c.v, s.ValueDim),
		cfg, flashattn.Operands[float32]{KeyLens: c.lens, Positions: c.positions, Sinks: sinks},
	)
	if err == nil {
		clearIdle(out, seq, heads*s.ValueDim, counts)
	}
	return err
}

// clearIdle zeroes the outputs of queries that do not count.
func clearIdle(out []float32, seq, width int, counts []int) {
	for b, n := range counts {
		clear(out[(b*seq+n)*width : (b+1)*seq*width])
	}
}

// heads is the view (batch, used, kvHeads, dim) of keys or values.
func (c *Plain) heads(data []float32, dim int) flashattn.Heads[float32] {
	s := c.shape
	return flashattn.Heads[float32]{
		Data: data, Batch: s.Batch, Seq: c.Len(), Heads: s.KVHeads, Dim: dim,
		BatchStride: s.KVHeads * s.Capacity * dim, SeqStride: dim, HeadStride: s.Capacity * dim,
	}
}
