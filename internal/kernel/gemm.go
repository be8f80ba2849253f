package kernel

import (
	"fmt"

	"stheno/internal/parallel"
)

// Matrix is a strided view: element (i, j) is Data[i·RowStride + j·ColStride].
type Matrix[T Float] struct {
	Data                             []T
	Rows, Cols, RowStride, ColStride int
}

// RowMajor is the view of a dense matrix stored row by row.
func RowMajor[T Float](data []T, rows, cols int) Matrix[T] {
	return Matrix[T]{Data: data, Rows: rows, Cols: cols, RowStride: cols, ColStride: 1}
}

// T is the transposed view of the same data.
func (m Matrix[T]) T() Matrix[T] {
	return Matrix[T]{Data: m.Data, Rows: m.Cols, Cols: m.Rows, RowStride: m.ColStride, ColStride: m.RowStride}
}

// at is the index of element (i, j).
func (m Matrix[T]) at(i, j int) int { return i*m.RowStride + j*m.ColStride }

// check panics when the data is shorter than the view.
func (m Matrix[T]) check(name string) {
	if m.Rows > 0 && m.Cols > 0 {
		checkLen(name, len(m.Data), m.at(m.Rows-1, m.Cols-1)+1)
	}
}

// Epilogue is what Gemm does to each block of C while it is in the cache.
type Epilogue[T Float] struct {
	// Bias, of as many elements as C has columns, is added to every row. Nil adds nothing.
	Bias []T
	// After is called once for each finished block (rows i0 to i1, columns j0 to j1) on the goroutine that made it. The
	// blocks partition C and several calls may run at a time. Nil does nothing.
	After func(i0, i1, j0, j1 int)
}

// Scratch slots of parallel.Worker that Gemm packs into.
const (
	slotA = 14
	slotB = 15
)

// Gemm computes C = A·B, or C += A·B, over the worker pool, then the epilogue:
//
//	C(i, j) = [C(i, j)] + Σ_p A(i, p)·B(p, j) + bias(j)
//
// for A (m×k), B (k×n) and C (m×n) of any strides, C with a column stride of 1. Transposed operands are strides. C must
// not overlap A, B or the bias. Where k is 0 the product is 0.
//
// The result does not depend on the number of threads: a sum over p is never split between them, and its order depends
// only on the shapes, the strides, the instruction set and the place of (i, j). With tiles of AMX it also depends on whether the rows
// and columns of the block of 32×32 around (i, j) hold numbers that pieces of BF16 do not multiply (see pieceGemm).
func Gemm[T Float](c, a, b Matrix[T], accumulate bool, ep Epilogue[T]) {
	checkGemm(c, a, b, ep)
	m, n, k := c.Rows, c.Cols, a.Cols
	if m == 0 || n == 0 {
		return
	}
	g := &gemm[T]{c: c, a: a, b: b, accumulate: accumulate, ep: ep}
	if k > 0 && (g.asVectors() || g.pieces()) {
		return
	}
	g.plan(m, n, k, parallel.Threads())
	across := (n + g.cols - 1) / g.cols
	tasks := across * ((m + g.rows - 1) / g.rows)
	parallel.Run(tasks, func(w *parallel.Worker, t int) {
		i, j := t/across*g.rows, t%across*g.cols
		g.block(w, i, min(i+g.rows, m), j, min(j+g.cols, n))
	})
}

func checkGemm[T Float](c, a, b Matrix[T], ep Epilogue[T]) {
	if a.Rows != c.Rows || b.Cols != c.Cols || a.Cols != b.Rows {
		panic(fmt.Sprintf("kernel: Gemm: got A %d×%d, B %d×%d, C %d×%d, want m×k, k×n, m×n", a.Rows, a.Cols, b.Rows, b.Cols, c.Rows, c.Cols))
	}
	if c.ColStride != 1 && c.Cols > 1 {
		panic(fmt.Sprintf("kernel: Gemm: got C with column stride %d, want 1", c.ColStride))
	}
	if ep.Bias != nil {
		checkLen("bias", len(ep.Bias), c.Cols)
	}
	a.check("A")
	b.check("B")
	c.check("C")
}

// gemm is one product under way.
type gemm[T Float] struct {
	c, a, b    Matrix[T]
	accumulate bool
	ep         Epilogue[T]

	width          int  // columns of a full register tile, and of a packed panel of B
	rows, cols     int  // of C that one task computes
	steps          int  // of k between two visits to C
	together       int  // rows of A that stay in the second-level cache while panels of B pass
	packsA, packsB bool // whether the operand is copied before use
}

// Bounds of blocks, measured.
const (
	gemmSteps = 384 // of k: a panel of B and six rows of A fill the first-level cache
	gemmRows  = 126 // rows of A that leave room in the second-level cache
	gemmCols  = 256 // columns of B in a worker's scratch
	// gemmStepsWide and gemmRowsWide replace them on AVX-512. Four registers across, a tile reads B slowly enough for the
	// second-level cache, and fewer visits to C are worth more.
	gemmStepsWide = 768
	gemmRowsWide  = 252
	// gemmColsPacked replaces gemmCols where A is packed too, which is done again for each block of columns.
	gemmColsPacked = 512
	// gemmColsFew replaces gemmCols where few rows use a panel of B, so that it is still close when they do.
	gemmColsFew = 128
	// gemmSplit is the number of multiply-adds below which a product stays on the caller's goroutine.
	gemmSplit = 1 << 18
	// gemmTasks is the number of tasks per thread that evens out the finish.
	gemmTasks = 4
)

// plan chooses the blocks. Only the size of tasks may depend on the number of threads: tasks begin at multiples of a tile,
// so that every element is computed in the same way whichever task it falls into.
func (g *gemm[T]) plan(m, n, k, threads int) {
	g.width = panelWidth[T]()
	g.packsA = k > 0 && g.a.ColStride != 1 && (g.a.RowStride != 1 || g.a.ColStride > 2*tileRows)
	g.packsB = k > 0 && (g.b.ColStride != 1 || m > 2*tileRows && (m > 6*tileRows || k*n > 1<<16))
	g.rows, g.cols = ceilTo(m, tileRows), gemmCols
	steps, together := gemmSteps, gemmRows
	if g.width == 64 {
		steps, together = gemmStepsWide, gemmRowsWide
	}
	switch {
	case m <= gemmRows:
		g.cols = gemmColsFew
	case g.packsA:
		g.cols = gemmColsPacked
	}
	g.cols = ceilTo(min(n, g.cols), 64)
	if m*n*k >= gemmSplit && threads > 1 {
		for tasks(m, g.rows)*tasks(n, g.cols) < gemmTasks*threads {
			switch {
			case g.cols > 128:
				g.cols = ceilTo(g.cols/2, 64)
			case g.rows > 48:
				g.rows = ceilTo(g.rows/2, tileRows)
			case g.cols > 64:
				g.cols = 64
			default:
				threads = 0
			}
		}
	}
	g.steps = even(k, steps, 8)
	g.together = even(g.rows, together, tileRows)
}

// tasks is how many pieces of a given size cover n.
func tasks(n, piece int) int { return (n + piece - 1) / piece }

// ceilTo rounds n up to a multiple.
func ceilTo(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

// even cuts n into the fewest pieces of at most limit and returns their size, a multiple of unit and at least one unit.
func even(n, limit, unit int) int {
	return max(unit, ceilTo((n+tasks(n, limit)-1)/max(1, tasks(n, limit)), unit))
}

// block computes rows i0 to i1, columns j0 to j1 of C.
func (g *gemm[T]) block(w *parallel.Worker, i0, i1, j0, j1 int) {
	k := g.a.Cols
	mode := TileSet
	if g.accumulate {
		mode = TileAdd
	}
	for p0 := 0; p0 == 0 || p0 < k; p0 += g.steps {
		p1 := min(p0+g.steps, k)
		var packedB []T
		if g.packsB {
			packedB = parallel.Scratch[T](w, slotB, (p1-p0)*ceilTo(j1-j0, g.width))
			packB(packedB, g.b, p0, p1, j0, j1, g.width)
		}
		for i := i0; i < i1; i += g.together {
			end := min(i+g.together, i1)
			a, rs, cs, gs := tail(g.a.Data, g.a.at(i, p0)), g.a.RowStride, g.a.ColStride, tileRows*g.a.RowStride
			if g.packsA {
				a, rs, cs, gs = parallel.Scratch[T](w, slotA, (p1-p0)*ceilTo(end-i, tileRows)), 1, tileRows, tileRows*(p1-p0)
				packA(a, g.a, i, end, p0, p1)
			}
			for j := j0; j < j1; j += g.width {
				b, ldb := tail(g.b.Data, g.b.at(p0, j)), g.b.RowStride
				if g.packsB {
					b, ldb = packedB[(j-j0)*(p1-p0):], g.width
				}
				tile(end-i, min(g.width, j1-j), p1-p0, a, rs, cs, gs, b, ldb, g.c.Data[g.c.at(i, j):], g.c.RowStride, mode, nil)
			}
			if p1 == k {
				g.finish(i, end, j0, j1)
			}
		}
		mode = TileAdd
	}
}

// finish runs the epilogue on a block.
func (g *gemm[T]) finish(i0, i1, j0, j1 int) {
	if g.ep.Bias != nil {
		one := [1]T{1}
		tile(i1-i0, j1-j0, 1, one[:], 0, 0, 0, g.ep.Bias[j0:], 0, g.c.Data[g.c.at(i0, j0):], g.c.RowStride, TileAdd, nil)
	}
	if g.ep.After != nil {
		g.ep.After(i0, i1, j0, j1)
	}
}
