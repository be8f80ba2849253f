package kvcompress

import (
	"fmt"

	"stheno/ops/flashattn"
)

// Plain is a Cache that keeps every key and value as the float32 it is. Its memory is allocated once.
//
// Keys and values are stored head by head, (batch, kvHeads, capacity, dim), so that a query streams through the tokens of
// its head.
type Plain struct {
	shape Shape
	k, v  []float32
	n     int
	ends  []int // n, and n less the queries, for each sequence
}

var _ Cache = (*Plain)(nil)

// NewPlain returns an empty cache.
func NewPlain(shape Shape) (*Plain, error) {
	shape, err := shape.normal()
	if err != nil {
		return nil, err
	}
	rows := shape.Batch * shape.KVHeads * shape.Capacity
	return &Plain{
		shape: shape,
		k:     make([]float32, rows*shape.HeadDim),
		v:     make([]float32, rows*shape.ValueDim),
		ends:  make([]int, 2*shape.Batch),
	}, nil
}

// Shape returns the sizes the cache was made with.
func (c *Plain) Shape() Shape { return c.shape }

// Len is the number of tokens cached.
func (c *Plain) Len() int { return c.n }

// Bytes is the memory of keys and values, used or not.
func (c *Plain) Bytes() int64 { return 4 * int64(len(c.k)+len(c.v)) }

// Reset forgets everything and keeps the memory.
func (c *Plain) Reset() { c.n = 0 }

// Truncate forgets all but the first n tokens.
func (c *Plain) Truncate(n int) error {
	if n < 0 || n > c.n {
		return fmt.Errorf("kvcompress: Truncate: got %d tokens, want 0 to %d", n, c.n)
	}
	c.n = n
	return nil
}

// Append adds seq tokens.
func (c *Plain) Append(k, v []float32, seq int) error {
	if err := c.shape.checkAppend(c.n, k, v, seq); err != nil {
		return err
	}
	c.scatter(c.k, k, seq, c.shape.HeadDim)
	c.scatter(c.v, v, seq, c.shape.ValueDim)
	c.n += seq
	return nil
}

// scatter copies (batch, seq, kvHeads, dim) behind the tokens of each head.
func (c *Plain) scatter(dst, src []float32, seq, dim int) {
	s := c.shape
	for b := range s.Batch {
		for i := range seq {
			for h := range s.KVHeads {
				to := ((b*s.KVHeads+h)*s.Capacity + c.n + i) * dim
				copy(dst[to:to+dim], src[((b*seq+i)*s.KVHeads+h)*dim:])
			}
		}
	}
}

// Attend attends the queries of the seq newest tokens over everything cached.
func (c *Plain) Attend(out, q []float32, seq, heads int, cfg flashattn.Config, sinks []float32) error {
	s := c.shape
	if err := s.checkAttend(c.n, out, q, seq, heads, sinks); err != nil {
		return err
	}
	lens, positions := c.ends[:s.Batch], c.ends[s.Batch:]
	for b := range s.Batch {
		lens[b], positions[b] = c.n, c.n-seq
	}
	return flashattn.Forward(
		flashattn.Contiguous(out, s.Batch, seq, heads, s.ValueDim),
		flashattn.Contiguous(q, s.Batch, seq, heads, s.HeadDim),
		c.heads(c.k, s.HeadDim), c.heads(c.v, s.ValueDim),
		cfg, flashattn.Operands[float32]{KeyLens: lens, Positions: positions, Sinks: sinks},
	)
}

// heads is the view (batch, used, kvHeads, dim) of keys or values.
func (c *Plain) heads(data []float32, dim int) flashattn.Heads[float32] {
	s := c.shape
	return flashattn.Heads[float32]{
		Data: data, Batch: s.Batch, Seq: c.n, Heads: s.KVHeads, Dim: dim,
		BatchStride: s.KVHeads * s.Capacity * dim, SeqStride: dim, HeadStride: s.Capacity * dim,
	}
}
