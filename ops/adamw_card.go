package ops

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"unsafe"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/card"
	"stheno/internal/kernel"
)

// Where all parameters of a dtype lie in memory of package card, and their gradients on the card, so do the moments, and the step is
// made there: neither weights nor gradients cross over. The formulas are those of the CPU, and so is the order of sums up to the 4096
// squares of a block.

// adamBlock is how many squares one block of the kernel sums.
const adamBlock = 4096

// adamOnCard reports whether a parameter's value and gradient lie on the card.
func adamOnCard(value, grad G.Value) bool {
	v, ok := value.(*tensor.Dense)
	if !ok || !card.Holds(v.Uintptr()) {
		return false
	}
	d, ok := grad.(*tensor.Dense)
	return ok && d.IsManuallyManaged()
}

// toCard moves the moments to the card, where they stay until FromCard, or until nobody can reach them.
func toCard[T kernel.Float](mom *adamMoments) error {
	if card.Holds(mom.m.Uintptr()) {
		return nil
	}
	m, _ := adamMemory[T](mom.m)
	v, _ := adamMemory[T](mom.v)
	both, err := card.Alloc[T](2 * len(m))
	if err != nil {
		return err
	}
	copy(both, m)
	copy(both[len(m):], v)
	shape := mom.m.Shape()
	set := func(m, v []T) {
		mom.m, mom.v = tensor.New(tensor.WithShape(shape...), tensor.WithBacking(m)), tensor.New(tensor.WithShape(shape...), tensor.WithBacking(v))
	}
	set(both[:len(m):len(m)], both[len(m):])
	forgotten := runtime.AddCleanup(mom, func(x []T) { card.Free(x) }, both)
	mom.leave = func() error {
		set(slices.Clone(both[:len(m)]), slices.Clone(both[len(m):]))
		mom.leave = nil
		forgotten.Stop()
		return card.Free(both)
	}
	return nil
}

// adamParts is memory for the sums of blocks.
type adamParts struct {
	sums      []float64
	forgotten runtime.Cleanup
}

// free gives it back; there may be none.
func (p *adamParts) free() error {
	if p == nil {
		return nil
	}
	p.forgotten.Stop()
	return card.Free(p.sums)
}

// onCard reports whether the whole group is there.
func (g *adamGroup[T]) onCard() bool {
	for _, p := range g.params {
		if !p.card {
			return false
		}
	}
	return len(g.params) > 0
}

// squaresOnCard fills in the squares of the chunks.
func (g *adamGroup[T]) squaresOnCard() error {
	blocks := 0
	for _, p := range g.params {
		blocks += (len(p.grad) + adamBlock - 1) / adamBlock
	}
	if g.parts == nil || len(g.parts.sums) < blocks {
		sums, err := card.Alloc[float64](blocks)
		if err != nil {
			return err
		}
		if err := g.parts.free(); err != nil {
			return err
		}
		g.parts = &adamParts{sums: sums}
		g.parts.forgotten = runtime.AddCleanup(g.parts, func(x []float64) { card.Free(x) }, sums)
	}
	at := 0
	for _, p := range g.params {
		n := (len(p.grad) + adamBlock - 1) / adamBlock
		if err := card.Launch("elements", "squares"+adamSuffix[T](), card.Geometry{Grid: [3]int{n}, Block: [3]int{256}},
			card.At(g.parts.sums[at:]), card.At(p.grad), int64(len(p.grad))); err != nil {
			return err
		}
		at += n
	}
	if err := card.Synchronize(); err != nil {
		return err
	}
	rest := g.parts.sums
	for i := range g.chunks {
		c := &g.chunks[i]
		c.squares = 0
		n := (c.hi - c.lo + adamBlock - 1) / adamBlock
		for _, s := range rest[:n] {
			c.squares += s
		}
		rest = rest[n:]
	}
	return nil
}

// updateOnCard makes the step.
func (g *adamGroup[T]) updateOnCard(cfg kernel.AdamWConfig) error {
	for _, p := range g.params {
		decay, t := cfg.WeightDecay, float64(p.moments.steps)
		if !p.decay {
			decay = 0
		}
		blocks := min((len(p.value)+255)/256, 4096)
		if err := card.Launch("tokens", "adamw"+adamSuffix[T](), card.Geometry{Grid: [3]int{blocks}, Block: [3]int{256}},
			card.At(p.value), card.At(p.m), card.At(p.v), card.At(p.grad), int64(len(p.value)), cfg.LR, cfg.Beta1, cfg.Beta2, cfg.Eps, decay,
			1-math.Pow(cfg.Beta1, t), 1-math.Pow(cfg.Beta2, t), cfg.GradScale); err != nil {
			return fmt.Errorf("parameter %s: %w; those before it have made their step", p.name, err)
		}
	}
	return g.zeroOnCard()
}

// zeroOnCard zeroes the gradients that the CPU's step zeroes.
func (g *adamGroup[T]) zeroOnCard() error {
	for _, p := range g.params {
		if !p.zero {
			continue
		}
		blocks := min((len(p.grad)+255)/256, 4096)
		if err := card.Launch("elements", "zero"+adamSuffix[T](), card.Geometry{Grid: [3]int{blocks}, Block: [3]int{256}},
			card.At(p.grad), int64(len(p.grad))); err != nil {
			return fmt.Errorf("gradient of parameter %s: %w", p.name, err)
		}
	}
	return card.Synchronize()
}

func adamSuffix[T kernel.Float]() string {
	if unsafe.Sizeof(*new(T)) == 8 {
		return "_f64"
	}
	return "_f32"
}
