package kernel

import "fmt"

// Rows are many, and read once; columns are few. Both are multiplied in pieces (see PieceLines), but rows are cut block by block, just
// before the product, into pieces that lie in the order of the row:
//
//	cut[i·stride + 32·(3t+l) + 2q + h] is piece l of step 32t + 16h + q of row i
//
// The pieces are cut off, not rounded, which halves the work. What a product leaves out is below 2⁻²² of it, and of either sign where
// the pieces of columns are rounded, as those of PackPiecesB are. Numbers below 2⁻¹¹⁰ may lose pieces, which count as 0, and above 2¹¹⁰
// products may overflow: the caller looks at the squares.

// RowsTogether is the most rows that CutRows and TileCut take at a time.
const RowsTogether = 64

// RowsVectorized reports whether there are CutRows and TileCut for rows of k numbers.
func RowsVectorized(k int) bool { return PiecesVectorized() && k > 0 && k%PieceSteps == 0 }

// cutStride is the distance of cut rows: not a power of two, so that 16 of them fall into different sets of the first-level cache.
func cutStride(k int) int { return pieceParts*k + PieceSteps }

// CutRowsLen is the number of elements that cut rows of k numbers take, however few they are.
func CutRowsLen(k int) int { return RowsTogether * cutStride(k) }

func checkRowsTogether(fn string, rows, k int) {
	if rows > RowsTogether || k <= 0 || k%PieceSteps != 0 {
		panic(fmt.Sprintf("kernel: %s: got %d rows of %d numbers, want at most %d of a multiple of %d", fn, rows, k, RowsTogether, PieceSteps))
	}
}

// CutRows cuts up to RowsTogether rows of k numbers, ldx apart, and writes the sum of the squares of each.
func CutRows(dst []uint16, x []float32, ldx, rows, k int, squares []float32) {
	if rows <= 0 {
		return
	}
	checkRowsTogether("CutRows", rows, k)
	checkLen("pieces", len(dst), CutRowsLen(k))
	checkLen("rows", len(x), (rows-1)*ldx+k)
	checkLen("squares", len(squares), rows)
	cutRowsSIMD(dst, 2*cutStride(k), x, 4*ldx, rows, k/PieceSteps, squares)
}

// TileCut computes C = A·B for the rows that CutRows has cut, up to RowsTogether of k numbers, and B of n columns, which PackPiecesB has cut.
// C has ldc ≥ n elements a row, a multiple of 16, and RowsTogether rows, of which those beyond the last are of no meaning. The rows
// ahead, where there are any, are brought nearer meanwhile.
func TileCut(rows, n, k int, a, b []uint16, c []float32, ldc int, ahead []float32) {
	if rows <= 0 || n <= 0 {
		return
	}
	checkRowsTogether("TileCut", rows, k)
	checkLen("pieces of rows", len(a), CutRowsLen(k))
	checkLen("pieces of columns", len(b), PiecesLen(n, k))
	checkLen("C", len(c), (RowsTogether-1)*ldc+ceilTo(n, 16))
	panels := tasks(n, PieceLines)
	tileRowsSIMD(tasks(rows, 2*PieceLines), panels/2, panels%2, k/PieceSteps, a, 2*cutStride(k), b, 2*PiecePanel(k), c, 4*ldc, ahead)
}
