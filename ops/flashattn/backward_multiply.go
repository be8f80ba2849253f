package flashattn

import "stheno/internal/kernel"

// The five products of a tile, and what lies between them. Scores and dP of a tile are multiplied while weights and dS of the one before
// are made, which takes other units of the processor; then follow the products of these.

// multiply adds what keys j … of a panel contribute, j1 of the block being its end, for the rows of t and those beside them that fill
// up tiles. The chunk begins at row r0, ends at r1, and the block begins at key j0. All of it has been added after finish.
func (u *backwardUnit[T]) multiply(t tile, r0, r1, j0, j1, j int) {
	x := &u.backwardTiles
	plain := u.Dropout == 0 && u.Softcap == 0 && u.dBias.data == nil
	from, to, full := u.extent(t, r0, r1, j, min(j+tilePanel, j1), !plain)
	at, scores := 3*(j-j0), &x.between[x.turn]
	for h := range from {
		rows, n := from[h], 2*(to[h]-from[h])
		s := scores.Scores[32*(rows*tilePanel+h):]
		kernel.AddPieces(&x.first, s, tilePanel, x.qRows[96*rows*x.d32:], x.d32/32, x.kScores[(at+96*h)*x.d32:], x.d32/32, n, 2, x.d32/32, false)
		kernel.AddPieces(&x.first, s[kernel.BackRows*tilePanel:], tilePanel, x.dOutRows[96*rows*x.dv32:], x.dv32/32, x.values[(at+96*h)*x.dv32:], x.dv32/32,
			n, 2, x.dv32/32, false)
	}
	x.advance()

	if !plain || u.slopes != nil || u.bias.data != nil {
		u.stages(t, r0, r1, j, min(j+tilePanel, j1), plain)
	}
	if plain {
		for h := range from {
			for i := from[h]; i < to[h]; i++ {
				rows := x.info[32*i:]
				if !full {
					rows = u.seen(r0, r1, j, i, h)
				}
				x.runs[x.running] = scores.Run(i, h, rows)
				x.running++
			}
		}
	}

	chunk, size := x.filled/32, kernel.PieceTile
	for h := range from {
		i, n, panel := from[h], to[h]-from[h], (j - j0)
		weights := scores.ByCols[(2*h*kernel.BackRows/32+i)*size:]
		kernel.AddPieces(&x.then, x.dvT[panel*x.dv16+32*h:], tilePanel, x.dOutCols[i*size:], chunk, weights, kernel.BackRows/32, x.dv16/16, 2, n, true)
		kernel.AddPieces(&x.then, x.dkT[panel*x.d16+32*h:], tilePanel, x.qCols[i*size:], chunk, weights[3*kernel.BackRows*tilePanel:], kernel.BackRows/32, x.d16/16, 2, n, true)
	}
	for i := min(from[0], from[1]); i < max(to[0], to[1]); i++ {
		h, n := 0, 0
		for k := range from {
			if from[k] <= i && i < to[k] {
				h, n = k-n, n+1
			}
		}
		kernel.AddPieces(&x.then, u.dq[32*i*x.d16:], x.d16, scores.ByRows[(2*i*tilePanel/32+h)*size:], tilePanel/32, x.kGrads[at*x.d16+h*size:], tilePanel/32,
			2, x.d16/16, n, true)
	}
	if plain && u.slopes == nil && u.bias.data == nil {
		x.turn = 1 - x.turn
		return
	}
	u.finish()
}

// extent returns which rows of the chunk, in 32s, see some of each 32 keys from j to j1, and whether all of these see all of those; or
// all rows of t.
func (u *backwardUnit[T]) extent(t tile, r0, r1, j, j1 int, all bool) (from, to [tilePanel / 32]int, full bool) {
	full = true
	for h := range from {
		first, last := j+32*h, min(j+32*h+32, j1)
		a, z := (t.ra-r0)/32, (t.rz-r0+31)/32
		for !all && a < z && int(u.hi[min(r0+32*a+32, r1)-1]) <= first {
			a++
		}
		for !all && z > a && int(u.lo[r0+32*z-32]) >= last {
			z--
		}
		if first < last && a < z {
			from[h], to[h] = a, z
			full = full && int(u.hi[r0+32*a]) >= first+32 && int(u.lo[min(r0+32*z, r1)-1]) <= first
		}
	}
	return from, to, full
}

// seen returns rows 32i… of the chunk with the h-th 32 keys from j that they see.
func (u *backwardUnit[T]) seen(r0, r1, j, i, h int) []kernel.BackRow {
	rows, first := u.seenBy[h*kernel.BackRows+32*i:][:32], j+32*h
	for r := range rows {
		rows[r] = u.info[32*i+r]
		rows[r].Seen = 0
		if at := r0 + 32*i + r; at < r1 {
			rows[r].Seen = below(int(u.hi[at])-first) &^ below(int(u.lo[at])-first)
		}
	}
	return rows
}

// below has the lowest n of 32 bits.
func below(n int) uint32 {
	return uint32(uint64(1)<<min(max(n, 0), 32) - 1)
}

// advance computes the scores of the next tile, if there is one, and all that is left of the one before.
func (x *backwardTiles[T]) advance() {
	kernel.Weigh(&x.first, x.runs[:x.running], &x.then)
	x.first.Reset()
	x.then.Reset()
	x.running = 0
}

// finish computes what is left.
func (u *backwardUnit[T]) finish() {
	if u.tiles {
		u.advance()
	}
}

// stages turns products into logits and, for features with a gradient, makes weights and dS of them in steps, and cuts them: rows and
// keys that fill up tiles have weights of 0, and dS too, for they are products with zeros.
func (u *backwardUnit[T]) stages(t tile, r0, r1, j, j1 int, plain bool) {
	x, ld, a, z := &u.backwardTiles, tilePanel, (t.ra-r0)/32*32, ceilTo(t.rz-r0, 32)
	t = tile{ra: r0 + a, rz: min(r0+z, r1), ja: j, jz: j1}
	t.full = int(u.hi[t.ra]) >= t.jz && int(u.lo[t.rz-1]) <= t.ja
	s, ds, dropped, capped, m, n := u.s[a*ld:], u.ds[a*ld:], u.dropped[a*ld:], u.capped[a*ld:], t.rz-t.ra, t.jz-t.ja
	u.scores(&u.st, t, s, ld, u.lo, u.hi, capped)
	if plain {
		return
	}
	kernel.ProbFromLSE(s, s, ld, m, n, u.rowMax[a:][:m])
	weights := u.s
	if u.Dropout > 0 {
		weights = u.dropped
		copy(dropped[:(z-a)*ld], s)
		u.drop(&u.st, t, dropped, s, ld)
		u.drop(&u.st, t, ds, ds, ld)
	}
	kernel.SplitColumns(x.between[0].ByCols, weights, ld, kernel.BackRows, ld, false)
	kernel.DScore(ds, s, ds, ld, m, n, u.delta[a:][:m])
	u.addBias(t, ds)
	if u.Softcap > 0 {
		kernel.SoftcapGrad(ds, capped, ld, m, n, u.Softcap)
	}
	kernel.SplitColumns(x.between[0].ByCols[3*kernel.BackRows*ld:], u.ds, ld, kernel.BackRows, ld, false)
	kernel.SplitRows(x.between[0].ByRows, u.ds, ld, kernel.BackRows, ld, false)
}
