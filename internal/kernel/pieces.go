package kernel

import (
	"math"
	"math/bits"
)

// A float32 has 24 bits and is the sum of three numbers of BF16, of 8 bits and a sign each:
//
//	x = x₀ + x₁ + x₂,  x₀ = round₈(x),  x₁ = round₈(x − x₀),  x₂ = x − x₀ − x₁
//
// A tile of AMX multiplies 16 rows of 32 numbers of BF16 by 16 columns; each product of two is exact in float32, and they are summed
// there. Six of the nine products of pieces make up that of float32:
//
//	x·y ≈ x₂y₀ + x₁y₀ + x₁y₁ + x₀y₁ + x₀y₂ + x₀y₀
//
// The three that are left out are below 2⁻²⁴·|x·y| together. It is as accurate as float32 arithmetic, and rounds less often: sums of 16
// products are added to the result, six for every 32 steps of k.
//
// That holds for products that Safe vouches for. In tiles, numbers, products and sums below 2⁻¹²⁶ count as 0, so that small numbers
// would lose pieces; numbers beyond 2¹¹⁰ cannot be cut in this way, and of infinities the pieces would be NaN. What a product is added
// to counts as 0 below 2⁻¹²⁶ as well, even where nothing is added.
//
// Lines, the rows of A or the columns of B, lie in panels of PieceLines, a panel as tiles of PieceSteps numbers of k, each three times:
// the pieces. In a tile, steps p and p+16 for p < 16 are a pair, 32 bits. Panels of A have their pairs line by line, those of B step by
// step:
//
//	A: panel[512·(3t+l) + 32i + 2q + h]    B: panel[512·(3t+l) + 32q + 2j + h]
//
// are piece l of step 32t + 16h + q of line i or j. What is beyond k is 0; what is beyond the last line is of no meaning.
const (
	PieceLines = 16
	PieceSteps = 32
	pieceParts = 3
	pieceTile  = PieceLines * PieceSteps
)

// PiecesVectorized reports whether there are tiles, and thus PackPiecesA, PackPiecesB and TilePieces.
func PiecesVectorized() bool { return matrixVectorized[float32]() }

// PiecePanel is the number of elements of a panel of k steps.
func PiecePanel(k int) int { return tasks(k, PieceSteps) * pieceParts * pieceTile }

// PiecesLen is the number of elements that the pieces of so many lines of k steps take.
func PiecesLen(lines, k int) int { return tasks(lines, PieceLines) * PiecePanel(k) }

// PieceBounds are bounds of the numbers in a panel: the bits of the smallest magnitude that is not 0, less 1, and of the largest. The
// zero value is not an empty panel's.
type PieceBounds struct{ least, most uint32 }

// Exponents between which numbers have exact pieces, and below which a product of numbers may not fall, lest one of pieces does that
// is worth a rounding.
const (
	pieceLeast   = -102
	pieceMost    = 110
	pieceProduct = -102
)

// exponents returns e and f with 2^e ≤ |x| < 2^f for the numbers that are not 0, and whether there are any. Of infinities and NaN f is
// 129; of denormal numbers e is −127.
func (x PieceBounds) exponents() (e, f int, any bool) {
	return int((x.least+1)>>23) - 127, int(x.most>>23) - 126, x.most > 0
}

// Most is the largest magnitude, NaN if there is one.
func (x PieceBounds) Most() float32 { return math.Float32frombits(x.most) }

// Exact reports whether the numbers are the sums of their pieces.
func (x PieceBounds) Exact() bool {
	e, f, any := x.exponents()
	return !any || e >= pieceLeast && f <= pieceMost
}

// Safe reports whether the product of numbers in such bounds over k steps is that of their pieces.
func (x PieceBounds) Safe(y PieceBounds, k int) bool {
	e, f, some := x.exponents()
	d, g, any := y.exponents()
	if !some || !any {
		return max(f, g) <= pieceMost
	}
	return x.Exact() && y.Exact() && e+d >= pieceProduct && f+g+bits.Len(uint(k)) <= 127
}

// floor returns the magnitude from which a sum of products in such bounds over k steps is as accurate as one that is Safe, and whether
// none of the numbers and sums is too large. A number of which pieces below 2⁻¹²⁶ are lost is off by less than 2⁻¹²⁵, and each step
// has eight products and sums that may be lost below 2⁻¹²⁶: with all numbers below 2^h, a sum is off by k·2⁻¹²⁶·(8 + 4·2^h) at most, and
// the floor is 2²⁶ times that.
func (x PieceBounds) floor(y PieceBounds, k int) (floor float32, ok bool) {
	_, f, _ := x.exponents()
	_, g, _ := y.exponents()
	steps, h := bits.Len(uint(k)), max(f, g)
	if h > pieceMost || f+g+steps > 127 {
		return 0, false
	}
	return float32(math.Ldexp(1, steps-126+26+1+max(3, h+2))), true
}

// JoinPieceBounds are the bounds of all numbers together, of none where there are none.
func JoinPieceBounds(all ...PieceBounds) PieceBounds {
	b := PieceBounds{least: ^uint32(0)}
	for _, x := range all {
		b.least, b.most = min(b.least, x.least), max(b.most, x.most)
	}
	return b
}

// PieceBoundsOf are bounds that hold numbers of magnitude from 2^e to 2^f.
func PieceBoundsOf(e, f int) PieceBounds {
	return PieceBounds{least: uint32(e+127)<<23 - 1, most: uint32(f+127) << 23}
}

// newBounds are words for the assembly to keep bounds in, of no numbers.
func newBounds(words []uint32) {
	for i := range words {
		words[i] = 0
		if i%32 < 16 {
			words[i] = ^uint32(0)
		}
	}
}

// boundsOf sums up words of the assembly.
func boundsOf(words []uint32) PieceBounds {
	b := PieceBounds{least: ^uint32(0)}
	for i := range 16 {
		b.least, b.most = min(b.least, words[i]), max(b.most, words[16+i])
	}
	return b
}

// PackPiecesA cuts the rows of A (m×k, any strides) into pieces: dst has PiecesLen(m, k) elements, bounds one for each panel.
func PackPiecesA(dst []uint16, a Matrix[float32], bounds []PieceBounds) {
	a.check("A")
	packPieces(dst, a, bounds, false, pieceParts)
}

// PackPiecesB cuts the columns of B (k×n, any strides) into pieces: dst has PiecesLen(n, k) elements, bounds one for each panel.
func PackPiecesB(dst []uint16, b Matrix[float32], bounds []PieceBounds) {
	b.check("B")
	packPieces(dst, b.T(), bounds, true, pieceParts)
}

// RoundedLen is PiecesLen for numbers that are rounded to BF16, ties to even, each of which is one piece.
func RoundedLen(lines, k int) int { return PiecesLen(lines, k) / pieceParts }

// PackRoundedA is PackPiecesA of numbers rounded to BF16, and dst has RoundedLen(m, k) elements. Bounds are those of the numbers before.
func PackRoundedA(dst []uint16, a Matrix[float32], bounds []PieceBounds) {
	a.check("A")
	packPieces(dst, a, bounds, false, 1)
}

// PackRoundedB is PackRoundedA for PackPiecesB.
func PackRoundedB(dst []uint16, b Matrix[float32], bounds []PieceBounds) {
	b.check("B")
	packPieces(dst, b.T(), bounds, true, 1)
}

// What is cut together, so that the pieces stay in the first-level cache until their lines are whole.
const (
	piecePanels = 4 // panels, where numbers of different lines lie side by side
	pieceTiles  = 8 // steps in tiles, where those of one line do
)

// packPieces cuts x, lines by steps, into three parts, or rounds it to one. byStep is the order of B.
func packPieces(dst []uint16, x Matrix[float32], bounds []PieceBounds, byStep bool, parts int) {
	lines, k := x.Rows, x.Cols
	checkLen("pieces", len(dst), PiecesLen(lines, k)/pieceParts*parts)
	checkLen("bounds", len(bounds), tasks(lines, PieceLines))
	if k == 0 {
		for i := range tasks(lines, PieceLines) {
			bounds[i] = PieceBounds{least: ^uint32(0)}
		}
		return
	}
	panel, whole := PiecePanel(k)/pieceParts*parts, k/PieceSteps
	var words [32 * piecePanels]uint32
	for i := 0; i < lines; {
		panels := 1
		if x.RowStride == 1 && x.ColStride != 1 {
			panels = max(1, min(piecePanels, (lines-i)/PieceLines))
		}
		rows := min(lines-i, panels*PieceLines)
		to := dst[i/PieceLines*panel:]
		newBounds(words[:32*panels])
		switch {
		case whole == 0:
		case x.ColStride == 1:
			for p := 0; p < whole; p += pieceTiles {
				tiles, some := to[p*parts*pieceTile:], min(pieceTiles, whole-p)
				packLines(tiles, x.Data[x.at(i, p*PieceSteps):], x.RowStride, rows, some, words[:], parts)
				if byStep {
					turnTilesSIMD(tiles, parts*some)
				}
			}
		case x.RowStride == 1 && rows == panels*PieceLines:
			packColumns(to, panel, x.Data[x.at(i, 0):], x.ColStride, panels, whole, words[:], parts)
			for p := range panels {
				if !byStep {
					turnTilesSIMD(to[p*panel:], parts*whole)
				}
			}
		default:
			for p := range whole {
				packPieceTile(to[p*parts*pieceTile:], x, i, rows, p*PieceSteps, PieceSteps, byStep, words[:], parts)
			}
		}
		if k%PieceSteps != 0 {
			for p := range panels {
				packPieceTile(to[p*panel+whole*parts*pieceTile:], x, i+p*PieceLines, min(rows-p*PieceLines, PieceLines),
					whole*PieceSteps, k%PieceSteps, byStep, words[32*p:], parts)
			}
		}
		for p := range panels {
			bounds[i/PieceLines+p] = boundsOf(words[32*p:])
		}
		i += panels * PieceLines
	}
}

// packPieceTile cuts up to 16 lines from i, up to 32 steps from p, of any strides.
func packPieceTile(dst []uint16, x Matrix[float32], i, lines, p, steps int, byStep bool, words []uint32, parts int) {
	var tile [pieceTile]float32
	gatherTile(&tile, x, i, lines, p, steps)
	packLines(dst, tile[:], PieceSteps, PieceLines, 1, words, parts)
	if byStep {
		turnTilesSIMD(dst, parts)
	}
}

// gatherTile copies lines from i, steps from p, to rows of PieceSteps.
func gatherTile(tile *[pieceTile]float32, x Matrix[float32], i, lines, p, steps int) {
	for r := range lines {
		row := tile[r*PieceSteps:][:steps]
		if x.ColStride == 1 {
			copy(row, x.Data[x.at(i+r, p):])
			continue
		}
		for q := range row {
			row[q] = x.Data[x.at(i+r, p+q)]
		}
	}
}

// packLines cuts into three parts or rounds to one.
func packLines(dst []uint16, x []float32, ldx, lines, tiles int, words []uint32, parts int) {
	if parts == 1 {
		roundLinesSIMD(dst, x, ldx, lines, tiles, words)
		return
	}
	splitLinesSIMD(dst, x, ldx, lines, tiles, words)
}

// packColumns cuts into three parts or rounds to one.
func packColumns(dst []uint16, panel int, x []float32, ldx, panels, tiles int, words []uint32, parts int) {
	if parts == 1 {
		roundPairsSIMD(dst, panel, x, ldx, panels, tiles, words)
		return
	}
	splitPairsSIMD(dst, panel, x, ldx, panels, tiles, words)
}

// TilePieces computes C (m×n, rows ldc apart) = A·B or, with TileAdd, C + A·B on the calling goroutine, for A (m×k) and B (k×n) in
// pieces. Their bounds must be Safe. What C held is not read without TileAdd. The order of the sum depends on k alone.
func TilePieces(m, n, k int, a, b []uint16, c []float32, ldc int, mode TileMode) {
	if m <= 0 || n <= 0 {
		return
	}
	checkLen("pieces of A", len(a), PiecesLen(m, k))
	checkLen("pieces of B", len(b), PiecesLen(n, k))
	checkLen("C", len(c), (m-1)*ldc+n)
	if mode == TileAdd {
		tilePieces(m, n, k, a, b, c, ldc, c, ldc, nil)
		return
	}
	tilePieces(m, n, k, a, b, c, ldc, nil, 0, nil)
}

// tilePieces computes C = init + A·B, or A·B if init is nil. Rows of init are ldi apart: 0 repeats one. Through buf, of 32·32 elements
// unless it is nil, C is written past the caches: its rows must be whole lines.
func tilePieces(m, n, k int, a, b []uint16, c []float32, ldc int, init []float32, ldi int, buf []float32) {
	panel := PiecePanel(k)
	whole := m / PieceLines
	for j := 0; j < n; j += matrixStrip {
		strip, second := b[j/PieceLines*panel:], panel
		if n-j <= PieceLines {
			second = 0
		}
		full := whole
		if n-j < matrixStrip || k == 0 {
			full = 0
		}
		// A call stays far below a millisecond.
		most := max(2, matrixWork/(max(1, k)*PieceLines)&^1)
		for i := 0; i < full; i += most {
			at := i * PieceLines
			pieceTileSIMD(min(most, full-i), tasks(k, PieceSteps), a[i*panel:], panel, strip, second, c[at*ldc+j:], ldc, from(init, at*ldi+j), ldi, buf)
		}
		for i := full * PieceLines; i < m; i += matrixUnit {
			pieceEdge(min(matrixUnit, m-i), min(matrixStrip, n-j), k, a[i/PieceLines*panel:], strip, second, c[i*ldc+j:], ldc, from(init, i*ldi+j), ldi)
		}
	}
}

// from is x[i:], nil if x is.
func from(x []float32, i int) []float32 {
	if x == nil {
		return nil
	}
	return x[i:]
}

// pieceEdge is up to 32 rows and columns of tilePieces, not all of them, or of no steps.
func pieceEdge(m, n, k int, a, b []uint16, second int, c []float32, ldc int, init []float32, ldi int) {
	var sum [matrixUnit * matrixStrip]float32
	for i := range m {
		if init != nil {
			copy(sum[i*matrixStrip:], init[i*ldi:][:n])
		}
	}
	if k > 0 {
		pieceTileSIMD(tasks(m, PieceLines), tasks(k, PieceSteps), a, PiecePanel(k), b, second, sum[:], matrixStrip, sum[:], matrixStrip, nil)
	}
	for i := range m {
		copy(c[i*ldc:][:n], sum[i*matrixStrip:])
	}
}
