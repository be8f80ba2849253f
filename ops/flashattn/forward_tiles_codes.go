package flashattn

import (
	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Under Int8 the forward pass goes through kernel.OnlineCodeTiles where the processor has tiles: keys lie in tiles already, and scores have
// the bits that they have elsewhere, so that a backward pass may follow.

// codeTiles reports whether units go through tiles of codes.
func (p *problem[T]) codeTiles() bool {
	return inCodeTiles[T](p.attrs, p.forwardBlocks(p.q.Dim, p.v.Dim), p.bias.data != nil, p.q.Seq*p.q.Heads/p.k.Heads)
}

// inCodeTiles is codeTiles for rows query rows of a key head; few rows would leave most of a tile empty.
func inCodeTiles[T kernel.Float](a attrs, b blocks, bias bool, rows int) bool {
	return kernel.TilesFused[T]() && a.Precision == Int8 && a.maskOnly(b, bias) && rows > directRows
}

// beginCodeTiles gathers the codes of the unit's rows, transposed in sixteens, zeros where they are filled up.
func (u *forwardUnit[T]) beginCodeTiles(w *parallel.Worker) {
	rows, size, t, c := u.st.rows(), &u.scratch, &u.tiles, u.codes
	all := ceilTo(rows, kernel.TileQueries)
	work := parallel.Scratch[float32](w, slotS, size[slotS])
	t.rows = work[kernel.TileWork:]
	t.v = parallel.Scratch[uint16](w, slotV, 2*size[slotV])
	codes := parallel.Scratch[int8](w, slotQ, 4*size[slotQ])[:4*all*c.words]
	clear(codes)
	u.coded.scale = parallel.Scratch[float32](w, slotUnitCodes, size[slotUnitCodes])[:all]
	clear(u.coded.scale)
	t.OnlineTiles = kernel.OnlineTiles{
		O: float32s(u.o), D: 4 * c.words, Ld: u.ld, RowMax: float32s(u.rowMax)[:all], RowSum: float32s(u.rowSum)[:all], Lo: u.lo[:all], Hi: u.hi[:all],
		Work: work[:kernel.TileWork],
	}
	u.coded.q = codes
	to := words(codes)
	for r := range rows {
		i, h := u.st.place(r)
		at := u.rowAt(u.st.seg.batch, h, i)
		panel := to[r/16*16*c.words+r%16:]
		for n, x := range words(c.q[at*4*c.words:][:4*c.words]) {
			panel[n*16] = x
		}
		u.coded.scale[r] = float32(c.qScale[at] * u.keyScale())
	}
}

// codeTilePass takes all rows over the panel of keys j0 ≤ j < j1, or reports false, with nothing done, where it has values that are not
// for tiles.
func (u *forwardUnit[T]) codeTilePass(j0, j1 int) bool {
	t, v, c, seg, h, n := &u.tiles, &u.problem.v, u.codes, u.st.seg, u.st.kvHead, j1-j0
	var bounds [maxDim / kernel.PieceLines]kernel.PieceBounds
	x := kernel.Matrix[float32]{Data: float32s(v.Data[v.at(seg.batch, j0, h):]), Rows: v.Dim, Cols: n, RowStride: 1, ColStride: v.SeqStride}
	kernel.PackPiecesA(t.v, x, bounds[:])
	if !tileWeights.Safe(kernel.JoinPieceBounds(bounds[:u.ld/kernel.PieceLines]...), u.problem.k.Seq) {
		return false
	}
	s := kernel.OnlineCodeTiles{OnlineTiles: t.OnlineTiles, Codes: u.coded.q, RowScale: u.coded.scale}
	keys, scales := signed(c.panel(seg, h, j0)), float32s(c.keyScales(seg, h, j0, codePanel))
	u.stepTiles(j0, j1, func(g0, g1 int) { s.Step(g0, g1, keys, scales, t.v, j0, n) })
	return true
}
