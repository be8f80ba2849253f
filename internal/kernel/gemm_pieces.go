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
	pieceCutTask  = 1 << 15    // elements that a task cuts of the operand cut beforehand
	pieceWorkers  = 64         // that may each cut for themselves
	pieceStreamed = 1 << 20    // elements of C from which they are written past the caches: fewer are still there for what reads them next
	slotBounds    = slotScales // of parallel.Worker
	slotPanel     = slotWide   // for columns that pieces do not do
)

// pieceGemm is one product under way in pieces. One operand is cut beforehand, for all tasks or for those of a worker: the rows of A, or
// many of them, or the columns of B where there are more rows. What a task needs of the other one, it cuts itself. Where bounds are not Safe for 32 rows
// and 32 columns, their sums are looked at; where these are too small, or numbers too large, the 32 rows and columns are multiplied by
// multiply-adds.
type pieceGemm struct {
	*gemm[float32]
	bias       []float32 // with which sums begin, unless C is added to
	streams    bool      // whether C is written past the caches
	byRows     bool      // whether it is B that is cut beforehand
	steps      int       // of k between two visits to C
	chunk      int       // rows of A that are gone through together
	each       bool      // whether each worker cuts that operand for itself
	lines      int       // of it that one task cuts, if not
	cols, rows int       // of C that one task computes

	stage          pieceStage
	visit          int               // that many times workers have got another part of the operand to cut
	visited        [pieceWorkers]int // the visit for which a worker has cut
	body           func(w *parallel.Worker, t int)
	i0, i1, p0, p1 int // rows and steps under way
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
	x.streams = m*n >= pieceStreamed && x.steps >= k && !x.accumulate && x.ep.After == nil && alignedLines(x.c)
	x.byRows = m >= n && n*x.steps <= pieceBlock
	if x.byRows {
		x.chunk = m
		x.splitRows(m, n)
	} else {
		x.chunk = even(m, pieceRows, matrixUnit)
		x.split(x.chunk, n)
	}
	few, many := m, n
	if x.byRows {
		few, many = n, m
	}
	// What another core has cut, and not yet written back, comes more slowly than cutting it again takes.
	threads := parallel.Threads()
	x.each = threads <= pieceWorkers && threads*few <= 2*many
	x.body = x.task
	if x.each {
		x.all(nil)
		return true
	}
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
		at := t * g.lines
		to, bounds := g.cut[at/PieceLines*PiecePanel(g.p1-g.p0):], g.bounds[at/PieceLines:]
		g.pack(to, bounds, at, min(at+g.lines, g.most()))
	case pieceMultiply:
		across := tasks(g.c.Cols, g.cols)
		i, j := g.i0+t/across*g.rows, t%across*g.cols
		compute := g.block
		if g.byRows {
			compute = g.blockRows
		}
		compute(w, i, min(i+g.rows, g.i1), j, min(j+g.cols, g.c.Cols))
	}
}

// all goes through chunks of rows and of steps.
func (g *pieceGemm) all(w *parallel.Worker) {
	m, n, k := g.c.Rows, g.c.Cols, g.a.Cols
	g.i0, g.i1 = 0, g.chunk
	if !g.each {
		g.lines = ceilTo(max(1, pieceCutTask/g.steps), PieceLines)
		g.cut, g.bounds = g.room(w)
	}
	for g.i0 = 0; g.i0 < m; g.i0 = g.i1 {
		g.i1 = min(g.i0+g.chunk, m)
		for g.p0 = 0; g.p0 < k; g.p0 = g.p1 {
			g.p1 = min(g.p0+g.steps, k)
			g.visit++
			if !g.each {
				g.stage = pieceCut
				parallel.Run(tasks(g.most(), g.lines), g.body)
			}
			g.stage = pieceMultiply
			parallel.Run(tasks(n, g.cols)*tasks(g.i1-g.i0, g.rows), g.body)
		}
	}
}

// most is how many lines of the operand that is cut beforehand there are in this visit.
func (g *pieceGemm) most() int {
	if g.byRows {
		return g.c.Cols
	}
	return g.i1 - g.i0
}

// room is scratch for the operand that is cut beforehand.
func (g *pieceGemm) room(w *parallel.Worker) ([]uint16, []PieceBounds) {
	n := g.most()
	return parallel.Scratch[uint16](w, slotA, PiecesLen(n, g.steps)), parallel.Scratch[PieceBounds](w, slotBounds, tasks(n, PieceLines))
}

// pack cuts lines from to to of the operand that is cut beforehand.
func (g *pieceGemm) pack(cut []uint16, bounds []PieceBounds, from, to int) {
	if g.byRows {
		PackPiecesB(cut, g.b.part(g.p0, g.p1, from, to), bounds)
		return
	}
	PackPiecesA(cut, g.a.part(g.i0+from, g.i0+to, g.p0, g.p1), bounds)
}

// common is the operand that is cut beforehand, which the worker may have to cut now.
func (g *pieceGemm) common(w *parallel.Worker) (cut []uint16, bounds []PieceBounds) {
	if !g.each {
		return g.cut, g.bounds
	}
	cut, bounds = g.room(w)
	id := w.ID()
	if id < pieceWorkers && g.visited[id] == g.visit {
		return cut, bounds
	}
	g.pack(cut, bounds, 0, g.most())
	if id < pieceWorkers {
		g.visited[id] = g.visit
	}
	return cut, bounds
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

// splitRows is split where tasks cut rows of A.
func (g *pieceGemm) splitRows(m, n int) {
	g.rows, g.cols = 4*pieceHeld, ceilTo(n, matrixStrip)
	threads := parallel.Threads()
	for g.rows > pieceHeld && threads > 1 && tasks(m, g.rows) < 2*gemmTasks*threads {
		g.rows /= 2
	}
	if threads > 1 && tasks(m, g.rows) < gemmTasks*threads {
		g.rows = matrixUnit
	}
}

// part is rows i0 to i1, columns j0 to j1 of m, at least one of each.
func (m Matrix[T]) part(i0, i1, j0, j1 int) Matrix[T] {
	m.Data, m.Rows, m.Cols = m.Data[m.at(i0, j0):], i1-i0, j1-j0
	return m
}

// block computes rows i0 to i1, columns j0 to j1 of C, over the steps that are cut: it cuts B.
func (g *pieceGemm) block(w *parallel.Worker, i0, i1, j0, j1 int) {
	k := g.p1 - g.p0
	panel := PiecePanel(k)
	rows, rowBounds := g.common(w)
	cut := parallel.Scratch[uint16](w, slotB, PiecesLen(j1-j0, k))
	var bounds [pieceColsMost / PieceLines]PieceBounds
	PackPiecesB(cut, g.b.part(g.p0, g.p1, j0, j1), bounds[:])
	b := pieceOperand{cut, bounds[:]}
	for i := i0; i < i1; i += pieceHeld {
		end := min(i+pieceHeld, i1)
		at := (i - g.i0) / PieceLines
		a := pieceOperand{rows[at*panel:], rowBounds[at:]}
		g.strips(w, i, end, j0, j1, &a, &b)
	}
}

// blockRows is block where B is cut, and A is not.
func (g *pieceGemm) blockRows(w *parallel.Worker, i0, i1, j0, j1 int) {
	k := g.p1 - g.p0
	at := j0 / PieceLines
	columns, columnBounds := g.common(w)
	b := pieceOperand{columns[at*PiecePanel(k):], columnBounds[at:]}
	cut := parallel.Scratch[uint16](w, slotB, PiecesLen(pieceHeld, k))
	var bounds [pieceHeld / PieceLines]PieceBounds
	a := pieceOperand{cut, bounds[:]}
	for i := i0; i < i1; i += pieceHeld {
		end := min(i+pieceHeld, i1)
		PackPiecesA(cut, g.a.part(i, end, g.p0, g.p1), bounds[:])
		g.strips(w, i, end, j0, j1, &a, &b)
	}
}

// pieceOperand is what is cut of an operand, from some line on. Like pieceStrip it is not copied: a read of two words that were written
// one by one waits until all that was written before, much of C among it, has reached the cache.
type pieceOperand struct {
	cut    []uint16
	bounds []PieceBounds
}

// of are the bounds of lines from to to.
func (x *pieceOperand) of(from, to int) PieceBounds {
	return JoinPieceBounds(x.bounds[from/PieceLines : tasks(to, PieceLines)]...)
}

// strips computes rows i0 to i1, columns j0 to j1, of which a and b are the operands.
func (g *pieceGemm) strips(w *parallel.Worker, i0, i1, j0, j1 int, a, b *pieceOperand) {
	k := g.p1 - g.p0
	panel, all := PiecePanel(k), a.of(0, i1-i0)
	s := pieceStrip{i0: i0, i1: i1, a: a}
	for j := j0; j < j1; j += matrixStrip {
		s.j0, s.j1 = j, min(j+matrixStrip, j1)
		s.b, s.bounds = b.cut[(j-j0)/PieceLines*panel:], b.of(j-j0, s.j1-j0)
		s.safe = all.Safe(s.bounds, k)
		g.strip(w, &s)
	}
	if g.p1 == g.a.Cols {
		g.finish(i0, i1, j0, j1)
	}
}

// pieceStrip is rows i0 to i1 of up to 32 columns j0 to j1, which are cut.
type pieceStrip struct {
	i0, i1, j0, j1 int
	a              *pieceOperand
	b              []uint16
	bounds         PieceBounds // of b
	safe           bool        // for all rows
}

// rows are the bounds of rows i0 to i1.
func (s *pieceStrip) rows(i0, i1 int) PieceBounds { return s.a.of(i0-s.i0, i1-s.i0) }

// strip computes a strip: runs of units of 32 rows in pieces as far as they are safe.
func (g *pieceGemm) strip(w *parallel.Worker, s *pieceStrip) {
	k := g.p1 - g.p0
	packed := false
	for i := s.i0; i < s.i1; {
		end := i
		for end < s.i1 && (s.safe || s.rows(end, min(end+matrixUnit, s.i1)).Safe(s.bounds, k)) {
			end = min(end+matrixUnit, s.i1)
		}
		c := g.c.Data[g.c.at(i, s.j0):]
		if end > i {
			var buf []float32
			if g.streams {
				buf = parallel.Scratch[float32](w, slotNarrow, matrixUnit*matrixStrip)
			}
			init, ldi := g.init(c, s.j0)
			tilePieces(end-i, s.j1-s.j0, k, s.a.cut[(i-s.i0)/PieceLines*PiecePanel(k):], s.b, c, g.c.RowStride, init, ldi, buf)
			i = end
			continue
		}
		end = min(i+matrixUnit, s.i1)
		if !g.settle(w, s, i, end) {
			g.multiply(w, s, i, end, packed)
			packed = true
		}
		i = end
	}
}

// settle computes a unit of a strip whose small numbers lose pieces, rows i0 to i1, and reports whether all of its sums are large enough
// for that not to matter. If not, C is as it was.
func (g *pieceGemm) settle(w *parallel.Worker, s *pieceStrip, i0, i1 int) bool {
	k := g.p1 - g.p0
	floor, ok := s.rows(i0, i1).floor(s.bounds, k)
	if !ok {
		return false
	}
	c, sums := g.c.Data[g.c.at(i0, s.j0):], parallel.Scratch[float32](w, slotNarrow, matrixUnit*matrixStrip)
	init, ldi := g.init(c, s.j0)
	tilePieces(i1-i0, s.j1-s.j0, k, s.a.cut[(i0-s.i0)/PieceLines*PiecePanel(k):], s.b, sums, matrixStrip, init, ldi, nil)
	return settleSIMD(c, g.c.RowStride, sums, i1-i0, s.j1-s.j0, floor)
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
