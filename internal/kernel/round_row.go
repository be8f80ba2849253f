package kernel

import (
	"math"
	"unsafe"
)

// RoundRow rounds x·inv, a product of float32, to integers, ties to even, and returns their sum. dst and x have the same length; the
// products must lie between −128 and 127.
func RoundRow(dst []int8, x []float32, inv float32) (sum int32) {
	sameLen("RoundRow", len(dst), len(x))
	if codesVectorized[float32]() {
		var sums [32]int32
		for len(x) >= rowBlock {
			n := min(len(x)/rowBlock, len(sums))
			roundRowSIMD(unsafe.Pointer(unsafe.SliceData(dst)), false, x[:n*rowBlock], inv, sums[:n])
			for _, s := range sums[:n] {
				sum += s
			}
			dst, x = dst[n*rowBlock:], x[n*rowBlock:]
		}
	}
	for i, v := range x {
		q := int32(math.RoundToEven(float64(v * inv)))
		dst[i] = int8(q)
		sum += q
	}
	return sum
}
