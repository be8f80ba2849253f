package grounding

import (
	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// cosines is the product of unit tokens with patches of any length, the lengths taken off afterwards. Patches are by far
// the larger operand, so they are read where they lie, once, as the rows of the product patches × tokens; what is copied
// into panels are the tokens, and what is turned round is a block of results.
type cosines[T kernel.Float] struct {
	pair
	packed []T // tokens·1/τ, for each item of the batch and each stretch of dim: panels for TilePacked
	item   int // numbers of packed for one item
	steps  int // of dim in a stretch
	k      []T
}

// panelNumbers is how many numbers of a panel stay in a first-level cache beside the patches.
const panelNumbers = 1 << 13

// Bounds of a block of results.
const (
	blockPatches      = 96 // in a task
	blockPatchesSmall = 24 // where there are few patches
	blockTokens       = 128
)

func newCosines[T kernel.Float](w *parallel.Worker, p pair, q, k []T, temperature float64) *cosines[T] {
	panel := kernel.PackedLen[T](1, 1)
	c := &cosines[T]{pair: p, k: k, steps: max(1, min(p.dim, panelNumbers/panel))}
	c.item = kernel.PackedLen[T](p.dim, p.tokens)
	unit := parallel.Scratch[T](w, slotQ, len(q))
	unitRows(unit, parallel.Scratch[T](w, slotInv, p.batch*p.tokens), q, p.dim)
	kernel.Scale(unit, unit, T(1/temperature))
	c.packed = parallel.Scratch[T](w, slotPacked, p.batch*c.item)
	stretches := (p.dim + c.steps - 1) / c.steps
	parallel.Run(p.batch*stretches, func(_ *parallel.Worker, i int) {
		b, from := i/stretches, i%stretches*c.steps
		q := kernel.RowMajor(unit[b*p.tokens*p.dim:], p.tokens, p.dim).T()
		q.Data, q.Rows = q.Data[from:], min(c.steps, p.dim-from)
		kernel.Pack(c.stretch(b, from), q)
	})
	return c
}

// stretch is where the panels of dimensions from from on lie.
func (c *cosines[T]) stretch(b, from int) []T {
	return c.packed[b*c.item+from*(c.item/c.dim) : b*c.item+min(from+c.steps, c.dim)*(c.item/c.dim)]
}

// all writes S of every item.
func (c *cosines[T]) all(s []T) {
	rows := blockPatches
	if c.patches < 8*blockPatches {
		rows = blockPatchesSmall
	}
	across := (c.patches + rows - 1) / rows
	parallel.Run(c.batch*across, func(w *parallel.Worker, i int) {
		b, p0 := i/across, i%across*rows
		c.block(w, s[b*c.tokens*c.patches:(b+1)*c.tokens*c.patches], b, p0, min(p0+rows, c.patches))
	})
}

// block writes S of one item for the patches [p0, p1).
func (c *cosines[T]) block(w *parallel.Worker, s []T, b, p0, p1 int) {
	rows := p1 - p0
	k := c.k[(b*c.patches+p0)*c.dim : (b*c.patches+p1)*c.dim]
	inv := parallel.Scratch[T](w, slotInv, rows)
	if !inverseNormsOf(inv, k, c.dim) {
		unit := parallel.Scratch[T](w, slotK, len(k))
		for r := range rows {
			kernel.Scale(unit[r*c.dim:(r+1)*c.dim], k[r*c.dim:(r+1)*c.dim], inv[r])
			inv[r] = 1
		}
		k = unit
	}
	wide := min(c.tokens, blockTokens)
	scores := parallel.Scratch[T](w, slotTile, rows*wide)
	for t0 := 0; t0 < c.tokens; t0 += wide {
		n := min(wide, c.tokens-t0)
		mode := kernel.TileSet
		for from := 0; from < c.dim; from += c.steps {
			steps := min(c.steps, c.dim-from)
			kernel.TilePacked(rows, n, steps, k[from:], c.dim, 1, c.stretch(b, from)[t0*steps:], scores, n, mode, nil)
			mode = kernel.TileAdd
		}
		for r := range rows {
			row := scores[r*n : (r+1)*n]
			kernel.Scale(row, row, inv[r])
		}
		kernel.Transpose(s[t0*c.patches+p0:], c.patches, scores, n, rows, n, 1)
	}
}
