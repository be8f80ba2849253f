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

// columnArgs are arguments of the functions of columns: all of one block.
func (m *KVCodes) columnArgs(at int) (codes *uint8, scales, mins *uint16) {
	return unsafe.SliceData(m.Codes[at:]), unsafe.SliceData(m.Scales), unsafe.SliceData(m.Mins)
}

// kvQuantizeColsSIMD is QuantizeCols of count columns of a block for 16·chunks rows.
func kvQuantizeColsSIMD(m *KVCodes, x []float32, ld, at, stride, chunks, count int) bool {
	c, s, l := m.columnArgs(at)
	px := unsafe.SliceData(x)
	switch {
	case active == AVX512 && m.Bits == 8:
		kvEncodeColumns8AVX512(c, s, l, px, ld, chunks, count, stride)
	case active == AVX512:
		kvEncodeColumns4AVX512(c, s, l, px, ld, chunks, count, stride)
	case active == AVX2 && m.Bits == 8:
		kvEncodeColumns8AVX2(c, s, l, px, ld, chunks, count, stride)
	case active == AVX2:
		kvEncodeColumns4AVX2(c, s, l, px, ld, chunks, count, stride)
	default:
		return false
	}
	return true
}

// kvDequantizeColsSIMD is DequantizeCols likewise.
func kvDequantizeColsSIMD(m *KVCodes, dst []float32, ld, at, stride, chunks, count int) bool {
	c, s, l := m.columnArgs(at)
	pd := unsafe.SliceData(dst)
	switch {
	case active == AVX512 && m.Bits == 8:
		kvDecodeColumns8AVX512(c, s, l, pd, ld, chunks, count, stride)
	case active == AVX512:
		kvDecodeColumns4AVX512(c, s, l, pd, ld, chunks, count, stride)
	case active == AVX2 && m.Bits == 8:
		kvDecodeColumns8AVX2(c, s, l, pd, ld, chunks, count, stride)
	case active == AVX2:
		kvDecodeColumns4AVX2(c, s, l, pd, ld, chunks, count, stride)
	default:
		return false
	}
	return true
}

// kvQuantizeRowSIMD is QuantizeRow of columns in a block, whose words begin with codes.
func kvQuantizeRowSIMD(codes []uint8, x []float32, e kvEncoder, mask uint32, shift int) bool {
	pc, px := unsafe.SliceData(codes), unsafe.SliceData(x)
	switch active {
	case AVX512:
		kvEncodeRowAVX512(pc, px, len(x), e.low, e.inverse, e.top, mask, shift)
	case AVX2:
		kvEncodeRowAVX2(pc, px, len(x), e.low, e.inverse, e.top, mask, shift)
	default:
		return false
	}
	return true
}

// kvDequantizeRowSIMD is DequantizeRows likewise.
func kvDequantizeRowSIMD(dst []float32, codes []uint8, scale, low float32, mask uint32, shift int) bool {
	pc, pd := unsafe.SliceData(codes), unsafe.SliceData(dst)
	switch active {
	case AVX512:
		kvDecodeRowAVX512(pd, pc, len(dst), scale, low, mask, shift)
	case AVX2:
		kvDecodeRowAVX2(pd, pc, len(dst), scale, low, mask, shift)
	default:
		return false
	}
	return true
}

func hadamardSIMD(x []float32, block int, norm float32) bool {
	if active != AVX512 && active != AVX2 {
		return false
	}
	px, n, wide := unsafe.SliceData(x), len(x)/block, active == AVX512
	switch {
	case block == 16 && wide:
		hadamard16AVX512(px, n, norm)
	case block == 16:
		hadamard16AVX2(px, n, norm)
	case block == 32 && wide:
		hadamard32AVX512(px, n, norm)
	case block == 32:
		hadamard32AVX2(px, n, norm)
	case block == 64 && wide:
		hadamard64AVX512(px, n, norm)
	case block == 64:
		hadamard64AVX2(px, n, norm)
	case block == 128 && wide:
		hadamard128AVX512(px, n, norm)
	case block == 128:
		hadamard128AVX2(px, n, norm)
	case block == 256 && wide:
		hadamard256AVX512(px, n, norm)
	case block == 256:
		hadamard256AVX2(px, n, norm)
	default:
		return false
	}
	return true
}
