//go:build !purego

package kernel

import (
	"math"
	"unsafe"
)

// fixedVectorized reports whether a row is multiplied with integers in fixed point.
func fixedVectorized[T Float](c Coding) bool {
	return is32[T]() && active == AVX512 && haveVNNI && c.Integer()
}

// fixRowSIMD cuts x, whole blocks, and reports whether it is finite.
//
//go:noinline
func fixRowSIMD(dst []int8, x, scales []float32, sums []int32, factor int32) bool {
	if len(x) == 0 {
		return true
	}
	return fixRowAVX512(&dst[0], &x[0], len(x)/fixedBlock, &scales[0], &sums[0], factor) <= math.Float32bits(math.MaxFloat32)
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

// callFixed is one call of assembly, for panels from element at of the codes on.
//
//go:noinline
func (v *vectorProduct) callFixed(r *fixedRow, y []float32, at, width, j, panels int) {
	q := v.q
	x, scales, sums, codes := &r.x[0], &r.scales[0], &r.sums[0], &q.Codes[at]
	s, py := &v.s[j*PanelCols], unsafe.SliceData(y)
	var z *uint8
	ldz := 0
	if q.Zeros != nil {
		z, ldz = &v.z[j*PanelCols], v.ldz
	}
	steps, per := tasks(q.K, q.Coding.StepRows()), tasks(q.groupRows(), q.Coding.StepRows())
	switch {
	case panels == 4 && q.Coding == Code8:
		fixed8x4AVX512(x, scales, sums, codes, width, steps, per, s, 4*v.lds, z, ldz, py)
	case panels == 4:
		fixed4x4AVX512(x, scales, sums, codes, width, steps, per, s, 4*v.lds, z, ldz, py)
	case q.Coding == Code8:
		fixed8x1AVX512(x, scales, sums, codes, width, steps, per, s, 4*v.lds, z, ldz, py)
	default:
		fixed4x1AVX512(x, scales, sums, codes, width, steps, per, s, 4*v.lds, z, ldz, py)
	}
}
