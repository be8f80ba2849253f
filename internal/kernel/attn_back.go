package kernel

import (
	"fmt"
	"math"
)

// What the backward pass of attention does on pieces (pieces.go) besides packing matrices: operands that are packed once are multiplied
// in parts, and weights are cut into pieces where they are made. T is float32.

// PieceTile is the number of elements of 16 lines of 32 steps in pieces.
const PieceTile = pieceParts * pieceTile

// PiecesFused reports whether MultiplyPieces runs in tiles here, several times as fast as Tile.
func PiecesFused[T Float]() bool { return matrixVectorized[T]() }

// SplitRows packs x, rows × cols with rows ld apart, for sums over its columns. If turned is false, 16 rows of x become the lines of
// tiles: an operand A = x. If turned is true, they become the columns: an operand B = xᵀ. Tile (i, p) of rows 16i… and columns 32p…
// goes to dst[(i·cols/32 + p)·PieceTile:]. rows is a multiple of 16, cols one of 32. It returns the largest |x|, NaN for a NaN.
func SplitRows[T Float](dst []uint16, x []T, ld, rows, cols int, turned bool) T {
	if rows <= 0 || cols <= 0 {
		return 0
	}
	if rows%16 != 0 || cols%32 != 0 || cols > ld {
		panic(fmt.Sprintf("kernel: SplitRows: got %d×%d in rows of %d, want multiples of 16 and 32", rows, cols, ld))
	}
	checkLen("x", len(x), (rows-1)*ld+cols)
	checkLen("dst", len(dst), rows*cols*3)
	from, tiles := as32(x), cols/32
	if !matrixVectorized[T]() {
		return T(math.Float32frombits(splitTiles(dst, from, ld, 1, rows, cols, turned)))
	}
	var words [32]uint32
	newBounds(words[:])
	for i := range rows / 16 {
		to := dst[i*tiles*PieceTile:]
		splitLinesSIMD(to, from[16*i*ld:], ld, 16, tiles, words[:])
		if turned {
			turnTilesSIMD(to, pieceParts*tiles)
		}
	}
	return T(math.Float32frombits(boundsOf(words[:]).most))
}

// SplitColumns packs x, rows × cols with rows ld apart, for sums over its rows. If turned is false, 16 columns of x become the
// columns of tiles: an operand B = x. If turned is true, they become the lines: an operand A = xᵀ. Tile (j, p) of columns 16j… and
// rows 32p… goes to dst[(j·rows/32 + p)·PieceTile:]. rows is a multiple of 32, cols one of 16. It returns the largest |x|, NaN for a
// NaN.
func SplitColumns[T Float](dst []uint16, x []T, ld, rows, cols int, turned bool) T {
	if rows <= 0 || cols <= 0 {
		return 0
	}
	if rows%32 != 0 || cols%16 != 0 || cols > ld {
		panic(fmt.Sprintf("kernel: SplitColumns: got %d×%d in rows of %d, want multiples of 32 and 16", rows, cols, ld))
	}
	checkLen("x", len(x), (rows-1)*ld+cols)
	checkLen("dst", len(dst), rows*cols*3)
	from, tiles := as32(x), rows/32
	if !matrixVectorized[T]() {
		return T(math.Float32frombits(splitTiles(dst, from, 1, ld, cols, rows, !turned)))
	}
	var words [32 * piecePanels]uint32
	panels, all := cols/16, PieceBounds{}
	for j := 0; j < panels; j += piecePanels {
		n := min(piecePanels, panels-j)
		newBounds(words[:32*n])
		splitPairsSIMD(dst[j*tiles*PieceTile:], tiles*PieceTile, from[16*j:], ld, n, tiles, words[:])
		for p := range n {
			all.most = max(all.most, boundsOf(words[32*p:]).most)
		}
	}
	if turned {
		turnTilesSIMD(dst, pieceParts*tiles*panels)
	}
	return T(math.Float32frombits(all.most))
}

// splitTiles packs tiles of lines side by side in panels of 16, portably: step p of line i is x[i·line + p·step].
func splitTiles(dst []uint16, x []float32, line, step, lines, steps int, byStep bool) (most uint32) {
	for i := range lines {
		for p := range steps {
			v := x[i*line+p*step]
			most = max(most, math.Float32bits(v)&^(1<<31))
			row, col := i%16, p%16
			if byStep {
				row, col = col, row
			}
			to := dst[(i/16*(steps/32)+p/32)*PieceTile:]
			for piece, bits := range cut(v) {
				to[512*piece+32*row+2*col+p%32/16] = bits
			}
		}
	}
	return most
}

// cut cuts x into the bits of its pieces.
func cut(x float32) (bits [pieceParts]uint16) {
	for i := range bits {
		t := float32(x * (1<<16 + 1)) // Veltkamp's way to round to 8 bits
		upper := float32(t - float32(t-x))
		bits[i] = uint16(math.Float32bits(upper) >> 16)
		x -= upper
	}
	return bits
}

// MultiplyPieces computes C = A·B, or C += A·B if add, for 16m rows and 16n columns of c, rows ldc apart, and sums over 32k: a and b
// are packed, their tiles of rows and columns lda and ldb tiles apart. Sums are those of TilePieces, to the bit,
// whatever m, n and the place.
func MultiplyPieces[T Float](c []T, ldc int, a []uint16, lda int, b []uint16, ldb, m, n, k int, add bool) {
	if m <= 0 || n <= 0 || k <= 0 {
		return
	}
	if lda < k || ldb < k || ldc < 16*n {
		panic(fmt.Sprintf("kernel: MultiplyPieces: got %d and %d tiles for sums over %d, rows of %d for %d columns", lda, ldb, k, ldc, 16*n))
	}
	checkLen("A", len(a), ((m-1)*lda+k)*PieceTile)
	checkLen("B", len(b), ((n-1)*ldb+k)*PieceTile)
	checkLen("C", len(c), (16*m-1)*ldc+16*n)
	if matrixVectorized[float32]() {
		multiplyTilesSIMD(as32(c), ldc, a, lda, b, ldb, m, n, k, add)
		return
	}
	to := as32(c)
	for i := range 16 * m {
		for j := range 16 * n {
			sum := float32(0)
			if add {
				sum = to[i*ldc+j]
			}
			for p := range k {
				x, y := a[(i/16*lda+p)*PieceTile+i%16*32:], b[(j/16*ldb+p)*PieceTile+j%16*2:]
				for _, s := range [...][2]int{{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}} { // as gen/attnback has them
					sum = pairs(sum, x[512*s[0]:], y[512*s[1]:])
				}
			}
			to[i*ldc+j] = sum
		}
	}
}

// pairs adds 32 products to sum as a tile does: the first of each pair and the second of each pair by themselves.
func pairs(sum float32, x, y []uint16) float32 {
	var s [2]float32
	wide := func(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }
	for p := range 16 {
		for h := range s {
			s[h] = fma(wide(x[2*p+h]), wide(y[32*p+h]), s[h])
		}
	}
	return sum + (s[0] + s[1])
}

// WeighPieces is what lies between the products of the backward pass, for a tile of rows × cols of scores s and of dp = dOut·v, both
// in rows of 64:
//
//	P = e^(s−rowMax)    dS = P∘(dp−delta)
//
// weights and dsCols take P and dS as SplitColumns packs them, operands B, dsRows takes dS as SplitRows does, an operand A. A rowMax
// of +Inf is that of a row that sees no key, and of one that fills up a tile. rows is a multiple of 32, cols 32 or 64.
func WeighPieces[T Float](s, dp []T, rows, cols int, rowMax, delta []T, weights, dsCols, dsRows []uint16) {
	const ld = 64
	if rows <= 0 {
		return
	}
	if rows%32 != 0 || cols != 32 && cols != 64 {
		panic(fmt.Sprintf("kernel: WeighPieces: got %d×%d, want a multiple of 32 and 32 or 64", rows, cols))
	}
	checkLen("s", len(s), rows*ld)
	checkLen("dp", len(dp), rows*ld)
	checkRows("WeighPieces", rows, len(rowMax), len(delta))
	for _, x := range [][]uint16{weights, dsCols, dsRows} {
		checkLen("pieces", len(x), 3*rows*cols)
	}
	if matrixVectorized[T]() {
		weighPiecesSIMD(as32(s), as32(dp), rows, cols, as32(rowMax), as32(delta), weights, dsCols, dsRows)
		return
	}
	p, ds := make([]T, rows*ld), make([]T, rows*ld)
	ProbFromLSE(p, s, ld, rows, cols, rowMax)
	DScore(ds, p, dp, ld, rows, cols, delta)
	SplitColumns(weights, p, ld, rows, cols, false)
	SplitColumns(dsCols, ds, ld, rows, cols, false)
	SplitRows(dsRows, ds, ld, rows, cols, false)
}
