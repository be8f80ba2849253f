package kernel

// Transpose writes dst[j·ldd+i] = scale·src[i·lds+j] for i < rows, j < cols. dst must not overlap src.
func Transpose[T Float](dst []T, ldd int, src []T, lds, rows, cols int, scale T) {
	if rows <= 0 || cols <= 0 {
		return
	}
	checkLen("transposed", len(dst), (cols-1)*ldd+rows)
	checkLen("source", len(src), (rows-1)*lds+cols)
	if vectorized[T]() && rows >= 8 && cols >= 8 {
		transposeSIMD(pointer(dst), ldd, pointer(src), lds, rows, cols, float32(scale))
		return
	}
	for i := range rows {
		row := src[i*lds:][:cols]
		for j, x := range row {
			dst[j*ldd+i] = scale * x
		}
	}
}

// panelWidth is the number of columns of a full register tile, and of a packed panel.
func panelWidth[T Float]() int {
	if vectorized[T]() && active == AVX512 {
		return 64
	}
	return 16
}

// PackedLen is the number of elements that Pack needs for a k×n matrix.
func PackedLen[T Float](k, n int) int { return k * ceilTo(n, panelWidth[T]()) }

// Pack copies B (k×n, any strides) into dst, of PackedLen(k, n) elements, for TilePacked: panels as wide as a register
// tile, row by row. A panel then lies in one piece, which the first-level cache can hold whole; rows of a wider matrix
// often fall into few of its sets. The layout belongs to the active instruction set.
func Pack[T Float](dst []T, b Matrix[T]) {
	b.check("B")
	checkLen("packed", len(dst), PackedLen[T](b.Rows, b.Cols))
	if b.Rows > 0 {
		packB(dst, b, 0, b.Rows, 0, b.Cols, panelWidth[T]())
	}
}

// TilePacked is Tile for a B that Pack has copied.
func TilePacked[T Float](m, n, k int, a []T, rsA, csA int, packed []T, c []T, ldc int, mode TileMode, alpha []T) {
	if m <= 0 || n <= 0 {
		return
	}
	width := panelWidth[T]()
	checkTile(m, n, k, len(a), rsA, csA, len(packed), 0, len(c), ldc, mode, len(alpha))
	checkLen("packed", len(packed), k*ceilTo(n, width))
	for j := 0; j < n; j += width {
		tile(m, min(width, n-j), k, a, rsA, csA, tileRows*rsA, packed[j*k:], width, c[j:], ldc, mode, alpha)
	}
}

// packB copies B (rows p0 to p1, columns j0 to j1) into panels of width columns: dst[q·(p1−p0)·width + (p−p0)·width + j] is
// B(p, j0+q·width+j). The last panel may be narrower; what its rows hold beyond it is not written.
func packB[T Float](dst []T, b Matrix[T], p0, p1, j0, j1, width int) {
	rows := p1 - p0
	for q := 0; j0 < j1; q++ {
		panels := 1
		if vectorized[T]() && b.ColStride == 1 && j1-j0 >= width {
			panels = (j1 - j0) / width
			packPanelsSIMD(pointer(dst[q*rows*width:]), rows*width, pointer(b.Data[b.at(p0, j0):]), b.RowStride, rows, panels, width)
		} else {
			packPanel(dst[q*rows*width:], b, p0, p1, j0, min(j0+width, j1), width)
		}
		q += panels - 1
		j0 += panels * width
	}
}

// packPanel is packB for one panel.
func packPanel[T Float](dst []T, b Matrix[T], p0, p1, j0, j1, width int) {
	rows := p1 - p0
	if b.RowStride == 1 {
		if full := (j1 - j0) &^ 7; full > 0 && rows >= 8 {
			Transpose(dst, width, b.Data[b.at(p0, j0):], b.ColStride, full, rows, 1)
			dst, j0 = dst[full:], j0+full
		}
		for j := j0; j < j1; j++ {
			for p, x := range b.Data[b.at(p0, j):][:rows] {
				dst[p*width+j-j0] = x
			}
		}
		return
	}
	for p := range rows {
		if b.ColStride == 1 {
			copy(dst[p*width:], b.Data[b.at(p0+p, j0):b.at(p0+p, j1-1)+1])
			continue
		}
		for j := j0; j < j1; j++ {
			dst[p*width+j-j0] = b.Data[b.at(p0+p, j)]
		}
	}
}

// packA copies A (rows i0 to i1, columns p0 to p1) into groups of six rows: dst[(g·(p1−p0)+p−p0)·6+i] = A(i0+6g+i, p).
func packA[T Float](dst []T, a Matrix[T], i0, i1, p0, p1 int) {
	steps := p1 - p0
	if groups := (i1 - i0) / tileRows; groups > 0 && vectorized[T]() && a.RowStride == 1 {
		packSixSIMD(pointer(dst), steps*tileRows, pointer(a.Data[a.at(i0, p0):]), a.ColStride, steps, groups)
		dst, i0 = dst[groups*steps*tileRows:], i0+groups*tileRows
	}
	for ; i0 < i1; i0 += tileRows {
		rows := min(tileRows, i1-i0)
		for p := range steps {
			from := a.at(i0, p0+p)
			for i := range rows {
				dst[p*tileRows+i] = a.Data[from+i*a.RowStride]
			}
		}
		if i0+tileRows < i1 {
			dst = dst[steps*tileRows:]
		}
	}
}
