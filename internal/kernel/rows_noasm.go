//go:build purego || !amd64

package kernel

func cutRowsSIMD(dst []uint16, ldd int, x []float32, ldx, rows, tiles int, squares []float32) {
	panic(unreached)
}

func tileRowsSIMD(pairs, strips, last, tiles int, a []uint16, lda int, b []uint16, panel int, c []float32, ldc int, ahead []float32) {
	panic(unreached)
}
