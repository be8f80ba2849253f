package kvcompress

import (
	"fmt"
	"math"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Compressed is a Cache that keeps the newest tokens as they are and codes those before in 16, 8 or 4 bits.
//
// Memory for the recent tokens is there from the start; pages of GroupSize coded tokens come as they are needed, about a
// MiB at a time and no more than the capacity can fill.
type Compressed struct {
	layout
	shape  Shape
	cfg    Config
	seqs   []stream
	counts []int     // for calls that give none
	parts  []float32 // partial results of Attend
}

var (
	_ Cache  = (*Compressed)(nil)
	_ Ragged = (*Compressed)(nil)
)

func newCompressed(s Shape, cfg Config) *Compressed {
	c := &Compressed{layout: newLayout(s, cfg), shape: s, cfg: cfg, seqs: make([]stream, s.Batch), counts: make([]int, s.Batch)}
	for b := range c.seqs {
		c.seqs[b] = newStream(&c.layout, cfg.RecentFP16)
	}
	return c
}

// Shape returns the sizes the cache was made with.
func (c *Compressed) Shape() Shape { return c.shape }

// Config returns the configuration, with what its zeros stand for.
func (c *Compressed) Config() Config { return c.cfg }

// Len is the number of tokens of the longest sequence.
func (c *Compressed) Len() int {
	n := 0
	for b := range c.seqs {
		n = max(n, c.seqs[b].n)
	}
	return n
}

// LenOf is the number of tokens of sequence b.
func (c *Compressed) LenOf(b int) int { return c.seqs[b].n }

// Bytes is the memory of keys and values, used or not: of recent tokens, of sinks, and of pages with their scales. Pages that a Fork
// shares count in both caches.
func (c *Compressed) Bytes() (n int64) {
	for b := range c.seqs {
		n += c.seqs[b].bytes(&c.layout)
	}
	return n
}

// Reset forgets everything and keeps the memory of the recent tokens.
func (c *Compressed) Reset() {
	for b := range c.seqs {
		c.seqs[b].reset(&c.layout)
	}
}

// Append adds seq tokens to each sequence. Keys and values that FP16 cannot hold, NaN among them, are an error.
func (c *Compressed) Append(k, v []float32, seq int) error { return c.AppendSome(k, v, seq, nil) }

// AppendSome adds the first counts[b] of seq tokens to sequence b, all of them if counts is nil.
func (c *Compressed) AppendSome(k, v []float32, seq int, counts []int) error {
	if err := c.checkAppend(k, v, seq, counts); err != nil {
		return err
	}
	for b := range c.seqs {
		n := seq
		if counts != nil {
			n = counts[b]
		}
		wk, wv := c.heads*c.dk, c.heads*c.dv
		c.extend(&c.seqs[b], k[b*seq*wk:][:n*wk], v[b*seq*wv:][:n*wv], n)
	}
	return nil
}

func (c *Compressed) checkAppend(k, v []float32, seq int, counts []int) error {
	if err := c.shape.checkAppend(c.LenOf, k, v, seq, counts); err != nil {
		return err
	}
	limit := c.keyLimit()
	for b := range c.seqs {
		n := seq
		if counts != nil {
			n = counts[b]
		}
		if x, ok := beyond(k[b*seq*c.heads*c.dk:][:n*c.heads*c.dk], limit); ok {
			return fmt.Errorf("kvcompress: Append: k: got %v, want numbers of at most %v, which FP16 holds", x, limit)
		}
		if x, ok := beyond(v[b*seq*c.heads*c.dv:][:n*c.heads*c.dv], kernel.MaxFloat16); ok {
			return fmt.Errorf("kvcompress: Append: v: got %v, want numbers of at most %v, which FP16 holds", x, kernel.MaxFloat16)
		}
	}
	return nil
}

// keyLimit is the largest magnitude of keys that FP16 holds after rotation.
func (l *layout) keyLimit() float32 {
	if l.rotate == 0 {
		return kernel.MaxFloat16
	}
	return float32(kernel.MaxFloat16 / math.Sqrt(float64(l.rotate)))
}

// beyond finds a number that is a NaN or larger in magnitude than limit.
func beyond(x []float32, limit float32) (float32, bool) {
	if kernel.AbsMax(x) <= limit {
		return 0, false
	}
	for _, a := range x {
		if !(a <= limit && a >= -limit) {
			return a, true
		}
	}
	return 0, false
}

// extend appends n tokens, rows of all heads, to s.
func (c *Compressed) extend(s *stream, k, v []float32, n int) {
	l := &c.layout
	wk, wv := l.heads*l.dk, l.heads*l.dv
	for i := 0; i < n; {
		if s.n < l.sinks {
			for h := range l.heads {
				at := h*l.sinks + s.n
				copy(s.sinkK[at*l.dk:][:l.dk], k[i*wk+h*l.dk:])
				copy(s.sinkV[at*l.dv:][:l.dv], v[i*wv+h*l.dv:])
			}
			s.n++
			i++
			continue
		}
		for ; i < n && s.inRing() < l.recent; i++ {
			s.put(l, s.n, k[i*wk:], v[i*wv:])
			s.n++
		}
		if i < n {
			_, at := l.place(s.coded)
			c.code(s, min(n-i, l.group-at))
		}
	}
	c.evict(s)
}

// codeTask is how many numbers a task of code takes at least: about as many as are coded while another thread wakes.
const codeTask = 1 << 12

// code moves the oldest count tokens of a full ring, all of one group, into their page. The ring holds at least as many tokens
// as a group has, so the scales of a new page are known although the rest of its tokens stay in the ring for now.
func (c *Compressed) code(s *stream, count int) {
	l := &c.layout
	p, fresh := s.open(l)
	_, at := l.place(s.coded)
	known := count
	if fresh {
		known = l.group
	}
	// A task takes heads enough to be worth the other thread's while.
	heads := max(1, codeTask/(known*l.dk+count*l.dv))
	parallel.Run((l.heads+heads-1)/heads, func(w *parallel.Worker, i int) {
		for h := i * heads; h < min((i+1)*heads, l.heads); h++ {
			k := parallel.Scratch[float32](w, slotKeys, known*l.dk)
			v := parallel.Scratch[float32](w, slotValues, count*l.dv)
			s.getKeys(l, h, s.coded, known, k)
			s.getValues(l, h, s.coded, count, v)
			l.rotateRows(k)
			p.encode(l, h, k, v, at, count, fresh)
		}
	})
	s.coded += count
}

// evict drops pages that the window has left behind.
func (c *Compressed) evict(s *stream) {
	if c.cfg.Window == 0 {
		return
	}
	for s.first < len(s.pages) && c.sinks+(s.first+1)*c.group <= min(s.coded, s.n-c.cfg.Window) {
		s.free(s.first)
		s.first++
	}
}

// Scratch slots of a worker.
const (
	slotKeys = iota
	slotValues
	slotQuery
	slotRotated
	slotScores
	slotFold
	slotSums
	slotEdges
)
