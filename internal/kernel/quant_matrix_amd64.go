//go:build !purego

package kernel

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// haveMatrices says that the processor multiplies tiles of bytes and of BF16, and that the operating system lets this process use
// them, which is asked for once, at the first product that could.
var haveMatrices = sync.OnceValue(func() bool {
	return cpu.X86.HasAMXTile && cpu.X86.HasAMXInt8 && cpu.X86.HasAMXBF16 && allowMatrices()
})

// matrixVectorized reports whether products of many rows go through tiles.
func matrixVectorized[T Float]() bool {
	return active == AVX512 && is32[T]() && !noMatrices && haveMatrices()
}

// call computes rows i to i+m of a strip in one call of assembly.
//
//go:noinline
func (g *matrixGemm) call(t *matrixStripOf, i, m int, c *float32, ldc int, buf []float32) {
	a, b := unsafe.Add(g.a, i*g.lda), unsafe.SliceData(buf)
	stream := 0
	if g.streams && ldc == g.c.RowStride {
		stream = 1
	}
	s, z := unsafe.SliceData(t.s), unsafe.SliceData(t.z)
	switch g.form {
	case matrixFloats3:
		matrixFloats3AVX512(m, g.tiles, g.per, (*uint16)(a), g.lda, (*uint16)(t.codes), t.panel, s, 4*t.lds, c, 4*ldc, b, stream)
		return
	case matrixFloats5:
		matrixFloats5AVX512(m, g.tiles, g.per, (*uint16)(a), g.lda, (*uint16)(t.codes), t.panel, s, 4*t.lds, c, 4*ldc, b, stream)
		return
	}
	groups := g.b.Groups()
	sums, sx, sum := &g.sums[i*groups], &g.scales[i], (*int32)(unsafe.Pointer(b))
	if g.form == matrixBytes64 {
		matrixBytes64AVX512(m, g.tiles, g.per, (*int8)(a), g.lda, (*uint8)(t.codes), t.panel, sums, 4*groups, s, 4*t.lds, z, t.ldz, sx, c, 4*ldc, sum, stream)
		return
	}
	matrixBytes32AVX512(m, g.tiles, g.per, (*int8)(a), g.lda, (*uint8)(t.codes), t.panel, sums, 4*groups, s, 4*t.lds, z, t.ldz, sx, c, 4*ldc, sum, stream)
}

// splitRowSIMD cuts x, a multiple of 32 numbers.
//
//go:noinline
func splitRowSIMD(dst []uint16, x []float32) {
	splitRowAVX512(unsafe.SliceData(dst), unsafe.SliceData(x), len(x)/32)
}

// splitFloat16SIMD cuts whole tiles.
//
//go:noinline
func splitFloat16SIMD(dst, codes []uint16) {
	splitFloat16AVX512(unsafe.SliceData(dst), unsafe.SliceData(codes), len(codes)/(32*PanelCols))
}

// pairCodesSIMD widens whole steps of one group.
//
//go:noinline
func pairCodesSIMD(c Coding, dst []uint16, codes []uint8, zeros *[PanelCols]uint8) {
	if c == Code8 {
		pairCodes8AVX512(unsafe.SliceData(dst), unsafe.SliceData(codes), len(codes)/64, &zeros[0])
		return
	}
	pairCodes4AVX512(unsafe.SliceData(dst), unsafe.SliceData(codes), len(codes)/64, &zeros[0])
}

// unpackCodes4SIMD unpacks whole steps.
//
//go:noinline
func unpackCodes4SIMD(dst, codes []uint8) {
	unpackCodes4AVX512(unsafe.SliceData(dst), unsafe.SliceData(codes), len(codes)/64)
}
