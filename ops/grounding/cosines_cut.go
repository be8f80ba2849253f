package grounding

import (
	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// cutCosines is cosines in tiles of AMX. A block of patches is cut into pieces, which finds their lengths on the way, and multiplied
// with all tokens while the pieces are in the second-level cache; the patches of the next block are fetched meanwhile, so that
// each is waited for once at most. Tokens are cut beforehand.
type cutCosines struct {
	pair
	k     []float32
	cut   []uint16 // tokens: pieces of their unit vectors, item by item
	size  int      // of those of one item
	scale float32
}

const (
	cutTokens    = 80 // of a product: five panels
	cutMinTokens = 33 // with fewer, patches are cut for too little use
)

// cuts reports whether products of such sizes are made in tiles.
func cuts(p pair) bool { return p.tokens >= cutMinTokens && kernel.RowsVectorized(p.dim) }

func newCutCosines(w *parallel.Worker, p pair, q, k []float32, scale float32) *cutCosines {
	c := &cutCosines{pair: p, k: k, size: kernel.PiecesLen(p.tokens, p.dim), scale: scale}
	c.cut = parallel.Scratch[uint16](w, slotPacked, p.batch*c.size)
	unit := parallel.Scratch[float32](w, slotQ, len(q))
	inv := parallel.Scratch[float32](w, slotInv, p.batch*p.tokens)
	const rows = kernel.PieceLines
	across := (p.tokens + rows - 1) / rows
	parallel.Run(p.batch*across, func(_ *parallel.Worker, i int) {
		b, t := i/across, i%across*rows
		n := min(rows, p.tokens-t)
		from := (b*p.tokens + t) * p.dim
		some := unit[from : from+n*p.dim]
		inverseNormsOf(inv[b*p.tokens+t:][:n], q[from:from+n*p.dim], p.dim)
		unitCopy(some, inv[b*p.tokens+t:][:n], q[from:], p.dim)
		var bounds [1]kernel.PieceBounds
		kernel.PackPiecesB(c.columns(b, t, n), kernel.RowMajor(some, n, p.dim).T(), bounds[:])
	})
	return c
}

// columns are the pieces of n tokens from t on, the first of a panel.
func (c *cutCosines) columns(b, t, n int) []uint16 {
	from := kernel.PiecesLen(t, c.dim)
	return c.cut[b*c.size:][from : from+kernel.PiecesLen(n, c.dim)]
}

// all writes S of every item of the batch.
func (c *cutCosines) all(s []float32) {
	across := (c.patches + kernel.RowsTogether - 1) / kernel.RowsTogether
	threads := parallel.Threads()
	parallel.Run(c.batch*across, func(w *parallel.Worker, i int) {
		ahead := c.block(i+threads, across).rows // that this thread takes next, most likely
		c.multiply(w, s, c.block(i, across), ahead)
	})
}

// patchBlock is patches p to p+n of item b.
type patchBlock struct {
	b, p, n int
	rows    []float32
}

// block is block i of all items, nothing beyond the last.
func (c *cutCosines) block(i, across int) patchBlock {
	x := patchBlock{b: i / across, p: i % across * kernel.RowsTogether}
	if x.b >= c.batch {
		return patchBlock{}
	}
	x.n = min(kernel.RowsTogether, c.patches-x.p)
	x.rows = c.k[(x.b*c.patches+x.p)*c.dim:][:x.n*c.dim]
	return x
}

// multiply writes S for the patches of x.
func (c *cutCosines) multiply(w *parallel.Worker, s []float32, x patchBlock, ahead []float32) {
	cut := parallel.Scratch[uint16](w, slotCut, kernel.CutRowsLen(c.dim))
	inv := parallel.Scratch[float32](w, slotInv, x.n)
	scores := parallel.Scratch[float32](w, slotTile, kernel.RowsTogether*cutTokens)
	kernel.CutRows(cut, x.rows, c.dim, x.n, c.dim, inv)
	safe := true
	for r, squares := range inv {
		inv[r] = inverseRoot(float64(squares), x.rows[r*c.dim:(r+1)*c.dim])
		safe = safe && isMeasured(inv[r])
	}
	if !safe { // unit vectors are
		unit := unitCopy(parallel.Scratch[float32](w, slotK, len(x.rows)), inv, x.rows, c.dim)
		kernel.CutRows(cut, unit, c.dim, x.n, c.dim, parallel.Scratch[float32](w, slotTile2, x.n))
	}
	to := s[x.b*c.tokens*c.patches:]
	for t := 0; t < c.tokens; t += cutTokens {
		n := min(cutTokens, c.tokens-t)
		kernel.TileCut(x.n, n, c.dim, cut, c.columns(x.b, t, n), scores, cutTokens, ahead)
		for r, v := range inv {
			row := scores[r*cutTokens:][:n]
			kernel.Scale(row, row, v)
		}
		kernel.Transpose(to[t*c.patches+x.p:], c.patches, scores, cutTokens, x.n, n, c.scale)
	}
}
