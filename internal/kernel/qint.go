package kernel

import (
	"fmt"
	"math"
	"unsafe"

	"stheno/internal/parallel"
)

// GemmDynamic computes C = Â·B for B of Code8 or Code4 over the worker pool in integer arithmetic, then the epilogue. Each row
// of A is rounded to integers of 8 bits,
//
//	Â(i, p) = sx(i)·q(i, p),  sx(i) = max_p |A(i, p)| / 127,  q(i, p) = round(A(i, p)/sx(i)), ties to even
//
// the products of integers are summed exactly, group by group, and only the sums are scaled:
//
//	C(i, j) = sx(i)·Σ_g s(g, j)·Σ_p q(i, p)·(code(p, j) − zero(g, j)) + bias(j)
//
// A row with a NaN or an infinity gives a row of NaN. A largest magnitude below 2⁻¹⁰⁰ is taken for 2⁻¹⁰⁰. A (m×k) has a column
// stride of 1, C (m×n) too. The result does not depend on the number of threads; without a bias and with one group it is the
// same on every instruction set but for two roundings.
func GemmDynamic[T Float](c, a Matrix[T], b *Quantized, ep Epilogue[T]) {
	gemmRounded(a, 0, []QuantizedProduct[T]{{c, b, ep}})
}

// GemmStatic is GemmDynamic with one scale sx, given beforehand, for all rows of A:
//
//	q(i, p) = clamp(round(A(i, p)·(1/sx)), −127, 127)
//
// sx is rounded to T and lies between 2⁻¹⁰⁰ and 2¹⁰⁰.
func GemmStatic[T Float](c, a Matrix[T], b *Quantized, sx float64, ep Epilogue[T]) {
	if !(sx >= 0x1p-100 && sx <= 0x1p100) {
		panic(fmt.Sprintf("kernel: GemmStatic: got a scale of %v, want 2^-100 to 2^100", sx))
	}
	gemmRounded(a, T(sx), []QuantizedProduct[T]{{c, b, ep}})
}

// gemmRounded is GemmDynamic, or GemmStatic if there is a scale, for products with matrices that are coded alike.
func gemmRounded[T Float](a Matrix[T], static T, products []QuantizedProduct[T]) {
	b := products[0].B
	for _, p := range products {
		checkQuantized(p.C, a, p.B.K, p.B.N, p.B, p.Epilogue)
		if !p.B.Coding.Integer() {
			panic(fmt.Sprintf("kernel: integer products: got coding %d, want Code8 or Code4", p.B.Coding))
		}
	}
	m, k := a.Rows, b.K
	if m == 0 {
		return
	}
	// A Run of one task lends the caller's scratch without taking the workers.
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		g := &dynamicGemm[T]{a: a, b: b, static: static, simd: codesVectorized[T]()}
		g.short = g.simd && shortActivations(b.Coding)
		g.matrix = m >= matrixMinRows && k > 0 && matrixVectorized[T]()
		g.lda, g.groups = ceilTo(k, rowBlock), b.Groups()
		length := m
		switch {
		case g.matrix:
			g.lda, length = matrixLine(k), ceilTo(m, matrixRowTile)
		case g.short:
			g.lda *= 2
		}
		g.rounded = parallel.Scratch[int8](w, 0, length*g.lda)
		g.sums = parallel.Scratch[int32](w, 1, m*g.groups)
		g.scales = parallel.Scratch[T](w, 2, m)
		rows := max(1, quantizeTask/max(1, k))
		parallel.Run(tasks(m, rows), func(w *parallel.Worker, t int) {
			blocks := parallel.Scratch[int32](w, 0, tasks(k, rowBlock))
			for i := t * rows; i < min((t+1)*rows, m); i++ {
				g.quantizeRow(w, i, blocks)
			}
		})
		if g.vectors(products) {
			return
		}
		for _, p := range products {
			if g.c, g.b, g.ep = p.C, p.B, p.Epilogue; p.C.Cols > 0 && !g.matrices() {
				g.run(m, p.C.Cols, k)
			}
		}
	})
}

const (
	rowBlock     = 32      // activations that are rounded and summed together
	quantizeTask = 1 << 14 // activations that a task rounds
	dynamicRows  = 96      // rows of activations that stay in the second-level cache while panels pass
	dynamicCols  = 128     // columns of a task
)

// dynamicGemm is one product under way.
type dynamicGemm[T Float] struct {
	c, a   Matrix[T]
	b      *Quantized
	static T // the scale of all rows, 0 for one of each
	ep     Epilogue[T]

	simd, short bool   // whether assembly does it, and wants activations of 16 bits
	matrix      bool   // whether it does it in tiles, which take bytes
	rounded     []int8 // q, row by row with stride lda, zeros up to it; pairs of bytes if short
	lda         int    // in bytes
	groups      int
	sums        []int32 // for row i and group g at i·groups+g: −Σq, times the zero point where that is the same for all
	scales      []T     // sx
}

// quantizeRow fills row i of rounded, sums and scales. blocks is scratch for one sum a block.
func (g *dynamicGemm[T]) quantizeRow(w *parallel.Worker, i int, blocks []int32) {
	k := g.b.K
	x := tail(g.a.Data, g.a.at(i, 0))[:k]
	largest, limit := float64(AbsMax(x)), math.MaxFloat64
	if is32[T]() {
		limit = math.MaxFloat32
	}
	inv := T(127 / max(largest, 0x1p-100))
	g.scales[i] = T(max(largest, 0x1p-100) / 127)
	if g.static > 0 {
		g.scales[i], inv = g.static, 1/g.static
		if end := 127 * g.static; T(largest) > end {
			clamped := parallel.Scratch[T](w, 1, k)
			for p, v := range x {
				clamped[p] = min(max(v, -end), end)
			}
			x = clamped
		}
	}
	if !(largest <= limit) {
		g.scales[i], inv = T(math.NaN()), 0
	}
	dst := g.rounded[i*g.lda:][:g.lda]
	if inv == 0 {
		clear(dst)
		clear(blocks)
	} else {
		g.roundRow(dst, x, inv, blocks)
	}
	sums := g.sums[i*g.groups:][:g.groups]
	clear(sums)
	factor := int32(-1)
	if g.b.Zeros == nil {
		factor = -int32(g.b.Coding.Middle())
	}
	for b, s := range blocks {
		sums[b*rowBlock/g.b.groupRows()] += factor * s
	}
}

// roundRow rounds a row, fills it up with zeros and sums its blocks.
func (g *dynamicGemm[T]) roundRow(dst []int8, x []T, inv T, blocks []int32) {
	from := 0
	if g.simd {
		from = len(x) / rowBlock * rowBlock
		roundRowSIMD(unsafe.Pointer(unsafe.SliceData(dst)), g.short, as32(x[:from]), float32(inv), blocks)
	}
	clear(blocks[from/rowBlock:])
	for p := from; p < tasks(len(x), rowBlock)*rowBlock; p++ {
		var q int32
		if p < len(x) {
			q = int32(math.RoundToEven(float64(x[p] * inv)))
		}
		blocks[p/rowBlock] += q
		if g.short {
			dst[2*p], dst[2*p+1] = int8(q), int8(q>>8)
		} else {
			dst[p] = int8(q)
		}
	}
}

// run cuts C into tasks.
func (g *dynamicGemm[T]) run(m, n, k int) {
	cols := ceilTo(min(n, dynamicCols), 64)
	rows := m
	if threads := parallel.Threads(); m*n*k >= gemmSplit && threads > 1 {
		for tasks(m, rows)*tasks(n, cols) < gemmTasks*threads {
			switch {
			case cols > 64:
				cols = 64
			case rows > 48:
				rows = ceilTo(rows/2, tileRows)
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

// block computes rows i0 to i1, columns j0 to j1 of C.
func (g *dynamicGemm[T]) block(w *parallel.Worker, i0, i1, j0, j1 int) {
	s, lds, z, ldz := g.b.stripParams(w, j0, j1, false)
	for i := i0; i < i1; i += dynamicRows {
		end := min(i+dynamicRows, i1)
		for j := j0; j < j1; {
			panels := 1
			if j1-j >= 64 {
				panels = 4
			}
			cols := panels * PanelCols
			c, ldc := g.c.Data[g.c.at(i, j):], g.c.RowStride
			partial := j+cols > j1
			if partial {
				c, ldc = parallel.Scratch[T](w, 1, (end-i)*cols), cols
			}
			t := intTile[T]{
				coding: g.b.Coding, panels: panels, rows: end - i, steps: tasks(g.b.K, g.b.Coding.StepRows()),
				per: tasks(g.b.groupRows(), g.b.Coding.StepRows()), a: g.rounded[i*g.lda:], lda: g.lda,
				codes: g.b.Codes[j/PanelCols*g.b.panelLen():], panel: g.b.panelLen(),
				sums: g.sums[i*g.groups:], ldsums: g.groups, s: s[j-j0:], lds: lds, ldz: ldz,
				sx: g.scales[i:], c: c, ldc: ldc,
			}
			if z != nil {
				t.z = z[j-j0:]
			}
			t.compute(g.simd)
			if partial {
				for r := range end - i {
					copy(g.c.Data[g.c.at(i+r, j):][:j1-j], c[r*ldc:])
				}
			}
			j += cols
		}
		finishBlock(g.c, g.ep, i, end, j0, j1)
	}
}

// intTile is one product of rounded rows and panels of codes.
type intTile[T Float] struct {
	coding       Coding
	panels, rows int
	steps, per   int // of k in all, and in a group
	a            []int8
	lda          int
	codes        []uint8
	panel        int // bytes between panels
	sums         []int32
	ldsums       int
	s            []float32
	lds          int
	z            []uint8
	ldz          int
	sx           []T
	c            []T
	ldc          int
}

// compute sets C.
func (t *intTile[T]) compute(simd bool) {
	if t.steps == 0 {
		for i := range t.rows {
			clear(t.c[i*t.ldc:][:t.panels*PanelCols])
		}
		return
	}
	if simd {
		t.computeSIMD()
		return
	}
	for i := range t.rows {
		for j := range t.panels {
			t.generic(i, j)
		}
	}
}

// generic is the product of row i and panel j in portable Go.
func (t *intTile[T]) generic(i, j int) {
	c := t.c[i*t.ldc+j*PanelCols:][:PanelCols]
	clear(c)
	rows := t.coding.StepRows()
	a, codes := t.a[i*t.lda:], t.codes[j*t.panel:]
	for from, g := 0, 0; from < t.steps; from, g = from+t.per, g+1 {
		var sums [PanelCols]int32
		for step := from; step < min(from+t.per, t.steps); step++ {
			x, words := a[step*rows:][:rows], codes[step*64:][:64]
			for col := range sums {
				word := words[4*col:][:4]
				for p, code := range word {
					if rows == 8 {
						sums[col] += int32(x[p])*int32(code&15) + int32(x[4+p])*int32(code>>4)
					} else {
						sums[col] += int32(x[p]) * int32(code)
					}
				}
			}
		}
		offset := t.sums[i*t.ldsums+g]
		for col, sum := range sums {
			if t.z == nil {
				sum += offset
			} else {
				sum += offset * int32(t.z[g*t.ldz+j*PanelCols+col])
			}
			c[col] += T(sum) * T(t.s[g*t.lds+j*PanelCols+col]) * t.sx[i]
		}
	}
}
