//go:build !purego

package kernel

import "unsafe"

// kvCodesSIMD is AddProduct in assembly; it reports whether there is any.
func kvCodesSIMD(m *KVCodes, y, x, tmp []float32) bool {
	py, px, pt := unsafe.SliceData(y), unsafe.SliceData(x), unsafe.SliceData(tmp)
	ps, pm, pc := unsafe.SliceData(m.Scales), unsafe.SliceData(m.Mins), unsafe.SliceData(m.Codes)
	switch {
	case active == AVX512 && m.Bits == 8:
		kvCodes8AVX512(py, px, pt, ps, pm, pc, m.Rows, m.Cols/16, m.Ahead, m.AheadRows)
	case active == AVX512:
		kvCodes4AVX512(py, px, pt, ps, pm, pc, m.Rows, m.Cols/16, m.Ahead, m.AheadRows)
	case active == AVX2 && m.Bits == 8:
		kvCodes8AVX2(py, px, pt, ps, pm, pc, m.Rows, m.Cols/16, m.Ahead, m.AheadRows)
	case active == AVX2:
		kvCodes4AVX2(py, px, pt, ps, pm, pc, m.Rows, m.Cols/16, m.Ahead, m.AheadRows)
	default:
		return false
	}
	return true
}

// kvHalvesSIMD is AddVecMulHalf likewise.
func kvHalvesSIMD(y, x []float32, w []uint16, ld, ahead int) bool {
	switch active {
	case AVX512:
		kvHalvesAVX512(unsafe.SliceData(y), unsafe.SliceData(x), unsafe.SliceData(w), 2*ld, len(x), len(y)/16, ahead)
	case AVX2:
		kvHalvesAVX2(unsafe.SliceData(y), unsafe.SliceData(x), unsafe.SliceData(w), 2*ld, len(x), len(y)/16, ahead)
	default:
		return false
	}
	return true
}
