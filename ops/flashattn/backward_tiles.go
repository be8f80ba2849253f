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

	// Two tiles of scores, for those of the next one are multiplied while weights are made, which take the same room for all.
	between     [2]kernel.BackTile[T]
	info        []kernel.BackRow // of the rows of the chunk
	seenBy      []kernel.BackRow // of those and each 32 keys, where not all is seen
	turn        int              // the tile for the next scores
	first, then kernel.PieceProducts
	runs        [kernel.BackRows / 32 * tilePanel / 32]kernel.WeighRun // of the tile whose scores are there; then has its other products
	running     int                                                    // of the runs
}

// Sizes in tiles: panels of keys, and what rows of a chunk are a multiple of.
const (
	tilePanel = 64
	tileRows  = 32
)

// backInfo is how many kernel.BackRow there are for a row.
const backInfo = 1 + tilePanel/32

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

// tileScratch is the number of elements in each slot; those of slotBackEdges are int32, those of slotBackKeys and
// slotBackPieces uint16, those of slotBackInfo kernel.BackRow.
func (b blocks) tileScratch(rows, d, dv int) (n [allSlots]int) {
	d16, d32, dv16, dv32 := ceilTo(d, 16), ceilTo(d, 32), ceilTo(dv, 16), ceilTo(dv, 32)
	n[slotBackEdges] = 2 * rows
	n[slotBackKeys] = 3 * b.keys * (d32 + d16 + dv32)
	n[slotBackGrads] = b.keys * (d16 + dv16)
	n[slotBackRows] = b.chunk * (d32 + d16 + dv32 + 2)
	n[slotBackTiles] = 4*b.chunk*tilePanel + tilePanel*max(d32, dv32)
	n[slotBackInfo] = backInfo * kernel.BackRows
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
	carve(parallel.Scratch[T](w, slotBackTiles, n[slotBackTiles]), part[T]{&t.between[0].Scores, 2 * size}, part[T]{&t.between[1].Scores, 2 * size},
		part[T]{&t.buf, tilePanel * max(t.d32, t.dv32)})
	carve(t.between[0].Scores, part[T]{&u.s, size}, part[T]{&u.ds, size})
	carve(t.between[1].Scores, part[T]{&u.dropped, size}, part[T]{&u.capped, size}) // without tiles and with features one after the other
	carve(parallel.Scratch[kernel.BackRow](w, slotBackInfo, n[slotBackInfo]), part[kernel.BackRow]{&t.info, kernel.BackRows},
		part[kernel.BackRow]{&t.seenBy, (backInfo - 1) * kernel.BackRows})
	carve(parallel.Scratch[uint16](w, slotBackPieces, n[slotBackPieces]),
		part[uint16]{&t.qRows, 3 * c * t.d32}, part[uint16]{&t.qCols, 3 * c * t.d16},
		part[uint16]{&t.dOutRows, 3 * c * t.dv32}, part[uint16]{&t.dOutCols, 3 * c * t.dv16},
		part[uint16]{&t.between[0].ByCols, 6 * size}, part[uint16]{&t.between[0].ByRows, 3 * size})
	t.between[1].ByCols, t.between[1].ByRows = t.between[0].ByCols, t.between[0].ByRows
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
		if next := j + tilePanel; next < j1 {
			for _, x := range [...]*Heads[T]{&u.problem.k, &u.problem.v} {
				kernel.Prefetch(x.Data[x.at(b, next, h):], x.SeqStride, min(tilePanel, j1-next), x.Dim)
			}
		}
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
		for r := range t.filled {
			t.info[r] = kernel.BackRow{Max: float32(u.rowMax[r]), Delta: float32(u.delta[r]), Seen: ^uint32(0)}
		}
	}
	return fine
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
	n := r.tileScratch(0, r.q.Dim, dv) // what units want of the same slots, so that these do not grow
	carve(parallel.Scratch[T](w, slotBackRows, max(n[slotBackRows], deltaRows*(2*ld+deltaRows))), part[T]{&x, deltaRows * ld}, part[T]{&y, deltaRows * ld},
		part[T]{&sums, deltaRows * deltaRows})
	half := 3 * deltaRows * ld
	pieces := parallel.Scratch[uint16](w, slotBackPieces, max(n[slotBackPieces], 2*half))
	whole := len(to) == deltaRows && dv == ld // so that out can be cut where it lies
	if !whole {
		clear(x)
		clear(y)
	}
	for p := range to {
		kernel.Scale(x[p*ld:][:dv], r.dOut.row(b, i+p, h), r.inverse(r.rowAt(b, h, i+p)))
		if !whole {
			copy(y[p*ld:][:dv], r.out.row(b, i+p, h))
		}
	}
	stride := ld
	if whole {
		y, stride = r.out.Data[r.out.at(b, i, h):], r.out.SeqStride
	}
	if !inRange(kernel.SplitRows(pieces, x, ld, deltaRows, ld, false), tilesLeastDOut) ||
		!inRange(kernel.SplitRows(pieces[half:], y, stride, deltaRows, ld, true), tilesLeast) {
		return false
	}
	kernel.MultiplyPieces(sums, deltaRows, pieces, ld/32, pieces[half:], ld/32, deltaRows/16, deltaRows/16, ld/32, false)
	for p := range to {
		to[p] = sums[p*(deltaRows+1)]
	}
	return true
}

// deltaRows is how many rows deltas takes at a time.
const deltaRows = 32
