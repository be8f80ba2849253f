//go:build !purego

package kernel

import "unsafe"

// packMaxBytes bounds what one call of assembly copies.
const packMaxBytes = 1 << 18

// transposeSIMD is Transpose for at least eight rows and columns, strides in elements. It goes by blocks that keep the
// lines of dst in the first-level cache until all their columns are there, in strips of sixteen rows (AVX-512) and of eight;
// what is left over at an edge is covered by a last strip that overlaps the one before it.
func transposeSIMD(dst unsafe.Pointer, ldd int, src unsafe.Pointer, lds, rows, cols int, scale float32) {
	const block = 128
	widest := 8
	if active == AVX512 {
		widest = 16
	}
	for j := 0; j < cols; j += block {
		w := min(block, cols-j)
		for i := 0; i < rows; {
			strip := widest
			if rows-i <= 8 {
				strip = 8
			}
			strip = min(strip, rows&^7)
			at := min(i, rows-strip)
			if w >= 8 {
				transposeStrip(strip, unsafe.Add(dst, 4*(j*ldd+at)), ldd, unsafe.Add(src, 4*(at*lds+j)), lds, w/8, scale)
			}
			if w%8 != 0 {
				from := cols - 8
				transposeStrip(strip, unsafe.Add(dst, 4*(from*ldd+at)), ldd, unsafe.Add(src, 4*(at*lds+from)), lds, 1, scale)
			}
			i = at + strip
		}
	}
}

//go:noinline
func transposeStrip(rows int, dst unsafe.Pointer, ldd int, src unsafe.Pointer, lds, blocks int, scale float32) {
	if rows == 16 {
		transpose16AVX512((*float32)(dst), 4*ldd, (*float32)(src), 4*lds, blocks, scale)
		return
	}
	transpose8AVX2((*float32)(dst), 4*ldd, (*float32)(src), 4*lds, blocks, scale)
}

// packPanelsSIMD copies whole panels; panel, lds and width are in elements.
func packPanelsSIMD(dst unsafe.Pointer, panel int, src unsafe.Pointer, lds, rows, panels, width int) {
	step := max(1, packMaxBytes/(4*panels*width))
	for p := 0; p < rows; p += step {
		packPanelsCall(unsafe.Add(dst, 4*p*width), panel, unsafe.Add(src, 4*p*lds), lds, min(step, rows-p), panels)
	}
}

//go:noinline
func packPanelsCall(dst unsafe.Pointer, panel int, src unsafe.Pointer, lds, rows, panels int) {
	if active == AVX512 {
		packPanelsAVX512((*float32)(dst), 4*panel, (*float32)(src), 4*lds, rows, panels)
		return
	}
	packPanelsAVX2((*float32)(dst), 4*panel, (*float32)(src), 4*lds, rows, panels)
}

// packSixSIMD copies groups of six columns of src; group and lds are in elements.
func packSixSIMD(dst unsafe.Pointer, group int, src unsafe.Pointer, lds, rows, groups int) {
	step := max(1, packMaxBytes/(4*groups*tileRows))
	for p := 0; p < rows; p += step {
		packSixCall(unsafe.Add(dst, 4*p*tileRows), group, unsafe.Add(src, 4*p*lds), lds, min(step, rows-p), groups)
	}
}

//go:noinline
func packSixCall(dst unsafe.Pointer, group int, src unsafe.Pointer, lds, rows, groups int) {
	packSixAVX2((*float32)(dst), 4*group, (*float32)(src), 4*lds, rows, groups)
}
