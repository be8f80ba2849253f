package kernel

import (
	"slices"

	"stheno/internal/parallel"
)

const (
	// Columns of a quantized matrix that one call multiplies, and that make a task's unit.
	vectorCols = 4 * PanelCols
	// Tasks per thread: enough that the threads end together where one begins late, few enough that codes are read in long runs.
	vectorTasksEach = 4
)

// codesAsVectors reports whether there is assembly that multiplies a few rows with b's codes as they are read.
func codesAsVectors[T Float](b *Quantized) bool {
	// The other half of a last step of BF16 is not ours to multiply, not even with 0: it might not be finite.
	return codesVectorized[T]() && b.K <= MaxQuantizedRows && !(b.Coding == BFloat16 && b.K%2 != 0)
}

// vectors computes the product row by row from the codes, where there is assembly for it, and reports whether it did. The codes
// come from memory once: further rows find them in the cache.
func (g *quantizedGemm[T]) vectors() bool {
	if !codesAsVectors[T](g.b) {
		return false
	}
	vectorsEach(g.a, []QuantizedProduct[T]{{g.c, g.b, g.ep}})
	return true
}

// vectorPiece computes columns j0 to j1. fixed are the rows in fixed point, if they are multiplied so.
func (g *quantizedGemm[T]) vectorPiece(w *parallel.Worker, fixed []fixedRow, j0, j1 int) {
	x, ldx := g.wholeSteps(w)
	for j := j0; j < j1; j += vectorCols {
		g.vectorStrip(w, x, ldx, fixed, j, min(j+vectorCols, j1))
	}
	finishBlock(g.c, g.ep, 0, g.c.Rows, j0, j1)
}

// wholeSteps returns the rows of A, filled up with zeros to whole steps of the codes.
func (g *quantizedGemm[T]) wholeSteps(w *parallel.Worker) (x []T, ldx int) {
	k := g.b.K
	ldx = ceilTo(k, g.b.Coding.StepRows())
	if ldx == k {
		return g.a.Data, g.a.RowStride
	}
	x = parallel.Scratch[T](w, slotWide, g.a.Rows*ldx)
	for i := range g.a.Rows {
		copy(x[i*ldx:], g.a.Data[g.a.at(i, 0):][:k])
		clear(x[i*ldx+k : (i+1)*ldx])
	}
	return x, ldx
}

// vectorStrip computes columns j0 to j1, at most vectorCols.
func (g *quantizedGemm[T]) vectorStrip(w *parallel.Worker, x []T, ldx int, fixed []fixedRow, j0, j1 int) {
	v := newVectorProduct(w, g.b, j0, j1, slices.ContainsFunc(fixed, func(r fixedRow) bool { return r.x == nil }) || fixed == nil)
	for i := range g.a.Rows {
		y, whole := vectorResult(w, g.c, i, j0, j1)
		if fixed != nil && fixed[i].x != nil {
			v.computeFixed(&fixed[i], as32(whole))
		} else {
			v.compute(as32(x[i*ldx:]), as32(whole))
		}
		if len(whole) > len(y) {
			copy(y, whole)
		}
	}
}

// vectorResult returns columns j0 to j1 of row i of C, and as much memory as whole panels take: the same if they are whole.
func vectorResult[T Float](w *parallel.Worker, c Matrix[T], i, j0, j1 int) (y, whole []T) {
	y = c.Data[c.at(i, j0):][:j1-j0]
	if cols := ceilTo(j1-j0, PanelCols); cols > len(y) {
		return y, parallel.Scratch[T](w, slotNarrow, cols)
	}
	return y, y
}

// vectorProduct is one row times a few panels of codes.
type vectorProduct struct {
	q          *Quantized
	at, panels int // the first panel's place in the codes, and how many there are
	s          []float32
	lds        int
	z          []uint8
	ldz        int
}

// newVectorProduct is a product with columns j0 to j1 of q, with zero points even if all are the same where they are to be explicit.
func newVectorProduct(w *parallel.Worker, q *Quantized, j0, j1 int, explicit bool) vectorProduct {
	v := vectorProduct{q: q, at: j0 / PanelCols * q.panelLen(), panels: tasks(j1-j0, PanelCols)}
	if q.Coding.Integer() {
		v.s, v.lds, v.z, v.ldz = q.stripParams(w, j0, j1, explicit)
	}
	return v
}
