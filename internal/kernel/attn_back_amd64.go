//go:build !purego

package kernel

import "unsafe"

// multiplyMaxWork bounds the tiles of C times those of the sum in one call, some hundred microseconds.
const multiplyMaxWork = 1 << 12

func multiplyTilesSIMD(c []float32, ldc int, a []uint16, lda int, b []uint16, ldb, m, n, k int, add bool) {
	flag := 0
	if add {
		flag = 1
	}
	step := max(2, multiplyMaxWork/(n*k)&^1)
	for i := 0; i < m; i += step {
		multiplyTilesCall(c[16*i*ldc:], ldc, a[i*lda*PieceTile:], lda, b, ldb, min(step, m-i), n, k, flag)
	}
}

// multiplyTilesCall has a frame, which is where the garbage collector can stop a loop of such calls.
//
//go:noinline
func multiplyTilesCall(c []float32, ldc int, a []uint16, lda int, b []uint16, ldb, m, n, k, add int) {
	attnBackMultiplyAVX512(unsafe.SliceData(c), 4*ldc, unsafe.SliceData(a), 2*PieceTile*lda, unsafe.SliceData(b), 2*PieceTile*ldb, m, n, k, add)
}

//go:noinline
func weighPiecesSIMD(s, dp []float32, rows, cols int, rowMax, delta []float32, weights, dsCols, dsRows []uint16) {
	attnBackWeighAVX512(unsafe.SliceData(s), unsafe.SliceData(dp), unsafe.SliceData(rowMax), unsafe.SliceData(delta),
		unsafe.SliceData(weights), unsafe.SliceData(dsCols), unsafe.SliceData(dsRows), rows/32, cols/32)
}
