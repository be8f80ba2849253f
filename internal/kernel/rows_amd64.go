//go:build !purego

package kernel

import "unsafe"

//go:noinline
func cutRowsSIMD(dst []uint16, ldd int, x []float32, ldx, rows, tiles int, squares []float32) {
	cutRowsAVX512(unsafe.SliceData(dst), ldd, unsafe.SliceData(x), ldx, rows, tiles, unsafe.SliceData(squares))
}

//go:noinline
func tileRowsSIMD(pairs, strips, last, tiles int, a []uint16, lda int, b []uint16, panel int, c []float32, ldc int, ahead []float32) {
	from, step := unsafe.SliceData(ahead), 64
	if len(ahead) == 0 {
		from, step = unsafe.SliceData(c), 0
	}
	tileRowsAVX512(pairs, strips, last, tiles, unsafe.SliceData(a), lda, unsafe.SliceData(b), panel, unsafe.SliceData(c), ldc, from, step)
}
