package flashattn

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Tune returns cfg with the block sizes that are fastest for attention of a shape on this machine: it runs the candidates in
// turns, for about a second in all, and leaves BlockQ and BlockKV at 0 where nothing beats what 0 chooses by more than 3 %. A
// block size that cfg sets is kept. The answer is remembered: the same question gets the same answer for the life of the process.
//
// Without Tune, block sizes follow from shapes and the instruction set alone. They decide in which order numbers are added, and
// thus the last bits of results: a program that tunes may round differently on its next run. Note down what Tune returns, and set
// it, where runs have to be equal bit for bit.
//
// shape is as for Memory; with Backward, forward and backward pass are measured together. Long sequences and many heads are
// measured by a part of them, one head for each thread at least. The nodes in cfg are not looked at.
func Tune(shape Shape, cfg Config) (Config, error) {
	const fn = "flashattn.Tune"
	s := shape
	if s.Threads == 0 {
		s.Threads = parallel.Threads()
	}
	for _, f := range []struct {
		name      string
		got, most int
	}{
		{"Batch", s.Batch, 1 << 30}, {"SeqQ", s.SeqQ, 1 << 30}, {"SeqKV", s.SeqKV, 1 << 30}, {"Heads", s.Heads, 1 << 30},
		{"KVHeads", s.KVHeads, 1 << 30}, {"HeadDim", s.HeadDim, maxDim}, {"ValueDim", s.ValueDim, maxDim}, {"Threads", s.Threads, 1 << 30},
	} {
		if f.got < 1 || f.got > f.most {
			return cfg, fmt.Errorf("%s: Shape.%s: got %d, want 1 to %d", fn, f.name, f.got, f.most)
		}
	}
	if s.Heads%s.KVHeads != 0 {
		return cfg, fmt.Errorf("%s: Shape.KVHeads: got %d for %d heads, want a divisor", fn, s.KVHeads, s.Heads)
	}
	if want := parallel.Threads(); s.Threads != want {
		return cfg, fmt.Errorf("%s: Shape.Threads: got %d, want 0 or the %d of the process", fn, s.Threads, want)
	}
	a, err := cfg.normal(s.HeadDim)
	if err != nil {
		return cfg, fmt.Errorf("%s: %w", fn, err)
	}
	a.HasSinks, a.HasBias, a.HasCuQ, a.HasCuKV, a.HasStep = false, false, false, false, false
	key := tuneKey{s, a, kernel.Active()}

	// One question at a time: two measurements would disturb each other.
	tuned.Lock()
	defer tuned.Unlock()
	size, ok := tuned.sizes[key]
	if !ok {
		if s.Float64 {
			size = tune[float64](s, a)
		} else {
			size = tune[float32](s, a)
		}
		if tuned.sizes == nil {
			tuned.sizes = map[tuneKey]blockSize{}
		}
		tuned.sizes[key] = size
	}
	cfg.BlockQ, cfg.BlockKV = size.q, size.kv
	return cfg, nil
}

// blockSize is a choice of Config.BlockQ and BlockKV.
type blockSize struct{ q, kv int }

type tuneKey struct {
	shape Shape
	attrs attrs
	isa   kernel.ISA
}

var tuned struct {
	sync.Mutex
	sizes map[tuneKey]blockSize
}

const (
	tuneSeq    = 2048        // rows and keys that are measured at most
	tuneWork   = 1 << 31     // multiply-adds of a forward pass that is measured, about
	tuneRounds = 5           // runs of each candidate
	tuneTime   = time.Second // after which no further round begins
	tuneGain   = 0.97        // of the time of what 0 chooses, which a candidate must stay below
)

// candidates are the block sizes to try, what a has first.
func (a attrs) candidates() []blockSize {
	qs, kvs := []int{0, 192, 384, 768, 1152}, []int{0, 128, 256, 512}
	if a.BlockQ > 0 {
		qs = []int{a.BlockQ}
	}
	if a.BlockKV > 0 {
		kvs = []int{a.BlockKV}
	}
	var all []blockSize
	for _, q := range qs {
		for _, kv := range kvs {
			all = append(all, blockSize{q, kv})
		}
	}
	return all
}

// measured is the part of a shape that stands for the whole.
func (s Shape) measured() Shape {
	group := s.Heads / s.KVHeads
	s.Batch = 1
	s.SeqQ, s.SeqKV = min(s.SeqQ, tuneSeq), min(s.SeqKV, tuneSeq)
	perHead := s.SeqQ * s.SeqKV * (s.HeadDim + s.ValueDim)
	s.KVHeads = min(s.KVHeads, max(1, s.Threads, tuneWork/(perHead*group)))
	s.Heads = s.KVHeads * group
	return s
}

// tune measures the candidates in turns and returns the one with the least median.
func tune[T kernel.Float](shape Shape, a attrs) blockSize {
	run := tuneRun[T](shape.measured(), a)
	sizes := a.candidates()
	times := make([][]float64, len(sizes))
	for begun, round := time.Now(), 0; round <= tuneRounds; round++ {
		for i, size := range sizes {
			start := time.Now()
			run(size)
			if round > 0 { // the first warms up
				times[i] = append(times[i], time.Since(start).Seconds())
			}
		}
		if round > 0 && time.Since(begun) > tuneTime {
			break
		}
	}
	best, least := 0, 0.0
	for i, t := range times {
		slices.Sort(t)
		switch middle := t[len(t)/2]; {
		case i == 0:
			least = tuneGain * middle
		case middle < least:
			best, least = i, middle
		}
	}
	return sizes[best]
}

// tuneRun makes the attention of a shape over random numbers.
func tuneRun[T kernel.Float](s Shape, a attrs) func(blockSize) {
	random := rand.New(rand.NewPCG(1, 2))
	heads := func(seq, n, dim int) Heads[T] {
		x := make([]T, seq*n*dim)
		for i := range x {
			x[i] = T(random.NormFloat64())
		}
		return Contiguous(x, 1, seq, n, dim)
	}
	p := problem[T]{
		attrs: a, segs: segments(1, s.SeqQ, s.SeqKV),
		q: heads(s.SeqQ, s.Heads, s.HeadDim), k: heads(s.SeqKV, s.KVHeads, s.HeadDim), v: heads(s.SeqKV, s.KVHeads, s.ValueDim),
		out: heads(s.SeqQ, s.Heads, s.ValueDim),
	}
	g := &gradients[T]{}
	if s.Backward {
		p.rowMax, p.rowSum = make([]T, s.SeqQ*s.Heads), make([]T, s.SeqQ*s.Heads)
		g.dOut = heads(s.SeqQ, s.Heads, s.ValueDim)
		g.dQ, g.dK, g.dV = heads(s.SeqQ, s.Heads, s.HeadDim), heads(s.SeqKV, s.KVHeads, s.HeadDim), heads(s.SeqKV, s.KVHeads, s.ValueDim)
	}
	return func(size blockSize) {
		p := p
		p.BlockQ, p.BlockKV = size.q, size.kv
		p.prepare(0)
		p.forward()
		if s.Backward {
			clear(g.dQ.Data)
			clear(g.dK.Data)
			clear(g.dV.Data)
			p.backward(g)
		}
	}
}
