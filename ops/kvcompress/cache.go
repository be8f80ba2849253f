package kvcompress

import (
	"fmt"
	"math"

	"stheno/ops/flashattn"
)

// Shape is the size of a cache.
type Shape struct {
	Batch    int // sequences
	KVHeads  int
	HeadDim  int // of keys
	ValueDim int // of values; 0: HeadDim
	Capacity int // tokens of each sequence
}

// Cache is what Attend reads and writes. Slices are row-major and of the sizes that Shape implies; seq is the number of
// tokens of each sequence that they hold. A method that returns an error has changed nothing.
type Cache interface {
	// Shape returns the sizes the cache was made with.
	Shape() Shape

	// Len is the number of tokens cached, the same for every sequence of the batch.
	Len() int

	// Append adds seq tokens: k (batch, seq, kvHeads, headDim), v (batch, seq, kvHeads, valueDim). More than the capacity
	// is an error.
	Append(k, v []float32, seq int) error

	// Attend attends the queries of the seq newest tokens, q (batch, seq, heads, headDim), over what is cached, and
	// writes out (batch, seq, heads, valueDim). sinks (heads) may be nil. The nodes in cfg are nil.
	Attend(out, q []float32, seq, heads int, cfg flashattn.Config, sinks []float32) error

	// Truncate forgets all but the first n tokens.
	Truncate(n int) error

	// Reset forgets everything and keeps the memory.
	Reset()

	// Bytes is the memory held for keys and values.
	Bytes() int64
}

func (s Shape) normal() (Shape, error) {
	if s.ValueDim == 0 {
		s.ValueDim = s.HeadDim
	}
	for _, f := range []struct {
		name string
		got  int
	}{
		{"Batch", s.Batch}, {"KVHeads", s.KVHeads}, {"HeadDim", s.HeadDim}, {"ValueDim", s.ValueDim}, {"Capacity", s.Capacity},
	} {
		if f.got < 1 {
			return s, fmt.Errorf("kvcompress: Shape.%s: got %d, want at least 1", f.name, f.got)
		}
	}
	room := math.MaxInt / 8 // keys and values of 4 bytes
	for _, n := range []int{s.Batch, s.KVHeads, max(s.HeadDim, s.ValueDim), s.Capacity} {
		if room /= n; room == 0 {
			return s, fmt.Errorf("kvcompress: Shape: got %+v, want a size whose bytes an int counts", s)
		}
	}
	return s, nil
}

// checkAppend reports sizes that do not fit into a cache with used tokens in it.
func (s Shape) checkAppend(used int, k, v []float32, seq int) error {
	switch {
	case seq < 1:
		return fmt.Errorf("kvcompress: Append: got %d tokens, want at least 1", seq)
	case seq > s.Capacity-used:
		return fmt.Errorf("kvcompress: Append: got %d tokens on top of %d, want at most %d in all", seq, used, s.Capacity)
	}
	if want := s.Batch * seq * s.KVHeads * s.HeadDim; len(k) != want {
		return fmt.Errorf("kvcompress: Append: k: got %d elements, want %d", len(k), want)
	}
	if want := s.Batch * seq * s.KVHeads * s.ValueDim; len(v) != want {
		return fmt.Errorf("kvcompress: Append: v: got %d elements, want %d", len(v), want)
	}
	return nil
}

func (s Shape) checkAttend(used int, out, q []float32, seq, heads int, sinks []float32) error {
	switch {
	case seq < 1 || seq > used:
		return fmt.Errorf("kvcompress: Attend: got queries of %d tokens, want 1 to %d, the tokens cached", seq, used)
	case heads < 1 || heads%s.KVHeads != 0:
		return fmt.Errorf("kvcompress: Attend: got %d heads, want a multiple of %d", heads, s.KVHeads)
	case sinks != nil && len(sinks) != heads:
		return fmt.Errorf("kvcompress: Attend: sinks: got %d elements, want %d", len(sinks), heads)
	}
	if want := s.Batch * seq * heads * s.HeadDim; len(q) != want {
		return fmt.Errorf("kvcompress: Attend: q: got %d elements, want %d", len(q), want)
	}
	if want := s.Batch * seq * heads * s.ValueDim; len(out) != want {
		return fmt.Errorf("kvcompress: Attend: out: got %d elements, want %d", len(out), want)
	}
	return nil
}
