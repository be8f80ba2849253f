package grounding

import (
	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// allCosines writes S of every item of the batch.
func allCosines[T kernel.Float](w *parallel.Worker, s []T, p pair, q, k []T, temperature float64) {
	if q, ok := any(q).([]float32); ok && cuts(p) {
		newCutCosines(w, p, q, any(k).([]float32), float32(1/temperature)).all(any(s).([]float32))
		return
	}
	newCosines(w, p, q, k, temperature).all(s)
}

// cosines is the product of unit tokens, over τ, with patches of any length, the lengths taken off afterwards. Patches are by
// far the larger operand, so they are read where they lie, once, as the rows of the product patches × tokens. What is
// copied, into panels, are the tokens, and what is turned round is a block of results.
type cosines[T kernel.Float] struct {
	pair
	k      []T
	panels []T // dim × width, for each item of the batch and each block of tokens
	blocks int // of tokens
	width  int // tokens of a panel
	steps  int // of dim between two visits to the results
}

const (
	panelNumbers = 1 << 13 // of a panel that stay in the first-level cache beside the patches
	blockPatches = 96      // of a block of results
	blockFew     = 32      // the same for few patches, so that all threads have some
)

func newCosines[T kernel.Float](w *parallel.Worker, p pair, q, k []T, temperature float64) *cosines[T] {
	c := &cosines[T]{pair: p, k: k, blocks: (p.tokens + kernel.WideTile - 1) / kernel.WideTile}
	c.width = (min(p.tokens, kernel.WideTile) + 15) / 16 * 16
	c.steps = panelNumbers / c.width &^ 15
	c.panels = parallel.Scratch[T](w, slotPacked, p.batch*c.blocks*p.dim*c.width)
	unit := parallel.Scratch[T](w, slotQ, len(q))
	inv := parallel.Scratch[T](w, slotInv, p.batch*p.tokens)
	parallel.Run(p.batch*c.blocks, func(_ *parallel.Worker, i int) {
		b, t := i/c.blocks, i%c.blocks*kernel.WideTile
		n := min(kernel.WideTile, p.tokens-t)
		from := b*p.tokens + t
		for r := from; r < from+n; r++ {
			row := q[r*p.dim : (r+1)*p.dim]
			inv[r] = inverseNorm(row)
			kernel.Scale(unit[r*p.dim:(r+1)*p.dim], row, inv[r])
		}
		kernel.Transpose(c.panel(b, t), c.width, unit[from*p.dim:], p.dim, n, p.dim, T(1/temperature))
	})
	return c
}

// panel is that of the tokens from t on, the first of a block.
func (c *cosines[T]) panel(b, t int) []T {
	size := c.dim * c.width
	return c.panels[(b*c.blocks+t/kernel.WideTile)*size:][:size]
}

// all writes S of every item of the batch.
func (c *cosines[T]) all(s []T) {
	rows := blockPatches
	if c.patches < 8*rows {
		rows = blockFew
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
	scores := parallel.Scratch[T](w, slotTile, rows*c.width)
	for t := 0; t < c.tokens; t += kernel.WideTile {
		n := min(kernel.WideTile, c.tokens-t)
		c.product(scores, k, c.panel(b, t), n)
		if t == 0 && !inverseNormsOf(inv, k, c.dim) { // lengths are taken once the product has brought the patches near
			k = unitCopy(parallel.Scratch[T](w, slotK, len(k)), inv, k, c.dim)
			c.product(scores, k, c.panel(b, t), n)
		}
		for r, x := range inv {
			row := scores[r*c.width:][:n]
			kernel.Scale(row, row, x)
		}
		kernel.Transpose(s[t*c.patches+p0:], c.patches, scores, c.width, rows, n, 1)
	}
}

// product writes the products of the rows k with the n tokens of a panel.
func (c *cosines[T]) product(scores, k, panel []T, n int) {
	mode := kernel.TileSet
	for from := 0; from < c.dim; from += c.steps {
		kernel.TileWide(len(k)/c.dim, n, min(c.steps, c.dim-from), k[from:], c.dim, 1, panel[from*c.width:], c.width, scores, c.width, mode)
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
