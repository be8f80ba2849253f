package kernel

import (
	"unsafe"

	"stheno/internal/parallel"
)

// Products of many rows on processors with matrix tiles (AMX). A tile multiplies 16 rows of 64 bytes by 16 columns: bytes, summed
// exactly, or pairs of BF16, summed in float32. A float32 is the sum of three numbers of BF16, which take 8 of its 24 bits each, and
// so is what a code stands for but for the scale: one number for BF16 and for integers, two for FP16. Products of two such pieces
// are exact in float32, so that a product in tiles is as accurate as one by multiply-adds of float32, at several times their speed.
// Only the tiny part is lost: pieces below 2⁻¹²⁶, and sums that small, count as 0. Integers are multiplied before they are scaled, as
// for one row: an input beyond 2¹¹⁹ may overflow.

const (
	matrixMinRows  = 7       // with fewer rows, memory is what a product waits for
	matrixStrip    = 32      // columns of one call
	matrixUnit     = 32      // rows of one pass of a call
	matrixHeld     = 3 << 18 // bytes of A that stay in the second-level cache while strips pass
	matrixCols     = 128     // columns of a task
	matrixWork     = 1 << 21 // rows times k of one call
	matrixStreamed = 1 << 18 // elements of C from which they are written past the caches, which they would only pass through
	matrixRowTile  = 16      // rows of A that are read together: A is that much longer than it has rows
)

// matrixForm is what a function of assembly multiplies.
type matrixForm int

const (
	matrixBytes64 matrixForm = iota // bytes, 64 of k in a tile
	matrixBytes32                   // bytes, 32 of k in a tile, for groups that need it
	matrixFloats3                   // three pieces of BF16 by one, 32 of k in a tile
	matrixFloats5                   // three pieces of BF16 by two, but for the product of the smallest ones
)

// tileRows is the number of rows of B, or columns of A, in a tile.
func (f matrixForm) tileRows() int {
	if f == matrixBytes64 {
		return 64
	}
	return 32
}

// matrixGemm is one product under way: C = Σ_g s(g, j)·Σ_p A(i, p)·B(p, j), for integers with the terms of intTile.
type matrixGemm struct {
	c  Matrix[float32]
	b  *Quantized
	ep Epilogue[float32]

	form       matrixForm
	tiles, per int // of k in all, and in a group

	a   unsafe.Pointer // rows in pieces of 64 bytes, in memory for whole tiles of rows
	lda int            // in bytes

	// streams says that C is written past the caches.
	streams bool

	sums   []int32 // of integers, as in dynamicGemm
	scales []float32
}

// newMatrixGemm is a product of the given form, without its A.
func newMatrixGemm(c Matrix[float32], b *Quantized, ep Epilogue[float32], form matrixForm) *matrixGemm {
	g := &matrixGemm{c: c, b: b, ep: ep, form: form, tiles: tasks(b.K, form.tileRows())}
	g.per = tasks(b.groupRows(), form.tileRows())
	g.streams = c.Rows*c.Cols >= matrixStreamed && g.per >= g.tiles && ep.Bias == nil && ep.After == nil && alignedLines(c)
	return g
}

// alignedLines reports whether the rows of c begin with a line of the cache.
func alignedLines(c Matrix[float32]) bool {
	return c.RowStride%16 == 0 && uintptr(unsafe.Pointer(unsafe.SliceData(c.Data)))%64 == 0
}

// matrixLine is the distance in bytes of rows of A that need n: whole tiles, and such that 16 of them lie in different sets of the
// first-level cache.
func matrixLine(n int) int { return (tasks(n, 64) | 1) * 64 }

// matrices computes the product in tiles where there are such, and reports whether it did.
func (g *quantizedGemm[T]) matrices() bool {
	if g.c.Rows < matrixMinRows || g.b.K == 0 || !matrixVectorized[T]() {
		return false
	}
	form := matrixFloats3
	if g.b.Coding == Float16 {
		form = matrixFloats5
	}
	c, a := any(g.c).(Matrix[float32]), any(g.a).(Matrix[float32])
	x := newMatrixGemm(c, g.b, any(g.ep).(Epilogue[float32]), form)
	const pieces = 3
	x.lda = matrixLine(x.tiles * 64 * pieces)
	// A Run of one task lends the caller's scratch without taking the workers.
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		split := parallel.Scratch[uint16](w, 0, ceilTo(c.Rows, matrixRowTile)*x.lda/2)
		x.a = unsafe.Pointer(unsafe.SliceData(split))
		rows := max(1, quantizeTask/g.b.K)
		parallel.Run(tasks(c.Rows, rows), func(_ *parallel.Worker, t int) {
			for i := t * rows; i < min((t+1)*rows, c.Rows); i++ {
				splitRow(split[i*x.lda/2:], a.Data[a.at(i, 0):][:g.b.K])
			}
		})
		x.run()
	})
	return true
}

// splitRow cuts a row into pieces, filled up with zeros to a whole tile.
func splitRow(dst []uint16, x []float32) {
	whole := len(x) / 32
	splitRowSIMD(dst, x[:32*whole])
	if rest := x[32*whole:]; len(rest) > 0 {
		var last [32]float32
		copy(last[:], rest)
		splitRowSIMD(dst[96*whole:], last[:])
	}
}

// matrices computes the product in tiles where there are such, and reports whether it did. A has been rounded.
func (g *dynamicGemm[T]) matrices() bool {
	if !g.matrix {
		return false
	}
	x := newMatrixGemm(any(g.c).(Matrix[float32]), g.b, any(g.ep).(Epilogue[float32]), g.form())
	x.a, x.lda = unsafe.Pointer(unsafe.SliceData(g.rounded)), g.lda
	x.sums, x.scales = g.sums, as32(g.scales)
	x.run()
	return true
}

// form is that of products in tiles: a tile may not reach into the next group.
func (g *dynamicGemm[T]) form() matrixForm {
	if g.groups > 1 && g.b.Group%64 != 0 {
		return matrixBytes32
	}
	return matrixBytes64
}

// run cuts C into tasks.
func (g *matrixGemm) run() {
	m, n, k := g.c.Rows, g.c.Cols, g.b.K
	cols, rows := ceilTo(min(n, matrixCols), matrixStrip), m
	if threads := parallel.Threads(); m*n*k >= gemmSplit && threads > 1 {
		for tasks(m, rows)*tasks(n, cols) < gemmTasks*threads {
			switch {
			case cols > matrixStrip:
				cols = ceilTo(cols/2, matrixStrip)
			case rows > 2*matrixUnit:
				rows = ceilTo(rows/2, matrixUnit)
			default:
				threads = 0
			}
		}
	}
	across := tasks(n, cols)
	parallel.Run(across*tasks(m, rows), func(w *parallel.Worker, t int) {
		i, j := t/across*rows, t%across*cols
		g.block(w, i, min(i+rows, m), j, min(j+cols, n))
	})
}

// matrixStripOf is B in the columns of one call.
type matrixStripOf struct {
	codes unsafe.Pointer
	panel int // bytes between its two panels, 0 if it has one
	s     []float32
	lds   int
	z     []uint8
	ldz   int
}

// block computes rows i0 to i1, columns j0 to j1 of C.
func (g *matrixGemm) block(w *parallel.Worker, i0, i1, j0, j1 int) {
	var strips [matrixCols / matrixStrip]matrixStripOf
	n := tasks(j1-j0, matrixStrip)
	g.prepare(w, strips[:n], j0, j1)
	buf := parallel.Scratch[float32](w, slotNarrow, 2*matrixUnit*matrixStrip)
	held := max(1, matrixHeld/(g.lda*matrixUnit)) * matrixUnit
	for i := i0; i < i1; i += held {
		end := min(i+held, i1)
		for q := range n {
			g.strip(w, buf, &strips[q], i, end, j0+q*matrixStrip, min(j0+(q+1)*matrixStrip, j1))
		}
		finishBlock(g.c, g.ep, i, end, j0, j1)
	}
}

// strip computes rows i0 to i1 of the columns of a strip.
func (g *matrixGemm) strip(w *parallel.Worker, buf []float32, s *matrixStripOf, i0, i1, j0, j1 int) {
	c, ldc := g.c.Data[g.c.at(i0, j0):], g.c.RowStride
	partial := j1-j0 < matrixStrip
	if partial {
		c, ldc = parallel.Scratch[float32](w, 1, (i1-i0)*matrixStrip), matrixStrip
	}
	rows := max(1, matrixWork/(g.b.K*matrixUnit)) * matrixUnit
	for i := i0; i < i1; i += rows {
		g.call(s, i, min(rows, i1-i), &c[(i-i0)*ldc], ldc, buf)
	}
	if partial {
		for i := range i1 - i0 {
			copy(g.c.Data[g.c.at(i0+i, j0):][:j1-j0], c[i*ldc:])
		}
	}
}

// prepare makes the strips of columns j0 to j1: their scales, and their codes as tiles read them.
func (g *matrixGemm) prepare(w *parallel.Worker, strips []matrixStripOf, j0, j1 int) {
	g.params(w, strips, j0, j1)
	direct, each := g.direct()
	var wide []byte
	if !direct {
		wide = parallel.Scratch[byte](w, slotWide, tasks(j1-j0, PanelCols)*each)
	}
	for q := range strips {
		j := j0 + q*matrixStrip
		s := &strips[q]
		s.panel = each
		if j+PanelCols >= j1 {
			s.panel = 0
		}
		if direct {
			s.codes = g.b.codeAt(j / PanelCols * g.b.panelLen())
			continue
		}
		for p := j; p < min(j+matrixStrip, j1); p += PanelCols {
			dst := wide[(p-j0)/PanelCols*each:][:each]
			if p == j {
				s.codes = unsafe.Pointer(unsafe.SliceData(dst))
			}
			g.convert(dst, p)
		}
	}
}

// direct reports whether panels are read where they are, which they can be if their codes are those that are multiplied and make
// whole tiles, and the bytes from one panel to the next.
func (g *matrixGemm) direct() (direct bool, panel int) {
	q := g.b
	switch {
	case g.form == matrixFloats3 && q.Coding == BFloat16 && q.K%32 == 0:
		return true, 2 * q.panelLen()
	case g.form == matrixBytes64 && q.Coding == Code8 && tasks(q.K, 4)%16 == 0:
		return true, q.panelLen()
	case g.form == matrixBytes32 && q.Coding == Code8 && tasks(q.K, 4)%8 == 0:
		return true, q.panelLen()
	}
	size := 1024 * g.tiles
	switch g.form {
	case matrixBytes32:
		size /= 2
	case matrixFloats5:
		size *= 2
	}
	return false, size
}

// convert writes the tiles of the panel that begins at column j, filled up with zeros.
func (g *matrixGemm) convert(dst []byte, j int) {
	q := g.b
	at, end := j/PanelCols*q.panelLen(), (j/PanelCols+1)*q.panelLen()
	switch {
	case q.Coding == Float16:
		splitFloat16(bytes16(dst), q.Halves[at:end])
	case q.Coding == BFloat16:
		d := bytes16(dst)
		n := copy(d, q.Halves[at:end])
		clear(d[n:])
		if q.K%2 != 0 {
			for c := n - 31; c < n; c += 2 {
				d[c] = 0
			}
		}
	case g.form == matrixFloats3:
		g.pairs(bytes16(dst), j)
	case q.Coding == Code8:
		clear(dst[copy(dst, q.Codes[at:end]):])
	default:
		unpackCodes4SIMD(dst, q.Codes[at:end])
		clear(dst[2*(end-at):])
	}
}

// bytes16 views bytes as numbers of 16 bits.
func bytes16(x []byte) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(x))), len(x)/2)
}

// splitFloat16 cuts the rows of a panel of FP16 into pieces, filled up with zeros.
func splitFloat16(dst, codes []uint16) {
	const tile = 32 * PanelCols
	whole := len(codes) / tile
	splitFloat16SIMD(dst, codes[:whole*tile])
	if rest := codes[whole*tile:]; len(rest) > 0 {
		var last [tile]uint16
		copy(last[:], rest)
		splitFloat16SIMD(dst[2*whole*tile:], last[:])
	}
}

// pairs widens integers to BF16: code − zero point, which a BF16 holds exactly.
func (g *matrixGemm) pairs(dst []uint16, j int) {
	q := g.b
	var params panelParams
	at, group := j/PanelCols*q.panelLen(), q.groupRows()
	if q.Zeros == nil {
		group = q.K
	}
	rows := q.Coding.StepRows()
	for p := 0; p < q.K; p += group {
		params.load(q, p/q.groupRows(), j)
		steps := tasks(min(group, q.K-p), rows)
		pairCodesSIMD(q.Coding, dst[p*PanelCols:], q.Codes[at+p/rows*64:][:64*steps], &params.zeros)
	}
	clear(dst[ceilTo(q.K, rows)*PanelCols:])
}

// params finds the scales and zero points of strips.
func (g *matrixGemm) params(w *parallel.Worker, strips []matrixStripOf, j0, j1 int) {
	q := g.b
	if !q.Coding.Integer() {
		return
	}
	integers := g.form != matrixFloats3
	own := len(q.Scales) > 1
	cols, groups := len(strips)*matrixStrip, q.Groups()
	var s []float32
	var z []uint8
	if !own || (j1-j0)%matrixStrip != 0 {
		s = parallel.Scratch[float32](w, slotScales, groups*cols)
		if integers && q.Zeros != nil {
			z = parallel.Scratch[uint8](w, slotZeros, groups*cols)
		}
		var p panelParams
		for at := 0; at < groups*cols; at += PanelCols {
			if j := j0 + at%cols; j < j1 {
				p.load(q, at/cols, j)
			}
			copy(s[at:], p.scales[:])
			if z != nil {
				copy(z[at:], p.zeros[:])
			}
		}
	}
	for i := range strips {
		t, from := &strips[i], i*matrixStrip
		if s == nil {
			t.s, t.lds = q.Scales[j0+from:], q.N
			if integers && q.Zeros != nil {
				t.z, t.ldz = q.Zeros[j0+from:], q.N
			}
			continue
		}
		t.s, t.lds = s[from:], cols
		if z != nil {
			t.z, t.ldz = z[from:], cols
		}
	}
}
