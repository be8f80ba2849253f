//go:build purego || !amd64

package kernel

func splitLinesSIMD(dst []uint16, x []float32, ldx, lines, tiles int, words []uint32) {
	panic(unreached)
}

func splitPairsSIMD(dst []uint16, panel int, x []float32, ldx, panels, tiles int, words []uint32) {
	panic(unreached)
}

func turnTilesSIMD(x []uint16, tiles int) { panic(unreached) }

func pieceTileSIMD(rows, tiles int, a []uint16, lda int, b []uint16, panel int, c []float32, ldc int, init []float32, ldi int, buf []float32) {
	panic(unreached)
}

func roundLinesSIMD(dst []uint16, x []float32, ldx, lines, tiles int, words []uint32) {
	panic(unreached)
}

func roundPairsSIMD(dst []uint16, panel int, x []float32, ldx, panels, tiles int, words []uint32) {
	panic(unreached)
}

func settleSIMD(c []float32, ldc int, sums []float32, rows, n int, floor float32) bool {
	panic(unreached)
}
