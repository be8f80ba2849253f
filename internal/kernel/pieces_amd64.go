//go:build !purego

package kernel

import "unsafe"

//go:noinline
func splitLinesSIMD(dst []uint16, x []float32, ldx, lines, tiles int, words []uint32) {
	splitLinesAVX512(unsafe.SliceData(dst), unsafe.SliceData(x), 4*ldx, lines, tiles, unsafe.SliceData(words))
}

//go:noinline
func splitPairsSIMD(dst []uint16, panel int, x []float32, ldx, panels, tiles int, words []uint32) {
	splitPairsAVX512(unsafe.SliceData(dst), 2*panel, unsafe.SliceData(x), 4*ldx, panels, tiles, unsafe.SliceData(words))
}

//go:noinline
func roundLinesSIMD(dst []uint16, x []float32, ldx, lines, tiles int, words []uint32) {
	roundLinesAVX512(unsafe.SliceData(dst), unsafe.SliceData(x), 4*ldx, lines, tiles, unsafe.SliceData(words))
}

//go:noinline
func roundPairsSIMD(dst []uint16, panel int, x []float32, ldx, panels, tiles int, words []uint32) {
	roundPairsAVX512(unsafe.SliceData(dst), 2*panel, unsafe.SliceData(x), 4*ldx, panels, tiles, unsafe.SliceData(words))
}

//go:noinline
func turnTilesSIMD(x []uint16, tiles int) { turnTilesAVX512(unsafe.SliceData(x), tiles) }

//go:noinline
func pieceTileSIMD(rows, tiles int, a []uint16, lda int, b []uint16, panel int, c []float32, ldc int, init []float32, ldi int, buf []float32) {
	pieceTileAVX512(rows, tiles, unsafe.SliceData(a), 2*lda, unsafe.SliceData(b), 2*panel, unsafe.SliceData(c), 4*ldc, unsafe.SliceData(init), 4*ldi, unsafe.SliceData(buf))
}

// settleSIMD copies rows of 32 sums, of which the first n count, to c, unless one of them is below floor, and reports whether it did.
//
//go:noinline
func settleSIMD(c []float32, ldc int, sums []float32, rows, n int, floor float32) bool {
	return settleAVX512(unsafe.SliceData(c), 4*ldc, unsafe.SliceData(sums), rows, n, floor) != 0
}
