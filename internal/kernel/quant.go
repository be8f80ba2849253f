package kernel

import (
	"fmt"
	"unsafe"

	"stheno/internal/parallel"
)

// Coding says how the numbers of a Quantized matrix are stored.
type Coding int

// The codings.
const (
	Float16  Coding = iota // IEEE 754 binary16
	BFloat16               // the upper half of a float32
	Code8                  // scale·(code − zero point), a code of 8 bits
	Code4                  // scale·(code − zero point), a code of 4 bits
)

// PanelCols is the number of columns of a panel of codes.
const PanelCols = 16

// MaxQuantizedRows is the largest K of a Quantized matrix: a sum of K products of codes, 255·127·K, fits into 32 bits.
const MaxQuantizedRows = 1 << 16

// Quantized is a K×N matrix in one of the codings, the right operand of a product. Columns lie in panels of 16, the last one
// filled up with codes of 0 or zero points; a panel is a run of steps of 64 bytes (32 for Float16), each a few rows:
//
//	Float16   1 row    code(p, j) at half (step·16 + j), step = p
//	BFloat16  2 rows   at half (step·32 + 2j + p%2), step = p/2
//	Code8     4 rows   at byte (step·64 + 4j + p%4), step = p/4
//	Code4     8 rows   at byte (step·64 + 4j + p%4), the high nibble for p%8 ≥ 4, step = p/8
//
// counted from the panel's start, for column j of the panel. A word of 32 bits so holds consecutive rows of one column, which
// integer products and BF16 products want, and a panel read in order serves one row of activations as well as many. The
// layout is the same for every instruction set.
type Quantized struct {
	Coding Coding
	K, N   int
	Codes  []uint8  // of Code8 and Code4, CodeLen elements
	Halves []uint16 // of Float16 and BFloat16, CodeLen elements

	// Group is the number of consecutive rows that share scales, a multiple of 32; the last group may be shorter. 0 means all
	// rows.
	Group int
	// Scales of Code8 and Code4: one element for all of the matrix, or one for each group and column, scale(g, j) at g·N + j.
	Scales []float32
	// Zeros are the zero points, as many as Scales. Nil means 128 for Code8, 8 for Code4.
	Zeros []uint8
}

// StepRows is the number of rows in a step of a panel.
func (c Coding) StepRows() int {
	switch c {
	case Float16:
		return 1
	case BFloat16:
		return 2
	case Code8:
		return 4
	}
	return 8
}

// Integer reports whether codes are integers with scales.
func (c Coding) Integer() bool { return c == Code8 || c == Code4 }

// stepLen is the number of elements of Codes or Halves in a step.
func (c Coding) stepLen() int {
	switch c {
	case Float16:
		return 16
	case BFloat16:
		return 32
	}
	return 64
}

// Middle is the zero point of a symmetric code.
func (c Coding) Middle() uint8 {
	if c == Code4 {
		return 8
	}
	return 128
}

// CodeLen is the number of elements that the codes of a k×n matrix take, panels filled up: of Halves for Float16 and BFloat16,
// of Codes for the others.
func (c Coding) CodeLen(k, n int) int {
	return tasks(n, PanelCols) * tasks(k, c.StepRows()) * c.stepLen()
}

// groupRows is the number of rows of a group.
func (q *Quantized) groupRows() int {
	if q.Group == 0 {
		return max(1, q.K)
	}
	return q.Group
}

// Groups is the number of groups of rows.
func (q *Quantized) Groups() int { return max(1, tasks(q.K, q.groupRows())) }

// panelLen is the number of elements of a panel.
func (q *Quantized) panelLen() int { return tasks(q.K, q.Coding.StepRows()) * q.Coding.stepLen() }

// check panics when the parts do not fit together.
func (q *Quantized) check() {
	want := q.Coding.CodeLen(q.K, q.N)
	if !q.Coding.Integer() {
		checkLen("halves", len(q.Halves), want)
		return
	}
	checkLen("codes", len(q.Codes), want)
	if n := q.Groups() * q.N; len(q.Scales) != 1 && len(q.Scales) != n {
		panic(fmt.Sprintf("kernel: got %d scales, want 1 or %d", len(q.Scales), n))
	}
	if q.Zeros != nil && len(q.Zeros) != len(q.Scales) {
		panic(fmt.Sprintf("kernel: got %d zero points, want %d", len(q.Zeros), len(q.Scales)))
	}
	if q.Group%32 != 0 || q.K > MaxQuantizedRows {
		panic(fmt.Sprintf("kernel: got groups of %d of %d rows, want a multiple of 32, and at most %d rows", q.Group, q.K, MaxQuantizedRows))
	}
}

// index is the place of element (p, j) in Codes or Halves.
func (q *Quantized) index(p, j int) int {
	panel, col := j/PanelCols*q.panelLen(), j%PanelCols
	switch q.Coding {
	case Float16:
		return panel + p*16 + col
	case BFloat16:
		return panel + p/2*32 + 2*col + p%2
	case Code8:
		return panel + p/4*64 + 4*col + p%4
	}
	return panel + p/8*64 + 4*col + p%4
}

// Code returns the bits of element (p, j).
func (q *Quantized) Code(p, j int) int {
	switch i := q.index(p, j); {
	case !q.Coding.Integer():
		return int(q.Halves[i])
	case q.Coding == Code4:
		return int(q.Codes[i] >> (p & 4) & 15)
	default:
		return int(q.Codes[i])
	}
}

// SetCode stores the bits of element (p, j). p may go on to the end of the last step, and j to the end of the last panel.
func (q *Quantized) SetCode(p, j, code int) {
	switch i := q.index(p, j); {
	case !q.Coding.Integer():
		q.Halves[i] = uint16(code)
	case q.Coding == Code4:
		shift := p & 4
		q.Codes[i] = q.Codes[i]&^(15<<shift) | uint8(code)<<shift
	default:
		q.Codes[i] = uint8(code)
	}
}

// param is the place of the scale of element (p, j).
func (q *Quantized) param(p, j int) int {
	if len(q.Scales) == 1 {
		return 0
	}
	return p/q.groupRows()*q.N + j
}

// Value is the number that element (p, j) stands for, the definition that every kernel is held to: a float32, the product of
// scale and (code − zero point) rounded once.
func (q *Quantized) Value(p, j int) float32 {
	code := q.Code(p, j)
	switch q.Coding {
	case Float16:
		return Float16Value(uint16(code))
	case BFloat16:
		return BFloat16Value(uint16(code))
	}
	return q.Scales[q.param(p, j)] * float32(code-q.zero(p, j))
}

// zero is the zero point of element (p, j).
func (q *Quantized) zero(p, j int) int {
	if q.Zeros == nil {
		return int(q.Coding.Middle())
	}
	return int(q.Zeros[q.param(p, j)])
}

// panelParams are the scales and zero points of a panel in one group.
type panelParams struct {
	scales [PanelCols]float32
	zeros  [PanelCols]uint8
}

// load reads the parameters of columns j to j+16 in group g; what it leaves beyond the last column does not matter.
func (b *panelParams) load(q *Quantized, g, j int) {
	n := min(PanelCols, q.N-j)
	if len(q.Scales) == 1 {
		for c := range n {
			b.scales[c] = q.Scales[0]
		}
	} else {
		copy(b.scales[:], q.Scales[g*q.N+j:][:n])
	}
	switch {
	case q.Zeros == nil:
		for c := range b.zeros {
			b.zeros[c] = q.Coding.Middle()
		}
	case len(q.Zeros) == 1:
		for c := range b.zeros {
			b.zeros[c] = q.Zeros[0]
		}
	default:
		copy(b.zeros[:], q.Zeros[g*q.N+j:][:n])
	}
}

// Scratch slots of stripParams.
const (
	slotScales = 10
	slotZeros  = 11
)

// stripParams returns the scales and zero points of columns j0 to j1, that of group g and column j at g·lds + j − j0: those of
// q where each panel has its own in full, a filled-up copy elsewhere. Unless explicit, zero points that are all the middle code
// are nil.
func (q *Quantized) stripParams(w *parallel.Worker, j0, j1 int, explicit bool) (s []float32, lds int, z []uint8, ldz int) {
	own := len(q.Scales) > 1 && (j1-j0)%PanelCols == 0
	if own && (q.Zeros != nil || !explicit) {
		if q.Zeros != nil {
			z, ldz = q.Zeros[j0:], q.N
		}
		return q.Scales[j0:], q.N, z, ldz
	}
	cols, groups := ceilTo(j1-j0, PanelCols), q.Groups()
	if own {
		z = parallel.Scratch[uint8](w, slotZeros, cols)
		for i := range z {
			z[i] = q.Coding.Middle()
		}
		return q.Scales[j0:], q.N, z, 0
	}
	s = parallel.Scratch[float32](w, slotScales, groups*cols)
	if q.Zeros != nil || explicit {
		z, ldz = parallel.Scratch[uint8](w, slotZeros, groups*cols), cols
	}
	var params panelParams
	for g := range groups {
		for j := 0; j < cols; j += PanelCols {
			params.load(q, g, j0+j)
			copy(s[g*cols+j:], params.scales[:])
			if z != nil {
				copy(z[g*cols+j:], params.zeros[:])
			}
		}
	}
	return s, cols, z, ldz
}

// codesVectorized reports whether the active instruction set has assembly for codes and T. NEON has none: codes are widened and
// multiplied in portable Go there, or by the tiles for floats.
func codesVectorized[T Float]() bool { return vectorized[T]() && active >= AVX2 }

// dequantize computes dst[(p−p0)·ldd + c] = Value(p, j+c) for p0 ≤ p < p1 and the 16 columns of the panel that begins at j; p0
// is a multiple of 8. Rows of dst up to the next multiple of 8 after p1 may be overwritten, and columns beyond N.
func dequantize[T Float](q *Quantized, dst []T, ldd, p0, p1, j int) {
	if p1 <= p0 {
		return
	}
	group, rows := q.groupRows(), q.Coding.StepRows()
	checkLen("dequantized", len(dst), (ceilTo(p1-p0, rows)-1)*ldd+PanelCols)
	var params panelParams
	for p0 < p1 {
		end := p1
		if q.Coding.Integer() {
			end = min(p1, (p0/group+1)*group)
			params.load(q, p0/group, j)
		}
		steps := tasks(end-p0, rows)
		at := j/PanelCols*q.panelLen() + p0/rows*q.Coding.stepLen()
		if codesVectorized[T]() {
			dequantizeSIMD(q, (*float32)(pointer(dst)), 4*ldd, at, steps, &params)
		} else {
			for p := p0; p < end; p++ {
				row := dst[(p-p0)*ldd:][:PanelCols]
				for c := range row {
					row[c] = T(q.panelValue(p, j+c, &params, c))
				}
			}
		}
		if end < p1 {
			dst = dst[(end-p0)*ldd:]
		}
		p0 = end
	}
}

// panelValue is Value with the parameters at hand, for columns that may lie beyond N.
func (q *Quantized) panelValue(p, j int, params *panelParams, c int) float32 {
	code := q.Code(p, j)
	switch q.Coding {
	case Float16:
		return Float16Value(uint16(code))
	case BFloat16:
		return BFloat16Value(uint16(code))
	}
	return params.scales[c] * float32(code-int(params.zeros[c]))
}

// codeAt is the address of element i of the codes.
func (q *Quantized) codeAt(i int) unsafe.Pointer {
	if q.Coding.Integer() {
		return unsafe.Pointer(&q.Codes[i])
	}
	return unsafe.Pointer(&q.Halves[i])
}

// DequantizeRows computes dst[(p−p0)·N + j] = Value(p, j) for p0 ≤ p < p1 and all columns; p0 is a multiple of 8.
func DequantizeRows(dst []float32, q *Quantized, p0, p1 int) {
	q.check()
	checkLen("dequantized", len(dst), (p1-p0)*q.N)
	var buf [dequantizeBlock * PanelCols]float32
	for j := 0; j < q.N; j += PanelCols {
		n := min(PanelCols, q.N-j)
		for p := p0; p < p1; p += dequantizeBlock {
			end := min(p+dequantizeBlock, p1)
			dequantize(q, buf[:], PanelCols, p, end, j)
			for i := range end - p {
				copy(dst[(p-p0+i)*q.N+j:][:n], buf[i*PanelCols:])
			}
		}
	}
}

// dequantizeBlock is how many rows DequantizeRows widens at a time.
const dequantizeBlock = 64
