package flashattn

import (
	"math"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Where the backward pass runs in tiles, so do the scores of a forward pass whose other steps are kernels of their own: both then round
// alike, and a row with all its weight on one key keeps the weight 1.

// scoresInTiles reports whether scores are products in tiles, forward and backward. Those of codes are not, nor those of panels that
// BlockKV makes narrow.
func scoresInTiles[T kernel.Float](a attrs) bool {
	return kernel.PiecesFused[T]() && a.Precision != Int8 && a.given(blocks{panel: tilePanel}).panel == tilePanel && a.Scale > 0x1p-40 && a.Scale < 0x1p40
}

// scoreUnit is what a unit holds for them.
type scoreUnit struct {
	q, k  []uint16 // pieces of its rows, and of a block of keys, panel by panel
	qFine bool     // whether their numbers are in range
	kFine [maxBlock / tilePanel]bool
}

// scoreRows is how many rows the scores of a tile take in memory: those before it that fill up 16, and those after it.
const scoreRows = 2 * kernel.PieceLines

// scoreScratch adds what scores in tiles take.
func (b blocks) scoreScratch(n *[forwardSlots]int, rows, d int) {
	n[slotScoreQ] = (kernel.PiecesLen(rows, d) + 1) / 2
	n[slotScoreK] = (kernel.PiecesLen(b.keys, d) + 1) / 2
	n[slotS] = max(n[slotS], (b.chunk+scoreRows)*b.panel)
}

// cutQueries cuts the unit's rows.
func (u *forwardUnit[T]) cutQueries(w *parallel.Worker) {
	u.scored.q = parallel.Scratch[uint16](w, slotScoreQ, 2*u.scratch[slotScoreQ])
	u.scored.k = parallel.Scratch[uint16](w, slotScoreK, 2*u.scratch[slotScoreK])
	rows, d := u.st.rows(), u.problem.q.Dim
	most := float32(0)
	for r := 0; r < rows; r += kernel.PieceLines {
		n := min(kernel.PieceLines, rows-r)
		var bounds [1]kernel.PieceBounds
		kernel.PackPiecesA(u.scored.q[kernel.PiecesLen(r, d):], kernel.RowMajor(float32s(u.q[r*d:][:n*d]), n, d), bounds[:])
		most = largerOf(most, bounds[0].Most())
	}
	u.scored.qFine = inRange(most, tilesLeast)
}

// largerOf is the larger of two numbers, or NaN.
func largerOf(x, y float32) float32 {
	return float32(math.Max(float64(x), float64(y)))
}

// cutKeys cuts keys j0 ≤ j < j1, which u.kt holds, scaled.
func (u *forwardUnit[T]) cutKeys(j0, j1 int) {
	d := u.problem.q.Dim
	for j := j0; j < j1; j += tilePanel {
		n := min(tilePanel, j1-j)
		var bounds [tilePanel / kernel.PieceLines]kernel.PieceBounds
		k := kernel.Matrix[float32]{Data: float32s(u.kt[(j-j0)*d:]), Rows: d, Cols: n, RowStride: tilePanel, ColStride: 1}
		kernel.PackPiecesB(u.scored.k[kernel.PiecesLen(j-j0, d):], k, bounds[:])
		u.scored.kFine[(j-j0)/tilePanel] = inRange(kernel.JoinPieceBounds(bounds[:(n+kernel.PieceLines-1)/kernel.PieceLines]...).Most(), tilesLeast)
	}
}

// tileScores computes products of whole tiles around t into s, of a panel that begins at key j and packed keys that begin at j0, and
// returns where t begins there. ok is false where numbers are out of range.
func (u *forwardUnit[T]) tileScores(t tile, j0, j int, s []T) (from []T, ok bool) {
	x, d := &u.scored, u.problem.q.Dim
	if !x.qFine || !x.kFine[(j-j0)/tilePanel] {
		return nil, false
	}
	const unit = kernel.PieceLines
	a, steps := t.ra/unit*unit, (d+kernel.PieceSteps-1)/kernel.PieceSteps
	kernel.MultiplyPieces(s, tilePanel, x.q[kernel.PiecesLen(a, d):], steps, x.k[kernel.PiecesLen(j-j0, d):], steps,
		(t.rz-a+unit-1)/unit, (t.jz-j+unit-1)/unit, steps, false)
	return s[(t.ra-a)*tilePanel+t.ja-j:], true
}
