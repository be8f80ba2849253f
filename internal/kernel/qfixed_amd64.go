//go:build !purego

package kernel

import "unsafe"

// fixedVectorized reports whether a row is multiplied with integers in fixed point.
func fixedVectorized[T Float](c Coding) bool {
	return is32[T]() && active == AVX512 && haveVNNI && c.Integer()
}

// fixRowSIMD cuts x, whole blocks, for codes c and reports whether it is finite.
//
//go:noinline
func fixRowSIMD(c Coding, dst []int8, x, scales []float32, sums []int32, factor int32) bool {
	if len(x) == 0 {
		return true
	}
	const top = 0x7f7fffff // the bits of the largest number
	if c == Code4 {
		return fixRow4AVX512(&dst[0], &x[0], len(x)/fixedBlock, &scales[0], &sums[0], factor) <= top
	}
	return fixRow8AVX512(&dst[0], &x[0], len(x)/fixedBlock, &scales[0], &sums[0], factor) <= top
}

// computeFixed sets y, of 16·panels elements, to a row times the panels.
func (v *vectorProduct) computeFixed(r *fixedRow, y []float32) {
	width := v.q.panelLen()
	for j := 0; j < v.panels; {
		panels := 1
		if v.panels-j >= 4 {
			panels = 4
		}
		v.callFixed(r, y[j*PanelCols:], v.at+j*width, width, j, panels)
		j += panels
	}
}

// What a call asks for ahead.
const (
	fixedAhead = 16 // steps of codes, as the assembly has it
	fixedNear  = 8  // groups of scales
)

// callFixed is one call of assembly, for panels from element at of the codes on.
//
//go:noinline
func (v *vectorProduct) callFixed(r *fixedRow, y []float32, at, width, j, panels int) {
	q := v.q
	x, scales, sums, codes := &r.x[0], &r.scales[0], &r.sums[0], &q.Codes[at]
	s, lds, py := &v.s[j*PanelCols], 4*v.lds, unsafe.SliceData(y)
	var z *uint8
	ldz := 0
	if q.Zeros != nil {
		z, ldz = &v.z[j*PanelCols], v.ldz
	}
	steps, per := tasks(q.K, q.Coding.StepRows()), tasks(q.groupRows(), q.Coding.StepRows())
	// After the last group's scales come the first ones of the next columns.
	groups, line := q.Groups(), 4*vectorCols
	ahead := min(fixedNear, groups)
	until, back := groups-ahead, line-groups*lds
	from := ahead * lds
	if until == 0 {
		from += back
	}
	near := uintptr(unsafe.Pointer(s)) + uintptr(from) // may lie beyond the scales
	blocks := (steps - fixedAhead) * q.Coding.StepRows() / fixedBlock
	switch {
	case r.rounded && panels == 4 && q.Coding == Code8:
		rounded8x4AVX512(x, scales, sums, codes, width, steps, per, s, lds, z, ldz, py, near, until, back, blocks)
	case r.rounded && panels == 4:
		rounded4x4AVX512(x, scales, sums, codes, width, steps, per, s, lds, z, ldz, py, near, until, back, blocks)
	case r.rounded && q.Coding == Code8:
		rounded8x1AVX512(x, scales, sums, codes, width, steps, per, s, lds, z, ldz, py, near, until, back, blocks)
	case r.rounded:
		rounded4x1AVX512(x, scales, sums, codes, width, steps, per, s, lds, z, ldz, py, near, until, back, blocks)
	case panels == 4 && q.Coding == Code8:
		fixed8x4AVX512(x, scales, sums, codes, width, steps, per, s, lds, z, ldz, py, near, until, back, blocks)
	case panels == 4:
		fixed4x4AVX512(x, scales, sums, codes, width, steps, per, s, lds, z, ldz, py, near, until, back, blocks)
	case q.Coding == Code8:
		fixed8x1AVX512(x, scales, sums, codes, width, steps, per, s, lds, z, ldz, py, near, until, back, blocks)
	default:
		fixed4x1AVX512(x, scales, sums, codes, width, steps, per, s, lds, z, ldz, py, near, until, back, blocks)
	}
}
