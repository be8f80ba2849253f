//go:build purego || !amd64

package kernel

func haveMatrices() bool              { return false }
func matrixVectorized[T Float]() bool { return false }

func (g *matrixGemm) call(t *matrixStripOf, i, m int, c *float32, ldc int, buf []float32) {
	panic(unreached)
}

func splitRowSIMD(dst []uint16, x []float32) { panic(unreached) }
func splitFloat16SIMD(dst, codes []uint16)   { panic(unreached) }
func unpackCodes4SIMD(dst, codes []uint8)    { panic(unreached) }
func pairCodesSIMD(c Coding, dst []uint16, codes []uint8, zeros *[PanelCols]uint8) {
	panic(unreached)
}
