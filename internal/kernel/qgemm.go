package kernel

import (
	"fmt"

	"stheno/internal/parallel"
)

// GemmQuantized computes C = A·B for a quantized B over the worker pool, then the epilogue:
//
//	C(i, j) = Σ_p A(i, p)·Value(p, j) + bias(j)
//
// A (m×k) has a column stride of 1, C (m×n) too. Pieces of B are widened into the worker's scratch, and the product is then
// that of Gemm, or one in tiles of BF16 where the processor has them; a few rows of A are multiplied with the codes as they are
// read.
//
// The result does not depend on the number of threads.
func GemmQuantized[T Float](c, a Matrix[T], b *Quantized, ep Epilogue[T]) {
	checkQuantized(c, a, b.K, b.N, b, ep)
	if c.Rows == 0 || c.Cols == 0 {
		return
	}
	g := &quantizedGemm[T]{c: c, a: a, b: b, ep: ep}
	if c.Rows <= quantizedVectorRows && b.K > 0 && g.vectors() {
		return
	}
	if g.matrices() {
		return
	}
	g.run(c.Cols, b.K, g.widen)
}

// GemmQuantizedT computes C = A·Bᵀ for a quantized B over the worker pool: C (m×k), A (m×n), B (k×n), the gradient of
// GemmQuantized with respect to its A.
func GemmQuantizedT[T Float](c, a Matrix[T], b *Quantized) {
	checkQuantized(c, a, b.N, b.K, b, Epilogue[T]{})
	if c.Rows == 0 || c.Cols == 0 {
		return
	}
	g := &quantizedGemm[T]{c: c, a: a, b: b}
	g.run(c.Cols, b.N, g.widenT)
}

func checkQuantized[T Float](c, a Matrix[T], inner, cols int, b *Quantized, ep Epilogue[T]) {
	b.check()
	if a.Rows != c.Rows || a.Cols != inner || c.Cols != cols {
		panic(fmt.Sprintf("kernel: quantized product: got A %d×%d, C %d×%d, want m×%d, m×%d", a.Rows, a.Cols, c.Rows, c.Cols, inner, cols))
	}
	if a.ColStride != 1 && a.Cols > 1 || c.ColStride != 1 && c.Cols > 1 {
		panic(fmt.Sprintf("kernel: quantized product: got column strides %d of A, %d of C, want 1", a.ColStride, c.ColStride))
	}
	if ep.Bias != nil {
		checkLen("bias", len(ep.Bias), c.Cols)
	}
	a.check("A")
	c.check("C")
}

// quantizedGemm is one product under way.
type quantizedGemm[T Float] struct {
	c, a Matrix[T]
	b    *Quantized
	ep   Epilogue[T]

	width, rows, cols, steps, together int // as in gemm
}

const (
	quantizedVectorRows = 4 // rows of A up to which codes are multiplied as they are read
	slotWide            = 13
	slotNarrow          = 12
)

// run cuts C, of n columns, into tasks, widening the right operand with k rows by widen:
// dst[q·(p1−p0)·width + (p−p0)·width + j] = B(p, j0+q·width+j) for p0 ≤ p < p1, j0+q·width+j < j1.
func (g *quantizedGemm[T]) run(n, k int, widen func(w *parallel.Worker, dst []T, p0, p1, j0, j1 int)) {
	m := g.c.Rows
	g.width = panelWidth[T]()
	g.rows, g.cols = ceilTo(m, tileRows), gemmCols
	if m <= gemmRows {
		g.cols = gemmColsFew
	}
	g.cols = ceilTo(min(n, g.cols), 64)
	if threads := parallel.Threads(); m*n*k >= gemmSplit && threads > 1 {
		// Rows are cut last: each cut widens the same codes once more.
		for tasks(m, g.rows)*tasks(n, g.cols) < gemmTasks*threads {
			switch {
			case g.cols > 64:
				g.cols = ceilTo(g.cols/2, 64)
			case g.rows > 96:
				g.rows = ceilTo(g.rows/2, tileRows)
			default:
				threads = 0
			}
		}
	}
	g.steps = even(k, gemmSteps, 8)
	g.together = even(g.rows, gemmRows, tileRows)
	across := tasks(n, g.cols)
	parallel.Run(across*tasks(m, g.rows), func(w *parallel.Worker, t int) {
		i, j := t/across*g.rows, t%across*g.cols
		g.block(w, k, i, min(i+g.rows, m), j, min(j+g.cols, n), widen)
	})
}

// block computes rows i0 to i1, columns j0 to j1 of C.
func (g *quantizedGemm[T]) block(w *parallel.Worker, k, i0, i1, j0, j1 int, widen func(w *parallel.Worker, dst []T, p0, p1, j0, j1 int)) {
	mode := TileSet
	for p0 := 0; p0 == 0 || p0 < k; p0 += g.steps {
		p1 := min(p0+g.steps, k)
		// Whole steps of codes are widened: up to 7 rows more than asked for.
		wide := parallel.Scratch[T](w, slotWide, (p1-p0)*ceilTo(j1-j0, g.width)+8*g.width)
		widen(w, wide, p0, p1, j0, j1)
		for i := i0; i < i1; i += g.together {
			end := min(i+g.together, i1)
			a := tail(g.a.Data, g.a.at(i, p0))
			for j := j0; j < j1; j += g.width {
				tile(end-i, min(g.width, j1-j), p1-p0, a, g.a.RowStride, 1, tileRows*g.a.RowStride,
					wide[(j-j0)*(p1-p0):], g.width, g.c.Data[g.c.at(i, j):], g.c.RowStride, mode, nil)
			}
			if p1 == k {
				finishBlock(g.c, g.ep, i, end, j0, j1)
			}
		}
		mode = TileAdd
	}
}

// finishBlock runs the epilogue on a block.
func finishBlock[T Float](c Matrix[T], ep Epilogue[T], i0, i1, j0, j1 int) {
	if ep.Bias != nil {
		for i := i0; i < i1; i++ {
			row := c.Data[c.at(i, j0):][:j1-j0]
			Add(row, row, ep.Bias[j0:j1])
		}
	}
	if ep.After != nil {
		ep.After(i0, i1, j0, j1)
	}
}

// widen is B itself. Panels go in order: what one writes beyond its last row, the next one overwrites.
func (g *quantizedGemm[T]) widen(_ *parallel.Worker, dst []T, p0, p1, j0, j1 int) {
	for j := j0; j < j1; j += PanelCols {
		dequantize(g.b, dst[(j-j0)/g.width*g.width*(p1-p0)+(j-j0)%g.width:], g.width, p0, p1, j)
	}
}

// widenT is Bᵀ: rows p of it are columns of B, and its columns j are rows of B.
func (g *quantizedGemm[T]) widenT(w *parallel.Worker, dst []T, p0, p1, j0, j1 int) {
	narrow := parallel.Scratch[T](w, slotNarrow, (g.width+8)*PanelCols)
	for j := j0; j < j1; j += g.width {
		rows := min(g.width, j1-j)
		for p := p0; p < p1; p += PanelCols {
			dequantize(g.b, narrow, PanelCols, j, j+rows, p)
			Transpose(dst[(j-j0)*(p1-p0)+(p-p0)*g.width:], g.width, narrow, PanelCols, rows, min(PanelCols, p1-p), 1)
		}
	}
}
