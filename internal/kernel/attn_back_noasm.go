//go:build purego || !amd64

package kernel

func multiplyTilesSIMD(c []float32, ldc int, a []uint16, lda int, b []uint16, ldb, m, n, k int, add bool) {
	panic(unreached)
}

func weighPiecesSIMD(s, dp []float32, rows, cols int, rowMax, delta []float32, weights, dsCols, dsRows []uint16) {
	panic(unreached)
}
