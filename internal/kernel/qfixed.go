package kernel

import "stheno/internal/parallel"

// fixedBlock is the number of consecutive elements of a fixed row that share a power of two.
const fixedBlock = 32

// fixedDigits is the number of bytes that an element is made of.
const fixedDigits = 4

// fixedRow is a row of float32 in fixed point, for products with integers by instructions that multiply bytes:
//
//	x(p) ≈ 2⁻ᵗ·Σ_l 2⁸ˡ·d(p, l),  −128 ≤ d < 128,  l < 4
//
// with t = 29 − ⌊log₂ max|x|⌋ over each block of 32, so that an element is off by at most 2⁻³⁰ of the block's largest: those
// within 2⁷ of it are exact, as a float32 has 24 bits. Below 2⁻⁹⁷ the error is 2⁻¹²⁷ at most. The products of digits and codes are
// summed exactly, digit by digit, within a block.
//
// For codes of 4 bits t is 25 − ⌊log₂ max|x|⌋ and the error at most 2⁻²⁶ (below 2⁻⁹⁷, 2⁻¹²³): two numbers are multiplied together, as
// the comment on the assembly says, which takes the other bits.
type fixedRow struct {
	x      []int8    // of block b, d(p, l) at 128b + 16·(p/4) + 4l + p%4
	scales []float32 // of block b, 2⁻ᵗ and 2¹⁶⁻ᵗ
	sums   []int32   // of block b and digit l, −Σd, times the zero point where that is the same for all

	// rounded says that it is a row of GemmDynamic instead: x of one byte each, one scale, and sums of groups.
	rounded bool
}

// fixedRows cuts the rows of A into w's scratch. There is no digit of a row that is not finite.
func (g *quantizedGemm[T]) fixedRows(w *parallel.Worker) []fixedRow {
	k, blocks := g.b.K, tasks(g.b.K, fixedBlock)
	factor := int32(-1)
	if g.b.Zeros == nil {
		factor = -int32(g.b.Coding.Middle())
	}
	m := g.a.Rows
	x := parallel.Scratch[int8](w, 0, m*blocks*fixedBlock*fixedDigits)
	scales := parallel.Scratch[float32](w, 1, m*blocks*2)
	sums := parallel.Scratch[int32](w, 2, m*blocks*fixedDigits)
	rows := make([]fixedRow, 0, quantizedVectorRows)
	for i := range m {
		r := fixedRow{x[i*blocks*fixedBlock*fixedDigits:], scales[i*blocks*2:], sums[i*blocks*fixedDigits:], false}
		if !r.fix(g.b.Coding, as32(g.a.Data[g.a.at(i, 0):][:k]), factor) {
			r = fixedRow{}
		}
		rows = append(rows, r)
	}
	return rows
}

// fix sets r to x and reports whether x is finite.
func (r *fixedRow) fix(c Coding, x []float32, factor int32) bool {
	whole := len(x) / fixedBlock
	finite := fixRowSIMD(c, r.x, x[:whole*fixedBlock], r.scales, r.sums, factor)
	if rest := x[whole*fixedBlock:]; len(rest) > 0 {
		var last [fixedBlock]float32
		copy(last[:], rest)
		finite = fixRowSIMD(c, r.x[whole*fixedBlock*fixedDigits:], last[:], r.scales[2*whole:], r.sums[fixedDigits*whole:], factor) && finite
	}
	return finite
}

// vectors computes products of one rounded row as those of one in fixed point, where there is assembly for it, and reports whether it
// did.
func (g *dynamicGemm[T]) vectors(products []QuantizedProduct[T]) bool {
	if g.a.Rows > 1 || g.b.K == 0 || !fixedVectorized[T](g.b.Coding) {
		return false
	}
	r := &fixedRow{x: g.rounded, scales: as32(g.scales), sums: g.sums, rounded: true}
	vectorTasks(products, func(w *parallel.Worker, i, j0, j1 int) {
		p := products[i]
		for j := j0; j < j1; j += vectorCols {
			end := min(j+vectorCols, j1)
			y, whole := vectorResult(w, p.C, 0, j, end)
			v := newVectorProduct(w, p.B, j, end, false)
			v.computeFixed(r, as32(whole))
			if len(whole) > len(y) {
				copy(y, whole)
			}
		}
		finishBlock(p.C, p.Epilogue, 0, 1, j0, j1)
	})
	return true
}
