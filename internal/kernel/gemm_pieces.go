package kernel

import "stheno/internal/parallel"

// Bounds of blocks of products in pieces, measured.
const (
	pieceSteps    = 1024       // of k between two visits to C
	pieceRows     = 2048       // rows of A that are cut together
	pieceBlock    = 256 * 768  // elements of B in a worker's scratch: three fifths of the second-level cache
	pieceHeld     = 64         // rows of A that stay there too while strips of B pass
	pieceColsMost = 512        // columns of a task
	pieceMinRows  = 48         // with fewer rows, B is cut for too little use
	pieceMinCols  = 48         // likewise A
	pieceMinSteps = 64         // two tiles
	pieceMinWork  = 3 << 19    // multiply-adds
	pieceCutTask  = 1 << 15    // elements of A that a task cuts
	slotBounds    = slotScales // of parallel.Worker
	slotPanel     = slotWide   // for columns that pieces do not do
)

// pieceGemm is one product under way in pieces: all rows of A, or many of them, are cut beforehand, columns of B by the task that needs
// them. Where bounds are not Safe for 32 rows and 32 columns, these are multiplied by multiply-adds.
type pieceGemm struct {
	*gemm[float32]
	steps      int // of k between two visits to C
	chunk      int // rows of A that are cut together
	lines      int // of them that one task cuts
	cols, rows int // of C that one task computes

	stage          pieceStage
	body           func(w *parallel.Worker, t int)
	i0, i1, p0, p1 int // rows and steps that are cut
	cut            []uint16
	bounds         []PieceBounds
}

// pieceStage is what tasks do.
type pieceStage int

const (
	pieceAll pieceStage = iota
	pieceCut
	pieceMultiply
)

// pieces computes the product in pieces where that is faster, and reports whether it did.
func (g *gemm[T]) pieces() bool {
	m, n, k := g.c.Rows, g.c.Cols, g.a.Cols
	if m < pieceMinRows || n < pieceMinCols || k < pieceMinSteps || m*n*k < pieceMinWork || !matrixVectorized[T]() {
		return false
	}
	x := &pieceGemm{gemm: any(g).(*gemm[float32])}
	x.steps = even(k, pieceSteps, PieceSteps)
	x.chunk = even(m, pieceRows, matrixUnit)
	x.split(x.chunk, n)
	x.body = x.task
	// A Run of one task lends the caller's scratch without taking the workers.
	parallel.Run(1, x.body)
	return true
}

// task is what the workers run: the one closure of a product.
func (g *pieceGemm) task(w *parallel.Worker, t int) {
	switch g.stage {
	case pieceAll:
		g.all(w)
	case pieceCut:
		i := g.i0 + t*g.lines
		a := g.a.part(i, min(i+g.lines, g.i1), g.p0, g.p1)
		PackPiecesA(g.cut[t*g.lines/PieceLines*PiecePanel(g.p1-g.p0):], a, g.bounds[t*g.lines/PieceLines:])
	case pieceMultiply:
		across := tasks(g.c.Cols, g.cols)
		i, j := g.i0+t/across*g.rows, t%across*g.cols
		g.block(w, i, min(i+g.rows, g.i1), j, min(j+g.cols, g.c.Cols))
	}
}

// all goes through chunks of rows and of steps.
func (g *pieceGemm) all(w *parallel.Worker) {
	m, n, k := g.c.Rows, g.c.Cols, g.a.Cols
	g.lines = ceilTo(max(1, pieceCutTask/g.steps), PieceLines)
	g.bounds = parallel.Scratch[PieceBounds](w, slotBounds, g.chunk/PieceLines)
	g.cut = parallel.Scratch[uint16](w, slotA, PiecesLen(g.chunk, g.steps))
	for g.i0 = 0; g.i0 < m; g.i0 = g.i1 {
		g.i1 = min(g.i0+g.chunk, m)
		for g.p0 = 0; g.p0 < k; g.p0 = g.p1 {
			g.p1 = min(g.p0+g.steps, k)
			g.stage = pieceCut
			parallel.Run(tasks(g.i1-g.i0, g.lines), g.body)
			g.stage = pieceMultiply
			parallel.Run(tasks(n, g.cols)*tasks(g.i1-g.i0, g.rows), g.body)
		}
	}
}

// split chooses the tasks for so many rows. They begin at multiples of a unit, so that every element is computed in the same way
// whichever task it falls into.
func (g *pieceGemm) split(m, n int) {
	g.rows = m
	g.cols = min(ceilTo(n, matrixStrip), max(matrixStrip, min(pieceColsMost, pieceBlock/g.steps&^(matrixStrip-1))))
	for threads := parallel.Threads(); threads > 1 && tasks(m, g.rows)*tasks(n, g.cols) < gemmTasks*threads; {
		switch {
		case g.cols > 128:
			g.cols = ceilTo(g.cols/2, matrixStrip)
		case g.rows > 128:
			g.rows = ceilTo(g.rows/2, matrixUnit)
		case g.cols > matrixStrip:
			g.cols = ceilTo(g.cols/2, matrixStrip)
		default:
			threads = 0
		}
	}
}

// part is rows i0 to i1, columns j0 to j1 of m, at least one of each.
func (m Matrix[T]) part(i0, i1, j0, j1 int) Matrix[T] {
	m.Data, m.Rows, m.Cols = m.Data[m.at(i0, j0):], i1-i0, j1-j0
	return m
}

// block computes rows i0 to i1, columns j0 to j1 of C, over the steps that are cut.
func (g *pieceGemm) block(w *parallel.Worker, i0, i1, j0, j1 int) {
	k := g.p1 - g.p0
	panel := PiecePanel(k)
	cut := parallel.Scratch[uint16](w, slotB, PiecesLen(j1-j0, k))
	var bounds [pieceColsMost / PieceLines]PieceBounds
	PackPiecesB(cut, g.b.part(g.p0, g.p1, j0, j1), bounds[:])
	mode := TileSet
	if g.accumulate || g.p0 > 0 {
		mode = TileAdd
	}
	for i := i0; i < i1; i += pieceHeld {
		end := min(i+pieceHeld, i1)
		for j := j0; j < j1; j += matrixStrip {
			g.strip(w, i, end, j, min(j+matrixStrip, j1), cut[(j-j0)/PieceLines*panel:], bounds[(j-j0)/PieceLines:], mode)
		}
		if g.p1 == g.a.Cols {
			g.finish(i, end, j0, j1)
		}
	}
}

// strip computes rows i0 to i1 of up to 32 columns: runs of units of 32 rows in pieces as far as they are safe.
func (g *pieceGemm) strip(w *parallel.Worker, i0, i1, j0, j1 int, b []uint16, bounds []PieceBounds, mode TileMode) {
	panel := PiecePanel(g.p1 - g.p0)
	bounds = bounds[:tasks(j1-j0, PieceLines)]
	var packed []float32
	for i := i0; i < i1; {
		end := i
		for end < i1 && g.safe(end, min(end+matrixUnit, i1), bounds) {
			end = min(end+matrixUnit, i1)
		}
		if end > i {
			TilePieces(end-i, j1-j0, g.p1-g.p0, g.cut[(i-g.i0)/PieceLines*panel:], b, g.c.Data[g.c.at(i, j0):], g.c.RowStride, mode)
			i = end
			continue
		}
		end = min(i+matrixUnit, i1)
		if packed == nil {
			packed = parallel.Scratch[float32](w, slotPanel, PackedLen[float32](g.p1-g.p0, j1-j0))
			Pack(packed, g.b.part(g.p0, g.p1, j0, j1))
		}
		TilePacked(end-i, j1-j0, g.p1-g.p0, g.a.Data[g.a.at(i, g.p0):], g.a.RowStride, g.a.ColStride, packed, g.c.Data[g.c.at(i, j0):], g.c.RowStride, mode, nil)
		i = end
	}
}

// safe reports whether pieces do for rows i0 to i1 and columns with the given bounds.
func (g *pieceGemm) safe(i0, i1 int, columns []PieceBounds) bool {
	for _, x := range g.bounds[(i0-g.i0)/PieceLines : tasks(i1-g.i0, PieceLines)] {
		for _, y := range columns {
			if !x.Safe(y, g.p1-g.p0) {
				return false
			}
		}
	}
	return true
}
