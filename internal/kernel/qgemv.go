package kernel

import "stheno/internal/parallel"

// Columns of a quantized matrix that one call multiplies, and that make a task's unit.
const vectorCols = 4 * PanelCols

// vectors computes the product row by row from the codes, where there is assembly for it, and reports whether it did. The codes
// come from memory once: further rows find them in the cache.
func (g *quantizedGemm[T]) vectors() bool {
	// The other half of a last step of BF16 is not ours to multiply, not even with 0: it might not be finite.
	if !codesVectorized[T]() || g.b.K > MaxQuantizedRows || g.b.Coding == BFloat16 && g.b.K%2 != 0 {
		return false
	}
	if !fixedVectorized[T](g.b.Coding) {
		g.vectorPieces(nil)
		return true
	}
	// A Run of one task lends the caller's scratch without taking the workers.
	parallel.Run(1, func(w *parallel.Worker, _ int) { g.vectorPieces(g.fixedRows(w)) })
	return true
}

// vectorPieces cuts the columns of C into tasks. fixed are the rows in fixed point, if they are multiplied so.
func (g *quantizedGemm[T]) vectorPieces(fixed []fixedRow) {
	m, n, k := g.c.Rows, g.c.Cols, g.b.K
	piece := n
	if threads := parallel.Threads(); threads > 1 && m*n*k >= gemvSplit {
		piece = max(vectorCols, ceilTo(tasks(n, gemvTasks*threads), vectorCols))
	}
	parallel.Run(tasks(n, piece), func(w *parallel.Worker, t int) {
		j0, j1 := t*piece, min((t+1)*piece, n)
		x, ldx := g.wholeSteps(w)
		for j := j0; j < j1; j += vectorCols {
			g.vectorStrip(w, x, ldx, fixed, j, min(j+vectorCols, j1))
		}
		finishBlock(g.c, g.ep, 0, m, j0, j1)
	})
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
	var v vectorProduct
	v.q, v.at, v.panels = g.b, j0/PanelCols*g.b.panelLen(), tasks(j1-j0, PanelCols)
	if g.b.Coding.Integer() {
		v.s, v.lds, v.z, v.ldz = g.b.stripParams(w, j0, j1, true)
	}
	cols := v.panels * PanelCols
	for i := range g.a.Rows {
		y := g.c.Data[g.c.at(i, j0):]
		whole := y
		if cols > j1-j0 {
			whole = parallel.Scratch[T](w, slotNarrow, cols)
		}
		if fixed != nil && fixed[i].x != nil {
			v.computeFixed(&fixed[i], as32(whole[:cols]))
		} else {
			v.compute(as32(x[i*ldx:]), as32(whole[:cols]))
		}
		if cols > j1-j0 {
			copy(y[:j1-j0], whole)
		}
	}
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
