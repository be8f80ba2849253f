package grounding

import (
	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// cosines is the product of unit tokens, over τ, with patches of any length, the lengths taken off afterwards. Patches are by
// far the larger operand, so they are read where they lie, once, as the rows of the product patches × tokens. What is
// copied, into panels, are the tokens, and what is turned round is a block of results.
type cosines[T kernel.Float] struct {
	pair
	k      []T
	packed []T // for each item of the batch and each stretch of dim
	item   int // numbers of packed for one item
	steps  int // of dim in a stretch
}

// panelNumbers is how many numbers of a panel stay in a first-level cache beside the patches.
const panelNumbers = 1 << 13

// Bounds of a block of results. Few patches are cut finer, so that all threads have some.
const (
	blockPatches    = 96
	blockPatchesFew = 24
	blockTokens     = 256
)

func newCosines[T kernel.Float](w *parallel.Worker, p pair, q, k []T, temperature float64) *cosines[T] {
	c := &cosines[T]{pair: p, k: k, item: kernel.PackedLen[T](p.dim, p.tokens)}
	c.steps = min(p.dim, panelNumbers/kernel.PackedLen[T](1, 1))
	unit := parallel.Scratch[T](w, slotQ, len(q))
	unitRows(unit, parallel.Scratch[T](w, slotInv, p.batch*p.tokens), q, p.dim)
	kernel.Scale(unit, unit, T(1/temperature))
	c.packed = parallel.Scratch[T](w, slotPacked, p.batch*c.item)
	stretches := (p.dim + c.steps - 1) / c.steps
	parallel.Run(p.batch*stretches, func(_ *parallel.Worker, i int) {
		b, from := i/stretches, i%stretches*c.steps
		q := kernel.RowMajor(unit[b*p.tokens*p.dim:], p.tokens, p.dim).T()
		q.Data, q.Rows = q.Data[from:], min(c.steps, p.dim-from)
		kernel.Pack(c.stretch(b, from, 0), q)
	})
	return c
}

// stretch is where the dimensions from from on lie, for the tokens from t0 on, the first of a panel.
func (c *cosines[T]) stretch(b, from, t0 int) []T {
	lanes := c.item / c.dim
	return c.packed[b*c.item+from*lanes+t0*min(c.steps, c.dim-from) : b*c.item+min(from+c.steps, c.dim)*lanes]
}

// all writes S of every item of the batch.
func (c *cosines[T]) all(s []T) {
	rows := blockPatches
	if c.patches < 8*blockPatches {
		rows = blockPatchesFew
	}
	across := (c.patches + rows - 1) / rows
	parallel.Run(c.batch*across, func(w *parallel.Worker, i int) {
		b, p0 := i/across, i%across*rows
		c.block(w, s[b*c.tokens*c.patches:(b+1)*c.tokens*c.patches], b, p0, min(p0+rows, c.patches))
	})
}

// block writes S of item b for the patches [p0, p1).
func (c *cosines[T]) block(w *parallel.Worker, s []T, b, p0, p1 int) {
	rows := p1 - p0
	k := c.k[(b*c.patches+p0)*c.dim : (b*c.patches+p1)*c.dim]
	inv := parallel.Scratch[T](w, slotInv, rows)
	scores := parallel.Scratch[T](w, slotTile, rows*min(c.tokens, blockTokens))
	for t0 := 0; t0 < c.tokens; t0 += blockTokens {
		n := min(blockTokens, c.tokens-t0)
		scores := scores[:rows*n]
		c.product(scores, k, b, t0, n)
		if t0 == 0 && !inverseNormsOf(inv, k, c.dim) { // lengths are taken once the product has brought the patches near
			k = unitCopy(parallel.Scratch[T](w, slotK, len(k)), inv, k, c.dim)
			c.product(scores, k, b, t0, n)
		}
		for r := range rows {
			row := scores[r*n : (r+1)*n]
			kernel.Scale(row, row, inv[r])
		}
		kernel.Transpose(s[t0*c.patches+p0:], c.patches, scores, n, rows, n, 1)
	}
}

// product writes the products of the rows k with n tokens from t0 on.
func (c *cosines[T]) product(scores, k []T, b, t0, n int) {
	mode := kernel.TileSet
	for from := 0; from < c.dim; from += c.steps {
		kernel.TilePacked(len(scores)/n, n, min(c.steps, c.dim-from), k[from:], c.dim, 1, c.stretch(b, from, t0), scores, n, mode, nil)
		mode = kernel.TileAdd
	}
}

// unitCopy writes the unit vectors of the rows of x to dst, whose lengths are then 1, or 0 where a row has no direction.
func unitCopy[T kernel.Float](dst, inv, x []T, dim int) []T {
	for r, v := range inv {
		kernel.Scale(dst[r*dim:(r+1)*dim], x[r*dim:(r+1)*dim], v)
		inv[r] = 1
	}
	return dst
}
