package ops

import (
	"fmt"
	"math"
	"unsafe"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/card"
	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// adamChunkLen is how many elements of a parameter one task takes: the memory it streams takes 20–50 µs.
const adamChunkLen = 1 << 14

// adamGroup is the parameters of one dtype in one step, cut into chunks.
type adamGroup[T kernel.Float] struct {
	params []adamParam[T]
	chunks []adamChunk
	parts  *adamParts // on the card
}

type adamParam[T kernel.Float] struct {
	name              string
	value, grad, m, v []T
	decay             bool // weight decay
	zero              bool // the gradient, after the step
	card              bool // value and gradient are there
	moments           *adamMoments
}

// adamChunk is elements [lo, hi) of a parameter.
type adamChunk struct {
	param, lo, hi int
	squares       float64 // Σ g² over the chunk
}

func (g *adamGroup[T]) reset() {
	clear(g.params)
	g.params, g.chunks = g.params[:0], g.chunks[:0]
}

// add takes a parameter into the group. Its moments are made at its first step.
func (g *adamGroup[T]) add(all map[string]*adamMoments, name string, value, grad G.Value, decay, zero bool) error {
	p := adamParam[T]{name: name, decay: decay, zero: zero}
	var ok bool
	if p.value, ok = adamMemory[T](value); !ok {
		return fmt.Errorf("parameter %s: got a value of type %T that is not contiguous or not row-major, want a contiguous *tensor.Dense or a scalar", name, value)
	}
	if p.grad, ok = adamMemory[T](grad); !ok {
		if zero {
			return fmt.Errorf("parameter %s: got a gradient of type %T that is not contiguous, want a contiguous *tensor.Dense or a scalar", name, grad)
		}
		var err error
		if p.grad, err = op.Data[T](grad); err != nil {
			return fmt.Errorf("parameter %s: gradient: %w", name, err)
		}
	}
	mom := all[name]
	if mom == nil {
		shape := value.Shape()
		if shape.Dims() == 0 {
			shape = tensor.Shape{1}
		}
		m, _ := op.New[T](shape)
		v, _ := op.New[T](shape)
		mom = &adamMoments{m: m, v: v}
		all[name] = mom
	}
	if mom.m.Dtype() != value.Dtype() || mom.m.Size() != len(p.value) {
		return fmt.Errorf("parameter %s: got %v %v, want %v %v as in the state", name, value.Dtype(), value.Shape(), mom.m.Dtype(), mom.m.Shape())
	}
	if p.card = adamOnCard(value, grad); p.card {
		switch err := toCard[T](mom); {
		case card.OutOfMemory(err): // the host makes the step, in memory that both share
			p.card = false
		case err != nil:
			return fmt.Errorf("parameter %s: moments on the card: %w", name, err)
		}
	}
	p.moments = mom
	p.m, _ = adamMemory[T](mom.m)
	p.v, _ = adamMemory[T](mom.v)
	for lo := 0; lo < len(p.value); lo += adamChunkLen {
		g.chunks = append(g.chunks, adamChunk{param: len(g.params), lo: lo, hi: min(lo+adamChunkLen, len(p.value))})
	}
	g.params = append(g.params, p)
	return nil
}

// adamMemory returns the memory of a scalar or of a contiguous row-major tensor.
func adamMemory[T kernel.Float](v G.Value) ([]T, bool) {
	switch x := v.(type) {
	case *tensor.Dense:
		if !op.Contiguous(x) {
			return nil, false
		}
		// Data would hand out the number of a tensor without dimensions, and not its memory.
		switch is32 := sizeOf[T]() == 4; {
		case is32 && x.Dtype() == tensor.Float32:
			return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(x.Float32s()))), x.Size()), true
		case !is32 && x.Dtype() == tensor.Float64:
			return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(x.Float64s()))), x.Size()), true
		}
	case *G.F32:
		p, ok := any((*float32)(x)).(*T)
		return unsafe.Slice(p, 1), ok
	case *G.F64:
		p, ok := any((*float64)(x)).(*T)
		return unsafe.Slice(p, 1), ok
	}
	return nil, false
}

// squares returns Σ g² over the group: chunk by chunk, then over the chunks in order, so that threads do not matter.
func (g *adamGroup[T]) squares() (float64, error) {
	if g.onCard() {
		if err := g.squaresOnCard(); err != nil {
			return 0, err
		}
		return g.sum(), nil
	}
	parallel.Run(len(g.chunks), func(_ *parallel.Worker, i int) {
		c := &g.chunks[i]
		c.squares = adamSquares(g.params[c.param].grad[c.lo:c.hi])
	})
	return g.sum(), nil
}

func (g *adamGroup[T]) sum() float64 {
	var sum float64
	for i := range g.chunks {
		sum += g.chunks[i].squares
	}
	return sum
}

// adamSquares is Σ x². Squares that leave float32 are taken in float64.
func adamSquares[T kernel.Float](x []T) float64 {
	s := float64(kernel.SumSquares(x))
	if math.IsInf(s, 1) {
		s = 0
		for _, v := range x {
			s += float64(v) * float64(v)
		}
	}
	return s
}

// nonFinite names the first parameter whose gradient is not finite, nothing if all are.
func (g *adamGroup[T]) nonFinite() string {
	for _, c := range g.chunks {
		if math.IsNaN(c.squares) || math.IsInf(c.squares, 0) {
			return g.params[c.param].name
		}
	}
	return ""
}

// update makes the step. cfg lacks what differs from parameter to parameter. Gradients are zeroed while they are in the
// cache.
func (g *adamGroup[T]) update(cfg kernel.AdamWConfig) error {
	for _, p := range g.params {
		p.moments.steps++
	}
	if g.onCard() {
		return g.updateOnCard(cfg)
	}
	parallel.Run(len(g.chunks), func(_ *parallel.Worker, i int) {
		c := g.chunks[i]
		p, cfg := &g.params[c.param], cfg
		t := float64(p.moments.steps)
		cfg.BiasCorr1, cfg.BiasCorr2 = 1-math.Pow(cfg.Beta1, t), 1-math.Pow(cfg.Beta2, t)
		if !p.decay {
			cfg.WeightDecay = 0
		}
		grad := p.grad[c.lo:c.hi]
		kernel.AdamW(p.value[c.lo:c.hi], p.m[c.lo:c.hi], p.v[c.lo:c.hi], grad, cfg)
		if p.zero {
			clear(grad)
		}
	})
	return nil
}

// zeroGradients zeroes the gradients that update would have zeroed.
func (g *adamGroup[T]) zeroGradients() {
	parallel.Run(len(g.chunks), func(_ *parallel.Worker, i int) {
		c := g.chunks[i]
		if p := &g.params[c.param]; p.zero {
			clear(p.grad[c.lo:c.hi])
		}
	})
}
