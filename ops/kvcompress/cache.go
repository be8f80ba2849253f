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

	// Len is the number of tokens cached, of the longest sequence where a Ragged cache has several lengths.
	Len() int

	// Append adds seq tokens: k (batch, seq, kvHeads, headDim), v (batch, seq, kvHeads, valueDim). More than the capacity
	// is an error.
	Append(k, v []float32, seq int) error

	// Attend attends the queries of the seq newest tokens, q (batch, seq, heads, headDim), over what is cached, and
	// writes out (batch, seq, heads, valueDim). sinks (heads) may be nil. The nodes in cfg are nil.
	Attend(out, q []float32, seq, heads int, cfg flashattn.Config, sinks []float32) error

	// Truncate forgets all but the first n tokens of each sequence.
	Truncate(n int) error

	// Reset forgets everything and keeps the memory.
	Reset()

	// Bytes is the memory held for keys and values.
	Bytes() int64
}

// Ragged is a Cache whose sequences may have different lengths. Plain, Compressed and Evicting are.
type Ragged interface {
	Cache

	// LenOf is the number of tokens of sequence b.
	LenOf(b int) int

	// AppendSome is Append of the first counts[b] of seq tokens of each sequence b, 0 for none.
	AppendSome(k, v []float32, seq int, counts []int) error

	// AttendSome is Attend of the first counts[b] of seq queries of each sequence b, which are its newest tokens. The other
	// queries give zeros.
	AttendSome(out, q []float32, seq, heads int, counts []int, cfg flashattn.Config, sinks []float32) error

	// TruncateEach forgets all but the first n[b] tokens of each sequence b.
	TruncateEach(n []int) error
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

// checkAppend reports sizes that do not fit into a cache whose sequence b holds lenOf(b) tokens. counts may be nil.
func (s Shape) checkAppend(lenOf func(b int) int, k, v []float32, seq int, counts []int) error {
	if seq < 1 {
		return fmt.Errorf("kvcompress: Append: got %d tokens, want at least 1", seq)
	}
	if err := s.checkCounts("Append", seq, counts); err != nil {
		return err
	}
	if err := s.checkRoom(lenOf, seq, counts); err != nil {
		return err
	}
	if want := s.Batch * seq * s.KVHeads * s.HeadDim; len(k) != want {
		return fmt.Errorf("kvcompress: Append: k: got %d elements, want %d", len(k), want)
	}
	if want := s.Batch * seq * s.KVHeads * s.ValueDim; len(v) != want {
		return fmt.Errorf("kvcompress: Append: v: got %d elements, want %d", len(v), want)
	}
	return nil
}

// checkRoom reports more tokens than there is room for.
func (s Shape) checkRoom(lenOf func(b int) int, seq int, counts []int) error {
	for b := range s.Batch {
		n := seq
		if counts != nil {
			n = counts[b]
		}
		if used := lenOf(b); n > s.Capacity-used {
			return fmt.Errorf("kvcompress: Append: got %d tokens on top of %d, want at most %d in all", n, used, s.Capacity)
		}
	}
	return nil
}

func (s Shape) checkCounts(fn string, seq int, counts []int) error {
	if counts != nil && len(counts) != s.Batch {
		return fmt.Errorf("kvcompress: %s: counts: got %d elements, want %d", fn, len(counts), s.Batch)
	}
	for b, n := range counts {
		if n < 0 || n > seq {
			return fmt.Errorf("kvcompress: %s: counts: got %d for sequence %d, want 0 to %d", fn, n, b, seq)
		}
	}
	return nil
}

func (s Shape) checkAttend(lenOf func(b int) int, out, q []float32, seq, heads int, counts []int, sinks []float32) error {
	switch {
	case heads < 1 || heads%s.KVHeads != 0:
		return fmt.Errorf("kvcompress: Attend: got %d heads, want a multiple of %d", heads, s.KVHeads)
	case sinks != nil && len(sinks) != heads:
		return fmt.Errorf("kvcompress: Attend: sinks: got %d elements, want %d", len(sinks), heads)
	}
	if err := s.checkCounts("Attend", seq, counts); err != nil {
		return err
	}
	for b := range s.Batch {
		n := seq
		if counts != nil {
			n = counts[b]
		}
		if used := lenOf(b); seq < 1 || n > used {
			return fmt.Errorf("kvcompress: Attend: got queries of %d tokens, want 1 to %d, the tokens cached", n, used)
		}
	}
	if want := s.Batch * seq * heads * s.HeadDim; len(q) != want {
		return fmt.Errorf("kvcompress: Attend: q: got %d elements, want %d", len(q), want)
	}
	if want := s.Batch * seq * heads * s.ValueDim; len(out) != want {
		return fmt.Errorf("kvcompress: Attend: out: got %d elements, want %d", len(out), want)
	}
	return nil
}

// checkTruncate reports lengths that sequences do not have.
func (s Shape) checkTruncate(lenOf func(b int) int, n []int) error {
	if len(n) != s.Batch {
		return fmt.Errorf("kvcompress: TruncateEach: got %d lengths, want %d", len(n), s.Batch)
	}
	for b, x := range n {
		if used := lenOf(b); x < 0 || x > used {
			return fmt.Errorf("kvcompress: Truncate: got %d tokens, want 0 to %d", x, used)
		}
	}
	return nil
}

// shortened is the length of each sequence after Truncate(n), which is an error if none has as many.
func (s Shape) shortened(lenOf func(b int) int, n int) ([]int, error) {
	longest, out := 0, make([]int, s.Batch)
	for b := range out {
		longest = max(longest, lenOf(b))
		out[b] = min(n, lenOf(b))
	}
	if n < 0 || n > longest {
		return nil, fmt.Errorf("kvcompress: Truncate: got %d tokens, want 0 to %d", n, longest)
	}
	return out, nil
}
