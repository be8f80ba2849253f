//go:build !purego

package kernel

import "unsafe"

// packMaxBytes bounds what one call of assembly copies.
const packMaxBytes = 1 << 18

// transposeSIMD is Transpose for at least eight rows and columns, strides in elements. It goes by blocks that keep the
// lines of dst in the first-level cache until all their columns are there; what is left over at an edge is covered by a
// last block that overlaps the one before it.
func transposeSIMD(dst unsafe.Pointer, ldd int, src unsafe.Pointer, lds, rows, cols int, scale float32) {
	const block = 128
	for j := 0; j < cols; j += block {
		w := min(block, cols-j)
		for i := 0; i < rows; i += 8 {
			at := min(i, rows-8)
			if w >= 4 {
				transposeStrip(unsafe.Add(dst, 4*(j*ldd+at)), ldd, unsafe.Add(src, 4*(at*lds+j)), lds, w/4, scale)
			}
			if w%4 != 0 {
				from := cols - 4
				transposeStrip(unsafe.Add(dst, 4*(from*ldd+at)), ldd, unsafe.Add(src, 4*(at*lds+from)), lds, 1, scale)
			}
		}
	}
}

//go:noinline
func transposeStrip(dst unsafe.Pointer, ldd int, src unsafe.Pointer, lds, blocks int, scale float32) {
	transpose8NEON((*float32)(dst), 4*ldd, (*float32)(src), 4*lds, blocks, scale)
}

// packPanelsSIMD copies whole panels, 16 columns wide; panel and lds are in elements.
func packPanelsSIMD(dst unsafe.Pointer, panel int, src unsafe.Pointer, lds, rows, panels, width int) {
	step := max(1, packMaxBytes/(4*panels*width))
	for p := 0; p < rows; p += step {
		packPanelsCall(unsafe.Add(dst, 4*p*width), panel, unsafe.Add(src, 4*p*lds), lds, min(step, rows-p), panels)
	}
}

//go:noinline
func packPanelsCall(dst unsafe.Pointer, panel int, src unsafe.Pointer, lds, rows, panels int) {
	packPanelsNEON((*float32)(dst), 4*panel, (*float32)(src), 4*lds, rows, panels)
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
	packSixNEON((*float32)(dst), 4*group, (*float32)(src), 4*lds, rows, groups)
}
