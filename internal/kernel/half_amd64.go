//go:build !purego

package kernel

import "unsafe"

// The conversions below do whole vectors of src and return how many elements that is: 0 without assembly.

// wholeVectors is the part of n elements that makes whole vectors on the active instruction set, 0 on the portable one.
func wholeVectors(n int) int {
	switch active {
	case AVX512:
		return n &^ 15
	case AVX2:
		return n &^ 7
	}
	return 0
}

func toFloat16SIMD(dst []uint16, src []float32) (n, over int) {
	switch n = wholeVectors(len(src)); {
	case n == 0:
	case active == AVX512:
		over = toFloat16AVX512(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	default:
		over = toFloat16AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n, over
}

func fromFloat16SIMD(dst []float32, src []uint16) (n int) {
	switch n = wholeVectors(len(src)); {
	case n == 0:
	case active == AVX512:
		fromFloat16AVX512(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	default:
		fromFloat16AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n
}

func toBFloat16SIMD(dst []uint16, src []float32) (n int) {
	switch n = wholeVectors(len(src)); {
	case n == 0:
	case active == AVX512:
		toBFloat16AVX512(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	default:
		toBFloat16AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n
}

func fromBFloat16SIMD(dst []float32, src []uint16) (n int) {
	switch n = wholeVectors(len(src)); {
	case n == 0:
	case active == AVX512:
		fromBFloat16AVX512(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	default:
		fromBFloat16AVX2(unsafe.SliceData(dst), unsafe.SliceData(src), n)
	}
	return n
}
