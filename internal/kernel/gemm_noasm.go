//go:build purego || !(amd64 || arm64)

package kernel

import "unsafe"

// Without assembly no instruction set but the portable one is ever active, and none of the functions below is reached.
const haveAssembly = false

func tileSIMD(m, n, k int, a unsafe.Pointer, rsA, csA, gsA int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, mode TileMode, alpha unsafe.Pointer) {
	panic(unreached)
}

func tileWideSIMD(m, n, k int, a unsafe.Pointer, rsA, csA int, b unsafe.Pointer, ldb int, c unsafe.Pointer, ldc int, mode TileMode) bool {
	panic(unreached)
}

func transposeSIMD(dst unsafe.Pointer, ldd int, src unsafe.Pointer, lds, rows, cols int, scale float32) {
	panic(unreached)
}

func packPanelsSIMD(dst unsafe.Pointer, panel int, src unsafe.Pointer, lds, rows, panels, width int) {
	panic(unreached)
}

func packSixSIMD(dst unsafe.Pointer, group int, src unsafe.Pointer, lds, rows, groups int) {
	panic(unreached)
}

func axpySIMD(n, k int, x unsafe.Pointer, incX int, w unsafe.Pointer, ldw int, y unsafe.Pointer) {
	panic(unreached)
}

func dotSIMD(rows, k int, w unsafe.Pointer, ldw int, x, y unsafe.Pointer, incY int, add bool) {
	panic(unreached)
}

func peakSIMD(rounds int) (flops float64) { panic(unreached) }
