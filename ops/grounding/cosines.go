package grounding

import (
	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// cosines is the product of patches of any length with unit tokens, over τ, the lengths taken off afterwards. Patches are by
// far the larger operand, so they are the rows of the product, read where they lie, once. What is copied are the tokens, and
// what is turned round are blocks of results, while they are in the cache.
type cosines[T kernel.Float] struct {
	pair
	q, k []T // unit tokens over τ, and patches
}

// Bounds of a product whose results are turned round: its memory is bounded, and each has work for many threads.
const (
	productPatches = 1 << 12
	productTokens  = 1 << 8
)

func newCosines[T kernel.Float](w *parallel.Worker, p pair, q, k []T, temperature float64) *cosines[T] {
	unit := parallel.Scratch[T](w, slotQ, len(q))
	unitRows(unit, parallel.Scratch[T](w, slotInv, p.batch*p.tokens), q, p.dim)
	kernel.Scale(unit, unit, T(1/temperature))
	return &cosines[T]{p, unit, k}
}

// all writes S of every item of the batch.
func (c *cosines[T]) all(s []T) {
	overBatch(c.batch, func(w *parallel.Worker, b int) {
		for p0 := 0; p0 < c.patches; p0 += productPatches {
			for t0 := 0; t0 < c.tokens; t0 += productTokens {
				c.block(w, s[b*c.tokens*c.patches:(b+1)*c.tokens*c.patches], b, p0, min(p0+productPatches, c.patches), t0, min(t0+productTokens, c.tokens))
			}
		}
	})
}

// block writes S of item b for the patches [p0, p1) and the tokens [t0, t1).
func (c *cosines[T]) block(w *parallel.Worker, s []T, b, p0, p1, t0, t1 int) {
	k := kernel.RowMajor(c.k[(b*c.patches+p0)*c.dim:], p1-p0, c.dim)
	q := kernel.RowMajor(c.q[(b*c.tokens+t0)*c.dim:], t1-t0, c.dim).T()
	x := parallel.Scratch[T](w, slotScores, (p1-p0)*(t1-t0))
	kernel.Gemm(kernel.RowMajor(x, p1-p0, t1-t0), k, q, false, kernel.Epilogue[T]{After: func(i0, i1, j0, j1 int) {
		parallel.Run(1, func(w *parallel.Worker, _ int) { // a Run of one task lends scratch
			unit := parallel.Scratch[T](w, slotK, c.dim)
			for i := i0; i < i1; i++ {
				c.shorten(x[i*(t1-t0):][j0:j1], k.Data[i*c.dim:(i+1)*c.dim], q.Data[j0*c.dim:j1*c.dim], unit)
			}
			kernel.Transpose(s[(t0+j0)*c.patches+p0+i0:], c.patches, x[i0*(t1-t0)+j0:], t1-t0, i1-i0, j1-j0, 1)
		})
	}})
}

// shorten divides the products x of the patch k and some of the tokens, q, by the length of the patch. Where products may have
// left the range of float32 they are taken again.
func (c *cosines[T]) shorten(x, k, q, unit []T) {
	inv := inverseNorm(k)
	if withinRange(inv) {
		kernel.Scale(x, x, inv)
		return
	}
	kernel.Scale(unit, k, inv)
	for t := range x {
		x[t] = kernel.Dot(unit, q[t*c.dim:(t+1)*c.dim])
	}
}
