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
	bias       []float32 // with which sums begin, unless C is added to
	streams    bool      // whether C is written past the caches
	steps      int       // of k between two visits to C
	chunk      int       // rows of A that are cut together
	lines      int       // of them that one task cuts
	cols, rows int       // of C that one task computes

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
	if !g.accumulate {
		x.bias, x.ep.Bias = x.ep.Bias, nil
	}
	x.steps = even(k, pieceSteps, PieceSteps)
	x.streams = m*n >= matrixStreamed && x.steps >= k && !x.accumulate && x.ep.After == nil && alignedLines(x.c)
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
	all := g.rowBounds(i0, i1)
	for i := i0; i < i1; i += pieceHeld {
		end := min(i+pieceHeld, i1)
		for j := j0; j < j1; j += matrixStrip {
			at := (j - j0) / PieceLines
			right := min(j+matrixStrip, j1)
			columns := JoinPieceBounds(bounds[at:tasks(right-j0, PieceLines)]...)
			s := pieceStrip{i0: i, i1: end, j0: j, j1: right, b: cut[at*panel:], bounds: columns, safe: all.Safe(columns, k)}
			g.strip(w, &s)
		}
		if g.p1 == g.a.Cols {
			g.finish(i, end, j0, j1)
		}
	}
}

// pieceStrip is rows i0 to i1 of up to 32 columns j0 to j1, which are cut.
type pieceStrip struct {
	i0, i1, j0, j1 int
	b              []uint16
	bounds         PieceBounds
	safe           bool // for all rows
}

// strip computes a strip: runs of units of 32 rows in pieces as far as they are safe.
func (g *pieceGemm) strip(w *parallel.Worker, s *pieceStrip) {
	k := g.p1 - g.p0
	packed := false
	for i := s.i0; i < s.i1; {
		end := i
		for end < s.i1 && g.safe(s, end) {
			end = min(end+matrixUnit, s.i1)
		}
		c := g.c.Data[g.c.at(i, s.j0):]
		if end > i {
			var buf []float32
			if g.streams {
				buf = parallel.Scratch[float32](w, slotNarrow, matrixUnit*matrixStrip)
			}
			init, ldi := g.init(c, s.j0)
			tilePieces(end-i, s.j1-s.j0, k, g.cut[(i-g.i0)/PieceLines*PiecePanel(k):], s.b, c, g.c.RowStride, init, ldi, buf)
			i = end
			continue
		}
		end = min(i+matrixUnit, s.i1)
		g.multiply(w, s, i, end, packed)
		packed, i = true, end
	}
}

// safe reports whether pieces do for the unit of rows that begins at i.
func (g *pieceGemm) safe(s *pieceStrip, i int) bool {
	return s.safe || g.rowBounds(i, min(i+matrixUnit, s.i1)).Safe(s.bounds, g.p1-g.p0)
}

// rowBounds are the bounds of rows i0 to i1 of A, in the steps that are cut.
func (g *pieceGemm) rowBounds(i0, i1 int) PieceBounds {
	return JoinPieceBounds(g.bounds[(i0-g.i0)/PieceLines : tasks(i1-g.i0, PieceLines)]...)
}

// init is what sums of columns from j begin with: C where it is added to, the bias, or nothing.
func (g *pieceGemm) init(c []float32, j int) (x []float32, ldx int) {
	switch {
	case g.accumulate || g.p0 > 0:
		return c, g.c.RowStride
	case g.bias != nil:
		return g.bias[j:], 0
	}
	return nil, 0
}

// multiply computes rows i0 to i1 of a strip by multiply-adds, for which its columns may be packed.
func (g *pieceGemm) multiply(w *parallel.Worker, s *pieceStrip, i0, i1 int, packed bool) {
	k, n := g.p1-g.p0, s.j1-s.j0
	b := parallel.Scratch[float32](w, slotPanel, PackedLen[float32](k, n))
	if !packed {
		Pack(b, g.b.part(g.p0, g.p1, s.j0, s.j1))
	}
	c := g.c.Data[g.c.at(i0, s.j0):]
	mode := TileSet
	if x, ldx := g.init(c, s.j0); x != nil {
		mode = TileAdd
		for i := 0; ldx == 0 && i < i1-i0; i++ {
			copy(c[i*g.c.RowStride:][:n], x)
		}
	}
	TilePacked(i1-i0, n, k, g.a.Data[g.a.at(i0, g.p0):], g.a.RowStride, g.a.ColStride, b, c, g.c.RowStride, mode, nil)
}
