//go:build !purego

package kernel

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// haveVNNI says that the processor multiplies bytes in one instruction. Without it, the kernels of AVX2 multiply integers under
// AVX-512, too.
var haveVNNI = cpu.X86.HasAVX512VNNI

// shortActivations reports whether the active kernel for a coding takes activations of 16 bits.
func shortActivations(c Coding) bool {
	return c == Code8 && !(active == AVX512 && haveVNNI)
}

// roundRowSIMD rounds x, whole blocks.
func roundRowSIMD(dst unsafe.Pointer, short bool, x []float32, inv float32, sums []int32) {
	for len(x) > 0 {
		n := min(len(x), maxCall)
		switch px, ps := unsafe.SliceData(x), unsafe.SliceData(sums); {
		case short:
			quantizeRow16AVX2((*int16)(dst), px, n/rowBlock, inv, ps)
			dst = unsafe.Add(dst, n)
		case active == AVX512:
			quantizeRow8AVX512((*int8)(dst), px, n/rowBlock, inv, ps)
		default:
			quantizeRow8AVX2((*int8)(dst), px, n/rowBlock, inv, ps)
		}
		dst, x, sums = unsafe.Add(dst, n), x[n:], sums[n/rowBlock:]
		breathe()
	}
}

// computeSIMD is compute in assembly, a few panels and rows at a time.
func (t *intTile[T]) computeSIMD() {
	const maxWork = 1 << 22 // products in one call, where six rows allow it
	together := 1
	if active == AVX512 && haveVNNI && t.panels == 4 {
		together = 4
	}
	k := t.steps * t.coding.StepRows()
	rows := max(1, maxWork/(k*together*PanelCols*tileRows)) * tileRows
	for j := 0; j < t.panels; j += together {
		for i := 0; i < t.rows; i += rows {
			t.call(i, min(rows, t.rows-i), j, together)
		}
	}
}

// call computes rows i to i+m and panels j to j+panels in one call of assembly.
//
//go:noinline
func (t *intTile[T]) call(i, m, j, panels int) {
	at := j * PanelCols
	a, codes, sums := &t.a[i*t.lda], &t.codes[j*t.panel], &t.sums[i*t.ldsums]
	s, sx, c := &t.s[at], (*float32)(unsafe.Pointer(&t.sx[i])), (*float32)(unsafe.Pointer(&t.c[i*t.ldc+at]))
	var z *uint8
	if t.z != nil {
		z = &t.z[at]
	}
	vnni := active == AVX512 && haveVNNI
	switch {
	case vnni && t.coding == Code8 && panels == 4:
		int8x4AVX512(m, t.steps, t.per, a, t.lda, codes, t.panel, sums, 4*t.ldsums, s, 4*t.lds, z, t.ldz, sx, c, 4*t.ldc)
	case vnni && t.coding == Code8:
		int8x1AVX512(m, t.steps, t.per, a, t.lda, codes, t.panel, sums, 4*t.ldsums, s, 4*t.lds, z, t.ldz, sx, c, 4*t.ldc)
	case vnni && panels == 4:
		int4x4AVX512(m, t.steps, t.per, a, t.lda, codes, t.panel, sums, 4*t.ldsums, s, 4*t.lds, z, t.ldz, sx, c, 4*t.ldc)
	case vnni:
		int4x1AVX512(m, t.steps, t.per, a, t.lda, codes, t.panel, sums, 4*t.ldsums, s, 4*t.lds, z, t.ldz, sx, c, 4*t.ldc)
	case t.coding == Code8:
		int8x1AVX2(m, t.steps, t.per, (*int16)(unsafe.Pointer(a)), t.lda, codes, t.panel, sums, 4*t.ldsums, s, 4*t.lds, z, t.ldz, sx, c, 4*t.ldc)
	default:
		int4x1AVX2(m, t.steps, t.per, a, t.lda, codes, t.panel, sums, 4*t.ldsums, s, 4*t.lds, z, t.ldz, sx, c, 4*t.ldc)
	}
}
