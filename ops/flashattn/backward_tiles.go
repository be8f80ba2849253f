package flashattn

import (
	"math"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Where there are tiles of AMX, the five products of the backward pass run there. Keys and values of a block and q and dOut of a
// chunk are cut into pieces when they are read, weights and dS of a tile when they are made. What is made of the scores in between is
// the same as elsewhere. Of dK and dV the transpose is added up, for then neither weights nor dS need to be transposed.

// Numbers that tiles multiply as exactly as float32: a panel of keys or a chunk of rows whose largest magnitude is not 0 and not in
// this range goes the way of other processors. Below, pieces of products that count would fall under 2⁻¹²⁶; above, dS or a
// sum could overflow. dOut comes divided by the sum of its row, and is what is small in practice.
const (
	tilesLeast     = 0x1p-32
	tilesLeastDOut = 0x1p-64
	tilesMost      = 0x1p56
)

// backwardTiles is what a backwardUnit holds besides.
type backwardTiles[T kernel.Float] struct {
	d16, d32, dv16, dv32 int // dimensions of heads, filled up

	// Pieces of a block of keys, panel by panel: of k, scaled, for the scores, of k for dQ, of v.
	kScores, kGrads, values []uint16
	fine                    [maxBlock / tilePanel]bool // panels whose numbers are in range
	dkT, dvT                []T                        // d16 × tilePanel and dv16 × tilePanel for each panel
	buf                     []T                        // rows of a panel

	// Pieces of a chunk of rows: of q and dOut for scores and their gradient, and transposed for those of keys and values.
	qRows, qCols, dOutRows, dOutCols []uint16
	filled                           int // rows of the chunk, filled up

	// Pieces of a tile: of weights and dS for dV and dK, of dS for dQ.
	weights, dsCols, dsRows []uint16
}

// Sizes in tiles: panels of keys, and what rows of a chunk are a multiple of.
const (
	tilePanel = 64
	tileRows  = 32
)

// tileBlocks chooses the sizes of blocks. Chunks are whole sixes too, for what goes the way of other processors.
func (a attrs) tileBlocks(d, dv int) blocks {
	b := blocks{keys: 512, chunk: 96, panel: tilePanel}
	if d+dv > 256 {
		b.keys = 256
	}
	if a.BlockKV > 0 {
		b.keys = ceilTo(a.BlockKV, tilePanel)
	}
	return b
}

// tileScratch is the number of elements in each slot; those of slotBackEdges are int32, those of slotBackKeys and slotBackPieces uint16.
func (b blocks) tileScratch(rows, d, dv int) (n [allSlots]int) {
	d16, d32, dv16, dv32 := ceilTo(d, 16), ceilTo(d, 32), ceilTo(dv, 16), ceilTo(dv, 32)
	n[slotBackEdges] = 2 * rows
	n[slotBackKeys] = 3 * b.keys * (d32 + d16 + dv32)
	n[slotBackGrads] = b.keys * (d16 + dv16)
	n[slotBackRows] = b.chunk * (d32 + d16 + dv32 + 2)
	n[slotBackTiles] = 4*b.chunk*tilePanel + tilePanel*max(d32, dv32)
	n[slotBackPieces] = 3 * b.chunk * (d16 + d32 + dv16 + dv32 + 3*tilePanel)
	return n
}

// carveTiles takes the unit's memory.
func (u *backwardUnit[T]) carveTiles(w *parallel.Worker, rows, d, dv int) {
	n, t := u.tileScratch(rows, d, dv), &u.backwardTiles
	t.d16, t.d32, t.dv16, t.dv32 = ceilTo(d, 16), ceilTo(d, 32), ceilTo(dv, 16), ceilTo(dv, 32)
	keys, c, size := u.keys, u.chunk, u.chunk*tilePanel
	carve(parallel.Scratch[uint16](w, slotBackKeys, n[slotBackKeys]),
		part[uint16]{&t.kScores, 3 * keys * t.d32}, part[uint16]{&t.kGrads, 3 * keys * t.d16}, part[uint16]{&t.values, 3 * keys * t.dv32})
	carve(parallel.Scratch[T](w, slotBackGrads, n[slotBackGrads]), part[T]{&t.dkT, keys * t.d16}, part[T]{&t.dvT, keys * t.dv16})
	u.ldq, u.ldo, u.lddq = t.d32, t.dv32, t.d16
	carve(parallel.Scratch[T](w, slotBackRows, n[slotBackRows]), part[T]{&u.q, c * u.ldq}, part[T]{&u.dq, c * u.lddq},
		part[T]{&u.dOut, c * u.ldo}, part[T]{&u.rowMax, c}, part[T]{&u.delta, c})
	carve(parallel.Scratch[T](w, slotBackTiles, n[slotBackTiles]), part[T]{&u.s, size}, part[T]{&u.ds, size}, part[T]{&u.dropped, size},
		part[T]{&u.capped, size}, part[T]{&t.buf, tilePanel * max(t.d32, t.dv32)})
	carve(parallel.Scratch[uint16](w, slotBackPieces, n[slotBackPieces]),
		part[uint16]{&t.qRows, 3 * c * t.d32}, part[uint16]{&t.qCols, 3 * c * t.d16},
		part[uint16]{&t.dOutRows, 3 * c * t.dv32}, part[uint16]{&t.dOutCols, 3 * c * t.dv16},
		part[uint16]{&t.weights, 3 * size}, part[uint16]{&t.dsCols, 3 * size}, part[uint16]{&t.dsRows, 3 * size})
}

// carvePlain takes memory for a block that needs the way of other processors as well, of slots of the forward pass.
func (u *backwardUnit[T]) carvePlain(w *parallel.Worker) {
	keys, d, dv := u.keys, u.problem.q.Dim, u.problem.v.Dim
	carve(parallel.Scratch[T](w, slotK, keys*(2*d+dv)), part[T]{&u.k, keys * d}, part[T]{&u.kt, keys * d}, part[T]{&u.vt, keys * dv})
	carve(parallel.Scratch[T](w, slotV, keys*(d+dv)), part[T]{&u.dk, keys * d}, part[T]{&u.dv, keys * dv})
}

// inRange reports whether numbers up to x are 0 or in range. A NaN is not.
func inRange[T kernel.Float](x T, least float64) bool {
	return x == 0 || float64(x) >= least && float64(x) <= tilesMost
}

// packTiles cuts keys and values of j0 ≤ j < j1.
func (u *backwardUnit[T]) packTiles(j0, j1 int) {
	t, b, h, d, dv := &u.backwardTiles, u.st.seg.batch, u.st.kvHead, u.problem.q.Dim, u.problem.v.Dim
	for j := j0; j < j1; j += tilePanel {
		n, at := min(tilePanel, j1-j), 3*(j-j0)
		clear(t.buf[n*t.d32 : tilePanel*t.d32])
		gather(t.buf, t.d32, u.problem.k.Data[u.problem.k.at(b, j, h):], n, u.problem.k.SeqStride, d)
		fine := inRange(kernel.SplitColumns(t.kGrads[at*t.d16:], t.buf, t.d32, tilePanel, t.d16, false), tilesLeast)
		kernel.Scale(t.buf[:n*t.d32], t.buf[:n*t.d32], u.keyScale())
		fine = inRange(kernel.SplitRows(t.kScores[at*t.d32:], t.buf, t.d32, tilePanel, t.d32, true), tilesLeast) && fine
		clear(t.buf[n*t.dv32 : tilePanel*t.dv32])
		gather(t.buf, t.dv32, u.problem.v.Data[u.problem.v.at(b, j, h):], n, u.problem.v.SeqStride, dv)
		fine = inRange(kernel.SplitRows(t.values[at*t.dv32:], t.buf, t.dv32, tilePanel, t.dv32, true), tilesLeast) && fine
		t.fine[(j-j0)/tilePanel] = fine
	}
	clear(t.dkT)
	clear(t.dvT)
}

// fillChunk cuts the m rows of a chunk, and reports whether their numbers are in range.
func (u *backwardUnit[T]) fillChunk(m int) bool {
	t := &u.backwardTiles
	t.filled = ceilTo(m, tileRows)
	for r, most := range u.rowMax[:m] {
		if math.IsInf(float64(most), -1) {
			u.rowMax[r] = T(math.Inf(1)) // no key is seen, and every weight is 0
		}
	}
	fill(u.rowMax[m:t.filled], T(math.Inf(1)))
	clear(u.delta[m:t.filled])
	clear(u.q[m*u.ldq : t.filled*u.ldq])
	clear(u.dOut[m*u.ldo : t.filled*u.ldo])
	clear(u.dq[:t.filled*u.lddq])
	fine := inRange(kernel.SplitRows(t.qRows, u.q, u.ldq, t.filled, t.d32, false), tilesLeast) &&
		inRange(kernel.SplitRows(t.dOutRows, u.dOut, u.ldo, t.filled, t.dv32, false), tilesLeastDOut) &&
		inRange(kernel.AbsMax(u.delta[:m]), 0)
	if fine {
		kernel.SplitColumns(t.qCols, u.q, u.ldq, t.filled, t.d16, true)
		kernel.SplitColumns(t.dOutCols, u.dOut, u.ldo, t.filled, t.dv16, true)
	}
	return fine
}

// multiply adds what keys j … of a panel contribute, j1 of the block being its end, for the rows of t and those beside them that fill
// up tiles. The chunk begins at row r0, ends at r1, and the block begins at key j0.
func (u *backwardUnit[T]) multiply(t tile, r0, r1, j0, j1, j int) {
	x, size := &u.backwardTiles, kernel.PieceTile
	a, z := (t.ra-r0)/tileRows*tileRows, ceilTo(t.rz-r0, tileRows)
	n, cols := min(tilePanel, j1-j), ceilTo(min(tilePanel, j1-j), 32)
	t = tile{ra: r0 + a, rz: min(r0+z, r1), ja: j, jz: j + n}
	t.full = int(u.hi[t.ra]) >= t.jz && int(u.lo[t.rz-1]) <= t.ja
	steps, at, ld := (z-a)/32, 3*(j-j0), tilePanel

	kernel.MultiplyPieces(u.s, ld, x.qRows[3*a*x.d32:], x.d32/32, x.kScores[at*x.d32:], x.d32/32, (z-a)/16, cols/16, x.d32/32, false)
	kernel.MultiplyPieces(u.ds, ld, x.dOutRows[3*a*x.dv32:], x.dv32/32, x.values[at*x.dv32:], x.dv32/32, (z-a)/16, cols/16, x.dv32/32, false)
	u.scores(&u.st, t, u.s, ld, u.lo, u.hi, u.capped)
	if u.Dropout == 0 && u.Softcap == 0 && u.dBias.data == nil {
		if n < cols {
			for r := range z - a {
				fill(u.s[r*ld+n:r*ld+cols], T(math.Inf(-1)))
			}
		}
		kernel.WeighPieces(u.s, u.ds, z-a, cols, u.rowMax[a:], u.delta[a:], x.weights, x.dsCols, x.dsRows)
	} else {
		u.weigh(t, z-a, cols, a)
	}

	chunk := x.filled / 32
	kernel.MultiplyPieces(x.dvT[(j-j0)*x.dv16:], ld, x.dOutCols[a/32*size:], chunk, x.weights, steps, x.dv16/16, cols/16, steps, true)
	kernel.MultiplyPieces(x.dkT[(j-j0)*x.d16:], ld, x.qCols[a/32*size:], chunk, x.dsCols, steps, x.d16/16, cols/16, steps, true)
	kernel.MultiplyPieces(u.dq[a*x.d16:], x.d16, x.dsRows, cols/32, x.kGrads[at*x.d16:], tilePanel/32, (z-a)/16, x.d16/16, cols/32, true)
}

// weigh makes weights and dS of the scores in steps, for the features that need it, and cuts them: rows and keys that fill up the tile t
// to rows × cols have weights of 0, and dS too, for they are products with zeros. t begins at row a of the chunk.
func (u *backwardUnit[T]) weigh(t tile, rows, cols, a int) {
	x, ld, m, n := &u.backwardTiles, tilePanel, t.rz-t.ra, t.jz-t.ja
	kernel.ProbFromLSE(u.s, u.s, ld, m, n, u.rowMax[a:][:m])
	weights := u.s
	if u.Dropout > 0 {
		weights = u.dropped
		copy(weights[:rows*ld], u.s)
		u.drop(&u.st, t, weights, u.s, ld)
		u.drop(&u.st, t, u.ds, u.ds, ld)
	}
	kernel.SplitColumns(x.weights, weights, ld, rows, cols, false)
	kernel.DScore(u.ds, u.s, u.ds, ld, m, n, u.delta[a:][:m])
	u.addBias(t)
	if u.Softcap > 0 {
		kernel.SoftcapGrad(u.ds, u.capped, ld, m, n, u.Softcap)
	}
	kernel.SplitColumns(x.dsCols, u.ds, ld, rows, cols, false)
	kernel.SplitRows(x.dsRows, u.ds, ld, rows, cols, false)
}

// addTiles adds the gradients of keys and values j0 ≤ j < j1.
func (u *backwardUnit[T]) addTiles(j0, j1 int) {
	t, b, h := &u.backwardTiles, u.st.seg.batch, u.st.kvHead
	for j := j0; j < j1; j += tilePanel {
		n := min(tilePanel, j1-j)
		turn := func(to Heads[T], x []T, scale float64) {
			if to.Data != nil {
				kernel.Transpose(t.buf, to.Dim, x, tilePanel, to.Dim, n, 1)
				add(to, b, j, h, n, t.buf, to.Dim, T(scale))
			}
		}
		turn(u.dK, t.dkT[(j-j0)*t.d16:], u.Scale)
		turn(u.dV, t.dvT[(j-j0)*t.dv16:], 1)
	}
}

// deltas are the sums of dOut∘out/rowSum of up to deltaRows rows from i of a (batch, head), summed in tiles as dP is: where all of a row's weight
// lies on one key, out is that key's value, and dP − delta is 0, as it should be. It is false where numbers are out of range.
func (r *backwardRun[T]) deltas(w *parallel.Worker, b, h, i int, to []T) bool {
	dv, ld := r.out.Dim, ceilTo(r.out.Dim, 32)
	var x, y, sums []T
	carve(parallel.Scratch[T](w, slotBackRows, deltaRows*(2*ld+deltaRows)), part[T]{&x, deltaRows * ld}, part[T]{&y, deltaRows * ld},
		part[T]{&sums, deltaRows * deltaRows})
	pieces := parallel.Scratch[uint16](w, slotBackPieces, 2*3*deltaRows*ld)
	clear(x)
	clear(y)
	for p := range to {
		kernel.Scale(x[p*ld:][:dv], r.dOut.row(b, i+p, h), r.inverse(r.rowAt(b, h, i+p)))
		copy(y[p*ld:][:dv], r.out.row(b, i+p, h))
	}
	half := len(pieces) / 2
	if !inRange(kernel.SplitRows(pieces, x, ld, deltaRows, ld, false), tilesLeastDOut) ||
		!inRange(kernel.SplitRows(pieces[half:], y, ld, deltaRows, ld, true), tilesLeast) {
		return false
	}
	kernel.MultiplyPieces(sums, deltaRows, pieces, ld/32, pieces[half:], ld/32, 1, 1, ld/32, false)
	for p := range to {
		to[p] = sums[p*(deltaRows+1)]
	}
	return true
}

// deltaRows is how many rows deltas takes at a time.
const deltaRows = 16
