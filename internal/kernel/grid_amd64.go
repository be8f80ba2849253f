//go:build !purego

package kernel

import "unsafe"

func rowRangeSIMD(x []float32) (lo, hi float32, ok bool) {
	switch active {
	case AVX512:
		lo, hi = rowRangeAVX512(unsafe.SliceData(x), len(x))
	case AVX2:
		lo, hi = rowRangeAVX2(unsafe.SliceData(x), len(x))
	default:
		return 0, 0, false
	}
	return lo, hi, true
}

func columnRangeSIMD(lo, hi, x []float32, ld, rows, cols int) bool {
	pl, ph, px := unsafe.SliceData(lo), unsafe.SliceData(hi), unsafe.SliceData(x)
	switch active {
	case AVX512:
		columnRangeAVX512(pl, ph, px, ld, rows, cols)
	case AVX2:
		columnRangeAVX2(pl, ph, px, ld, rows, cols)
	default:
		return false
	}
	return true
}

func (g *Grids) data() (scale *float32, inverse *float64, low, high *float32) {
	return unsafe.SliceData(g.Scale), unsafe.SliceData(g.Inverse), unsafe.SliceData(g.Low), unsafe.SliceData(g.High)
}

func roundColumnsSIMD(y, x []float32, ld, rows, cols int, g Grids) bool {
	py, px := unsafe.SliceData(y), unsafe.SliceData(x)
	s, i, l, h := g.data()
	switch active {
	case AVX512:
		roundColumnsAVX512(py, px, s, i, l, h, ld, rows, cols)
	case AVX2:
		roundColumnsAVX2(py, px, s, i, l, h, ld, rows, cols)
	default:
		return false
	}
	return true
}

func columnErrorsSIMD(sum []float64, x []float32, ld, rows, cols int, g Grids) bool {
	ps, px := unsafe.SliceData(sum), unsafe.SliceData(x)
	s, i, l, h := g.data()
	switch active {
	case AVX512:
		columnErrorsAVX512(ps, px, s, i, l, h, ld, rows, cols)
	case AVX2:
		columnErrorsAVX2(ps, px, s, i, l, h, ld, rows, cols)
	default:
		return false
	}
	return true
}

func passColumnsSIMD(dx, dy, x []float32, ld, rows, cols int, g Grids) bool {
	pd, py, px := unsafe.SliceData(dx), unsafe.SliceData(dy), unsafe.SliceData(x)
	s, i, l, h := g.data()
	switch active {
	case AVX512:
		passColumnsAVX512(pd, py, px, s, i, l, h, ld, rows, cols)
	case AVX2:
		passColumnsAVX2(pd, py, px, s, i, l, h, ld, rows, cols)
	default:
		return false
	}
	return true
}

func learnColumnsSIMD(dx []float32, sum []float64, dy, x []float32, ld, rows, cols int, g Grids) bool {
	pd, ps, py, px := unsafe.SliceData(dx), unsafe.SliceData(sum), unsafe.SliceData(dy), unsafe.SliceData(x)
	s, i, l, h := g.data()
	switch active {
	case AVX512:
		learnColumnsAVX512(pd, ps, py, px, s, i, l, h, ld, rows, cols)
	case AVX2:
		learnColumnsAVX2(pd, ps, py, px, s, i, l, h, ld, rows, cols)
	default:
		return false
	}
	return true
}

func roundToScaleSIMD(y, x []float32, scale, inverse, end float32) bool {
	if active != AVX512 && active != AVX2 {
		return false
	}
	for {
		n := min(len(x), maxCall)
		if active == AVX512 {
			roundToScaleAVX512(unsafe.SliceData(y), unsafe.SliceData(x), n, scale, inverse, end)
		} else {
			roundToScaleAVX2(unsafe.SliceData(y), unsafe.SliceData(x), n, scale, inverse, end)
		}
		if n == len(x) {
			return true
		}
		y, x = y[n:], x[n:]
		breathe()
	}
}
