package flashattn

import (
	"math"
	"sort"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Where the processor multiplies tiles of BF16, the forward pass of what kernel.Online can do goes through kernel.OnlineTiles: same
// units, same blocks of keys, the operands in pieces. Numbers that pieces do not hold exactly, or whose products a tile might round to 0
// or to infinity, are noticed while they are cut; the unit then goes on without tiles from the block on that has them. That depends on
// shapes and values only, and leaves a NaN to the code that keeps it where it belongs.

// inTiles reports whether units go through tiles.
func inTiles[T kernel.Float](a attrs, b blocks, bias bool) bool {
	return kernel.TilesFused[T]() && a.maskOnly(b, bias) && !inPairs[T](a, b, bias) && a.Precision != Int8 && a.Scale > 0x1p-40 && a.Scale < 0x1p40
}

// tileWeights are bounds of weights, as far as they count, for products with values: the smallest are 2⁻³⁸ of the largest, which are
// up to e^5.5.
var tileWeights = kernel.PieceBoundsOf(-38, 8)

// forwardTileScratch is forwardScratch for tiles; no slot is smaller than without them.
func (b blocks) forwardTileScratch(rows, d, dv int) (n [forwardSlots]int) {
	padded := paddedRows(rows)
	n = b.forwardScratch(padded, d, dv, false, false)
	atLeast := func(slot, elements int) { n[slot] = max(n[slot], elements) }
	pieces := func(slot, lines, k int) { atLeast(slot, (kernel.PiecesLen(lines, k)+1)/2) }
	pieces(slotQ, ceilTo(rows, kernel.TileQueries), d)
	pieces(slotK, kernel.TileKeys, d)
	pieces(slotV, ceilTo(dv, kernel.PieceLines), kernel.TileKeys)
	atLeast(slotS, kernel.TileWork+kernel.TileKeys*max(ceilTo(dv, kernel.PieceLines), d))
	return n
}

// paddedRows is rows, filled up to whole sixes and whole groups of a tile.
func paddedRows(rows int) int { return max(ceilTo(rows, 6), ceilTo(rows, kernel.TileQueries)) }

// tileUnit is what a unit has besides while it goes through tiles.
type tileUnit struct {
	kernel.OnlineTiles
	k, v   []uint16           // pieces of a block of keys and of values, panel by panel
	rows   []float32          // TileKeys rows of keys or values
	keyed  float32            // that keys are multiplied with before they are cut
	bounds kernel.PieceBounds // of the queries
}

// length is the number of pieces, of which a rounded number has one.
func (t *tileUnit) length(lines, k int) int {
	if t.Rounded {
		return kernel.RoundedLen(lines, k)
	}
	return kernel.PiecesLen(lines, k)
}

func (t *tileUnit) packKeys(dst []uint16, x kernel.Matrix[float32], bounds []kernel.PieceBounds) {
	if t.Half {
		kernel.PackHalfA(dst, x, bounds)
		return
	}
	t.packA(dst, x, bounds)
}

func (t *tileUnit) packA(dst []uint16, x kernel.Matrix[float32], bounds []kernel.PieceBounds) {
	if t.Rounded {
		kernel.PackRoundedA(dst, x, bounds)
		return
	}
	kernel.PackPiecesA(dst, x, bounds)
}

func (t *tileUnit) packQueries(dst []uint16, x kernel.Matrix[float32], bounds []kernel.PieceBounds) {
	switch {
	case t.Rounded:
		kernel.PackRoundedB(dst, x, bounds)
	case t.Half:
		kernel.PackHalfB(dst, x, bounds)
	default:
		kernel.PackPiecesB(dst, x, bounds)
	}
}

// beginTiles cuts the unit's queries.
func (u *forwardUnit[T]) beginTiles(w *parallel.Worker) {
	rows, q, size := u.st.rows(), &u.problem.q, &u.scratch
	t := &u.tiles
	groups := (rows + kernel.TileQueries - 1) / kernel.TileQueries
	all := groups * kernel.TileQueries
	work := parallel.Scratch[float32](w, slotS, size[slotS])
	t.rows = work[kernel.TileWork:]
	t.k, t.v = parallel.Scratch[uint16](w, slotK, 2*size[slotK]), parallel.Scratch[uint16](w, slotV, 2*size[slotV])
	t.OnlineTiles = kernel.OnlineTiles{
		Q: parallel.Scratch[uint16](w, slotQ, 2*size[slotQ]), O: float32s(u.o), D: q.Dim, Ld: u.ld, Scale: float32(u.keyScale()),
		RowMax: float32s(u.rowMax)[:all], RowSum: float32s(u.rowSum)[:all], Lo: u.lo[:all], Hi: u.hi[:all], Work: work[:kernel.TileWork],
	}
	// A scale that is no power of two is multiplied with keys, as everywhere else, lest scores round in another way than in the
	// backward pass.
	t.keyed, t.Rounded = 1, u.rounds
	if f, _ := math.Frexp(float64(t.Scale)); f != 0.5 && !u.rounds {
		t.keyed, t.Scale = t.Scale, 1
	}
	// Half a step rounds in another order than the backward pass.
	t.Half = !u.rounds && u.problem.rowMax == nil && kernel.HalfStep(q.Dim)
	t.bounds = kernel.JoinPieceBounds()
	group := t.length(kernel.TileQueries, q.Dim)
	for g := range groups {
		r0 := g * kernel.TileQueries
		n := min(kernel.TileQueries, rows-r0)
		x := kernel.Matrix[float32]{Data: t.rows, Rows: n, Cols: q.Dim, RowStride: q.Dim, ColStride: 1}
		if u.st.group == 1 {
			i, h := u.st.place(r0)
			x.Data, x.RowStride = float32s(q.Data[q.at(u.st.seg.batch, i, h):]), q.SeqStride
		} else {
			for r := range n {
				i, h := u.st.place(r0 + r)
				copy(t.rows[r*q.Dim:][:q.Dim], float32s(q.row(u.st.seg.batch, i, h)))
			}
		}
		var bounds [kernel.TileQueries / kernel.PieceLines]kernel.PieceBounds
		panels := (n + kernel.PieceLines - 1) / kernel.PieceLines
		t.packQueries(t.Q[g*group:], x.T(), bounds[:panels])
		t.bounds = kernel.JoinPieceBounds(t.bounds, kernel.JoinPieceBounds(bounds[:panels]...))
	}
}

// tilePass takes all rows over keys j0 ≤ j < j1, or reports false, with nothing done, where these are not for tiles.
func (u *forwardUnit[T]) tilePass(j0, j1 int) bool {
	t := &u.tiles
	n := j1 - j0
	if !u.packTiles(j0, n) {
		return false
	}
	g0, g1 := u.groups(j0, j1)
	u.askAhead(j1)
	t.Step(g0, g1, t.k, t.v, j0, n)
	t.Ahead.Rest()
	return true
}

// groups are the groups of rows that may see keys j0 ≤ j < j1.
func (u *forwardUnit[T]) groups(j0, j1 int) (g0, g1 int) {
	t := &u.tiles
	r0 := sort.Search(len(t.Hi), func(r int) bool { return int(t.Hi[r]) > j0 })
	r1 := sort.Search(len(t.Lo), func(r int) bool { return int(t.Lo[r]) >= j1 })
	return r0 / kernel.TileQueries, (r1 + kernel.TileQueries - 1) / kernel.TileQueries
}

// stepTiles calls step for groups of rows that may see keys j0 ≤ j < j1, a few at a time.
func (u *forwardUnit[T]) stepTiles(j0, j1 int, step func(g0, g1 int)) {
	t := &u.tiles
	r0, r1 := u.groups(j0, j1)
	// Keys and values of the next panel are asked for bit by bit.
	next, end := j1, min(j1+kernel.TileKeys, int(t.Hi[len(t.Hi)-1]))
	const few = 3
	for r := r0; r < r1; r += few {
		to := min(next+(end-next)*few/max(few, r1-r)+1, end)
		u.fetch(next, to)
		next = to
		step(r, min(r+few, r1))
	}
}

// fetch asks for keys, unless their codes are there already, and values j0 ≤ j < j1.
func (u *forwardUnit[T]) fetch(j0, j1 int) {
	for _, x := range [...]*Heads[T]{&u.k, &u.problem.v} {
		if j1 > j0 && (x != &u.k || u.codes == nil) {
			kernel.Prefetch(x.Data[x.at(u.st.seg.batch, j0, u.st.kvHead):], x.SeqStride, j1-j0, x.Dim)
		}
	}
}

// packTiles cuts n keys and values from j on, and reports whether tiles multiply them.
func (u *forwardUnit[T]) packTiles(j, n int) bool {
	t, b, h := &u.tiles, u.st.seg.batch, u.st.kvHead
	k, v := &u.k, &u.problem.v
	var bounds [maxDim / kernel.PieceLines]kernel.PieceBounds
	x := kernel.Matrix[float32]{Data: float32s(k.Data[k.at(b, j, h):]), Rows: n, Cols: k.Dim, RowStride: k.SeqStride, ColStride: 1}
	if t.keyed != 1 {
		for r := range n {
			kernel.Scale(t.rows[r*k.Dim:][:k.Dim], x.Data[r*k.SeqStride:][:k.Dim], t.keyed)
		}
		x.Data, x.RowStride = t.rows, k.Dim
	}
	t.packKeys(t.k, x, bounds[:])
	keys := kernel.JoinPieceBounds(bounds[:(n+kernel.PieceLines-1)/kernel.PieceLines]...)
	x = kernel.Matrix[float32]{Data: float32s(v.Data[v.at(b, j, h):]), Rows: v.Dim, Cols: n, RowStride: 1, ColStride: v.SeqStride}
	t.packA(t.v, x, bounds[:])
	values := kernel.JoinPieceBounds(bounds[:u.ld/kernel.PieceLines]...)
	return t.bounds.Safe(keys, k.Dim) && tileWeights.Safe(values, u.problem.k.Seq)
}

// endTiles turns the output to rows.
func (u *forwardUnit[T]) endTiles() {
	t := &u.tiles
	for g := 0; g < len(t.RowMax); g += kernel.TileQueries {
		block := t.O[g*u.ld:][:kernel.TileQueries*u.ld]
		turned := t.rows[:len(block)]
		copy(turned, block)
		kernel.Transpose(block, u.ld, turned, kernel.TileQueries, u.ld, kernel.TileQueries, 1)
	}
}

// float32s views x, whose elements are float32.
func float32s[T kernel.Float](x []T) []float32 { return any(x).([]float32) }
