package kvcompress

import (
	"fmt"

	"stheno/internal/parallel"
)

// Compress returns a cache of seq tokens: k (batch, seq, kvHeads, headDim), v (batch, seq, kvHeads, valueDim). A capacity of 0 in
// shape means seq.
func Compress(k, v []float32, seq int, shape Shape, cfg Config) (*Compressed, error) {
	if shape.Capacity == 0 {
		shape.Capacity = seq
	}
	c, err := NewCompressed(shape, cfg)
	if err != nil {
		return nil, err
	}
	if err := c.Append(k, v, seq); err != nil {
		return nil, err
	}
	return c, nil
}

// Decompress returns the numbers that the cache stands for, k (batch, Len, kvHeads, headDim) and v (batch, Len, kvHeads, valueDim):
// attention over the cache is attention over these, to the rounding of float32. Tokens that a sequence does not have, and those that
// Config.Window has dropped, are zeros.
func (c *Compressed) Decompress() (k, v []float32) {
	n := c.Len()
	k, v = make([]float32, len(c.seqs)*n*c.heads*c.dk), make([]float32, len(c.seqs)*n*c.heads*c.dv)
	if n == 0 {
		return k, v
	}
	parallel.Run(len(c.seqs)*c.heads, func(w *parallel.Worker, i int) {
		b, h := i/c.heads, i%c.heads
		s := &c.seqs[b]
		hk, hv := parallel.Scratch[float32](w, slotKeys, s.n*c.dk), parallel.Scratch[float32](w, slotValues, s.n*c.dv)
		s.decodeHead(&c.layout, h, hk, hv)
		for t := range s.n {
			at := (b*n+t)*c.heads + h
			copy(k[at*c.dk:][:c.dk], hk[t*c.dk:])
			copy(v[at*c.dv:][:c.dv], hv[t*c.dv:])
		}
	})
	return k, v
}

// Savings is what a cache of a number of tokens holds, beside float32 for the same tokens.
type Savings struct {
	Bytes   int64   // of the cache
	Float32 int64   // of the same tokens in float32
	Ratio   float64 // Float32 / Bytes
}

// MemorySavings returns what a cache made with shape and cfg holds once each sequence has seq tokens. It is exact: Bytes of such a
// cache returns the same. A capacity of 0 in shape means seq.
func MemorySavings(seq int, shape Shape, cfg Config) (Savings, error) {
	if shape.Capacity == 0 {
		shape.Capacity = seq
	}
	shape, err := shape.normal()
	if err != nil {
		return Savings{}, err
	}
	if cfg, err = cfg.normal(shape); err != nil {
		return Savings{}, err
	}
	if seq < 1 || seq > shape.Capacity {
		return Savings{}, fmt.Errorf("kvcompress: MemorySavings: got %d tokens, want 1 to the capacity %d", seq, shape.Capacity)
	}
	width := int64(shape.Batch * shape.KVHeads * (shape.HeadDim + shape.ValueDim))
	out := Savings{Float32: 4 * width * int64(seq)}
	if cfg.Budget > 0 {
		out.Bytes = evictBytes(shape, cfg)
	} else if cfg.Ratio == 1 {
		out.Bytes = 4 * width * int64(shape.Capacity)
	} else {
		l := newLayout(shape, cfg)
		pages := 0
		for need := l.pagesAt(seq, cfg.Window); pages < need; {
			pages += l.slabPages(pages, l.most)
		}
		exact := int64(4 * l.recent)
		if cfg.RecentFP16 {
			exact /= 2
		}
		out.Bytes = width*(int64(4*l.sinks)+exact) + int64(shape.Batch*pages*l.pageBytes())
	}
	out.Ratio = float64(out.Float32) / float64(out.Bytes)
	return out, nil
}

// pagesAt is the largest number of pages that a sequence has in use while it grows to seq tokens.
func (l *layout) pagesAt(seq, window int) int {
	coded := max(0, seq-l.sinks-l.recent)
	pages := (coded + l.group - 1) / l.group
	if window > 0 {
		// Before a token is coded into a new page, the last whole pages within the window of the tokens so far are there.
		pages = min(pages, max(0, window-l.recent)/l.group+3)
	}
	return pages
}
