package flashattn

import (
	"math"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// forwardRun computes a problem's output in units that are independent of each other.
type forwardRun[T kernel.Float] struct {
	*problem[T]
	blocks
	units   []stacked
	scratch [forwardSlots]int // elements in each slot for the largest unit, so that no slot grows on the way
	// fused is for plain attention, see online.go; of codes, if coded; inTiles in tiles, see forward_tiles.go.
	fused, fusedCodes, inTiles bool
	fusedPairs                 bool // see online_pairs.go
	scored                     bool // see forward_scores.go
}

// forward fills p.out and, unless nil, p.lse, p.rowMax and p.rowSum. Rows that belong to no segment get what a row without keys gets.
func (p *problem[T]) forward() {
	fill(p.lse, T(math.Inf(-1)))
	fill(p.rowMax, T(math.Inf(-1)))
	clear(p.rowSum)
	switch {
	case p.Precision == Float32:
		p.forwardUnits()
		return
	case roundsAsItGoes[T](p.attrs, p.forwardBlocks(p.q.Dim, p.v.Dim), p.bias.data != nil):
		x := *p
		x.rounds = true
		x.forwardUnits()
		return
	}
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		x := *p
		x.round(w)
		x.forwardUnits()
	})
}

func (p *problem[T]) forwardUnits() {
	f := &forwardRun[T]{problem: p, blocks: p.forwardBlocks(p.q.Dim, p.v.Dim)}
	f.plan()
	parallel.Run(len(f.units), f.unit)
}

// plan cuts the rows of every segment and key head into units of about f.rows rows. Under a causal mask the last rows see
// most, so they come first: what is left when the workers run out of units is small.
func (f *forwardRun[T]) plan() {
	if inTiles[T](f.attrs, f.blocks, f.bias.data != nil) {
		f.blocks = f.tiled(f.attrs, f.q.Batch*f.k.Heads, f.q.Seq*f.group, f.q.Dim, f.v.Dim)
	}
	step, longest, n := f.unitQueries(f.group), 0, 0
	for _, seg := range f.segs {
		longest = max(longest, seg.q1-seg.q0)
		n += (seg.q1 - seg.q0 + step - 1) / step * f.k.Heads
	}
	f.fused, f.fusedCodes = f.online()
	f.inTiles = f.codes != nil && f.codes.tiled || inTiles[T](f.attrs, f.blocks, f.bias.data != nil)
	f.fusedPairs = f.rounds && inPairs[T](f.attrs, f.blocks, f.bias.data != nil)
	f.fused = f.fused && !f.fusedPairs
	f.scored = !f.fused && !f.fusedPairs && !f.inTiles && scoresInTiles[T](f.attrs)
	rows := min(step, longest) * f.group
	f.scratch = f.forwardScratch(rows, f.q.Dim, f.v.Dim, f.Dropout > 0, f.inTiles)
	if f.scored {
		f.scoreScratch(&f.scratch, rows, f.q.Dim)
	}
	if f.fusedPairs {
		f.scratch[slotUnitCodes] = ceilTo(rows, 6) * pairWords(f.q.Dim)
	}
	f.units = make([]stacked, 0, n)
	for _, seg := range f.segs {
		for q1 := seg.q1; q1 > seg.q0; {
			q0 := seg.q0 + (q1-1-seg.q0)/step*step
			for h := range f.k.Heads {
				f.units = append(f.units, stacked{seg: seg, kvHead: h, q0: q0, q1: q1, group: f.group})
			}
			q1 = q0
		}
	}
}

// Scratch slots of a forward unit.
const (
	slotQ = iota
	slotO
	slotStats
	slotEdges
	slotK
	slotV
	slotS
	slotDropped
	slotUnitCodes
	slotScoreQ
	slotScoreK
	forwardSlots
)

// forwardScratch is the number of elements in each slot for a unit of the given rows; those of slotEdges are int32. Rows and
// columns of values are filled up to what kernel.Online wants.
func (b blocks) forwardScratch(rows, d, dv int, dropout, tiles bool) (n [forwardSlots]int) {
	if tiles {
		return b.forwardTileScratch(rows, d, dv)
	}
	rows, dv = ceilTo(rows, 6), ceilTo(dv, 16)
	n = [forwardSlots]int{
		slotQ: rows * d, slotO: rows * dv, slotStats: 3 * rows, slotEdges: 2 * rows,
		slotK: b.keys * d, slotV: b.keys * dv, slotS: max(b.chunk*b.panel, kernel.OnlineWork),
	}
	if b.coded { // a word of codes for four elements, scales and sums
		n[slotUnitCodes] = rows * ((d+3)/4 + 2)
	}
	if dropout {
		n[slotDropped] = b.chunk * b.panel
	}
	return n
}

// forwardUnit is the state of one unit on one worker.
type forwardUnit[T kernel.Float] struct {
	*forwardRun[T]
	n                     int // of all units
	st                    stacked
	first, last           int // the keys that it sees, from a whole number of panels on
	q, o                  []T // rows × d and rows × ld
	ld                    int // dv, filled up to whole vectors
	rowMax, rowSum, alpha []T // of each row
	lo, hi                []int32
	kt, v                 []T // packed keys, panels of (d × panel); packed values, keys × ld
	s, dropped            []T // a tile of scores, and of weights after dropout
	rounded               []T // keys of a block, if they are rounded here
	coded                 unitCodes
	pairs                 []uint32
	wide                  bool // q holds codes, or rounded numbers
	vFinite               bool
	direct                bool // see direct.go
	inTiles               bool // see forward_tiles.go
	tiles                 tileUnit
	scored                scoreUnit
}

func (f *forwardRun[T]) unit(w *parallel.Worker, n int) {
	st := f.units[n]
	rows := st.rows()
	u := forwardUnit[T]{forwardRun: f, n: n, st: st, ld: ceilTo(f.v.Dim, 16)}
	size, all := &f.scratch, ceilTo(rows, 6)
	if f.inTiles {
		all = paddedRows(rows)
	}
	u.o = parallel.Scratch[T](w, slotO, size[slotO])[:all*u.ld]
	stats := parallel.Scratch[T](w, slotStats, size[slotStats])
	u.rowMax, u.rowSum, u.alpha = stats[:all], stats[all:2*all], stats[2*all:3*all]
	edges := parallel.Scratch[int32](w, slotEdges, size[slotEdges])
	u.lo, u.hi = edges[:all], edges[all:2*all]
	clear(u.o)
	clear(u.rowSum)
	fill(u.rowMax, T(math.Inf(-1)))
	st.edges(f.sight, u.lo, u.hi)
	first, last := st.span(u.lo[:rows], u.hi[:rows], f.panel)
	u.first, u.last = first, last
	u.fillUp(rows)
	u.direct = rows <= directRows && f.rowMax == nil && f.codes == nil && !f.rounds
	if u.inTiles = f.inTiles && !u.direct; u.inTiles {
		u.beginInTiles(w)
	} else {
		u.begin(w)
	}
	if f.fusedCodes {
		u.gatherCodes(w)
	}
	if f.fusedPairs {
		u.gatherPairs(w)
	}
	for ; u.inTiles && first < last; first += kernel.TileKeys {
		if !u.passInTiles(first, min(first+kernel.TileKeys, last)) {
			u.endTiles()
			u.inTiles = false
			u.begin(w)
			break
		}
	}
	for ; first < last; first += f.keys {
		u.pass(first, min(first+f.keys, last))
	}
	if u.inTiles {
		u.endTiles()
	}
	u.finish()
}

func (u *forwardUnit[T]) beginInTiles(w *parallel.Worker) {
	if u.codes != nil {
		u.beginCodeTiles(w)
		return
	}
	u.beginTiles(w)
}

func (u *forwardUnit[T]) passInTiles(j0, j1 int) bool {
	if u.codes != nil {
		return u.codeTilePass(j0, j1)
	}
	return u.tilePass(j0, j1)
}

// begin readies the unit for keys and values that are packed as they are, in whole sixes of rows.
func (u *forwardUnit[T]) begin(w *parallel.Worker) {
	rows, d, size := u.st.rows(), u.problem.q.Dim, &u.scratch
	all := ceilTo(rows, 6)
	u.q = parallel.Scratch[T](w, slotQ, size[slotQ])[:all*d]
	u.kt = parallel.Scratch[T](w, slotK, size[slotK])
	u.v = parallel.Scratch[T](w, slotV, size[slotV])
	u.s = parallel.Scratch[T](w, slotS, size[slotS])
	u.dropped = parallel.Scratch[T](w, slotDropped, size[slotDropped])
	if u.rounds && !u.fusedPairs {
		u.rounded = parallel.Scratch[T](w, slotDropped, u.keys*d)
	}
	u.o, u.lo, u.hi = u.o[:all*u.ld], u.lo[:all], u.hi[:all]
	u.rowMax, u.rowSum, u.alpha = u.rowMax[:all], u.rowSum[:all], u.alpha[:all]
	for r := range rows {
		i, h := u.st.place(r)
		switch to := u.q[r*d:][:d]; {
		case u.direct:
			kernel.Scale(to, u.problem.q.row(u.st.seg.batch, i, h), u.keyScale())
		case u.codes != nil, u.fusedPairs: // widened where a block is not fused
		case u.rounds:
			roundRow(to, u.problem.q.row(u.st.seg.batch, i, h))
		default:
			copy(to, u.problem.q.row(u.st.seg.batch, i, h))
		}
	}
	clear(u.q[rows*d:])
	if u.forwardRun.scored && !u.direct {
		u.cutQueries(w)
	}
}

// pass takes all rows over keys j0 ≤ j < j1.
func (u *forwardUnit[T]) pass(j0, j1 int) {
	if !u.direct {
		u.pack(j0, j1)
	}
	switch {
	case u.fused && u.vFinite && !u.direct:
		u.online(j0, j1)
		return
	case u.fusedCodes && u.vFinite:
		u.onlineCodes(j0, j1)
		return
	case u.fusedPairs && u.vFinite:
		u.onlinePairs(j0, j1)
		return
	case u.fusedPairs && !u.wide:
		u.roundQueries()
	case u.codes != nil && !u.wide:
		u.widen()
	}
	rows := u.st.rows()
	for r0 := 0; r0 < rows; r0 += u.chunk {
		r1 := min(r0+u.chunk, rows)
		for j := j0; j < j1; j += u.panel {
			if t, ok := see(u.lo, u.hi, r0, r1, j, min(j+u.panel, j1)); ok {
				u.tile(t, j0, j)
			}
		}
	}
}

// pack copies keys, transposed and scaled, and values of j0 ≤ j < j1.
func (u *forwardUnit[T]) pack(j0, j1 int) {
	b, h := u.st.seg.batch, u.st.kvHead
	gather(u.v, u.ld, u.problem.v.Data[u.problem.v.at(b, j0, h):], j1-j0, u.problem.v.SeqStride, u.problem.v.Dim)
	u.vFinite = finite(u.v[:(j1-j0)*u.ld])
	if u.fusedPairs {
		if u.vFinite = u.vFinite && kernel.AbsMax(u.v[:(j1-j0)*u.ld]) < leastPaired; u.vFinite {
			u.packPairs(j0, j1)
			return
		}
	}
	if u.rounds {
		d, dv := u.problem.k.Dim, u.problem.v.Dim
		if u.rounded == nil { // rare
			u.rounded = make([]T, u.keys*d)
		}
		for j := range j1 - j0 {
			roundRow(u.v[j*u.ld:][:dv], u.v[j*u.ld:][:dv])
			roundRow(u.rounded[j*d:][:d], u.problem.k.row(b, j0+j, h))
		}
		x := Contiguous(u.rounded, 1, j1-j0, 1, d)
		packKeys(u.kt, &x, 0, 0, 0, j1-j0, u.panel, u.keyScale())
		return
	}
	if !u.fusedCodes || !u.vFinite {
		u.packScores(u.kt, u.st.seg, h, j0, j1, u.panel)
	}
	if u.forwardRun.scored {
		u.cutKeys(j0, j1)
	}
}

// packScores packs the keys that scores are made of: scaled, or their codes.
func (p *problem[T]) packScores(dst []T, seg segment, h, j0, j1, panel int) {
	if p.codes != nil {
		p.codes.keys(dst, p.k.Dim, seg, h, j0, j1, panel)
		return
	}
	packKeys(dst, &p.k, seg.batch, h, j0, j1, panel, p.keyScale())
}

// packKeys writes rows j0 ≤ j < j1 of one head of x, transposed and scaled, in panels: dst[n·panel·d + c·panel + j] holds
// element c of row j0 + n·panel + j.
func packKeys[T kernel.Float](dst []T, x *Heads[T], b, h, j0, j1, panel int, scale T) {
	for j := j0; j < j1; j += panel {
		kernel.Transpose(dst[(j-j0)*x.Dim:], panel, x.Data[x.at(b, j, h):], x.SeqStride, min(panel, j1-j), x.Dim, scale)
	}
}

// tile takes rows over a tile of one panel, which begins at key j; packed keys begin at j0.
func (u *forwardUnit[T]) tile(t tile, j0, j int) {
	rows, n, d, dv := t.rz-t.ra, t.jz-t.ja, u.problem.q.Dim, u.problem.v.Dim
	var v []T
	ldv := u.ld
	if u.direct {
		v, ldv = u.products(t)
	} else {
		tiled := false
		if u.forwardRun.scored {
			var from []T
			if from, tiled = u.tileScores(t, j0, j, u.s); tiled {
				defer func(s []T) { u.s = s }(u.s)
				u.s = from
			}
		}
		if !tiled {
			kt := u.kt[(j-j0)*d+t.ja-j:]
			kernel.Tile(rows, n, d, u.q[t.ra*d:], d, 1, kt, u.panel, u.s, u.panel, kernel.TileSet, nil)
		}
		v = u.v[(t.ja-j0)*u.ld:]
	}
	u.scores(&u.st, t, u.s, u.panel, u.lo, u.hi, nil)
	if !u.vFinite {
		u.careful(t, v, ldv)
		return
	}
	alpha := u.alpha[:rows]
	kernel.SoftmaxStep(u.s, u.panel, rows, n, u.rowMax[t.ra:t.rz], u.rowSum[t.ra:t.rz], alpha)
	weights := u.s
	if u.Dropout > 0 {
		u.drop(&u.st, t, u.dropped, u.s, u.panel)
		weights = u.dropped
	}
	if u.direct {
		u.accumulate(t, weights, v, ldv)
		return
	}
	kernel.Tile(rows, dv, n, weights, u.panel, 1, v, ldv, u.o[t.ra*u.ld:], u.ld, kernel.TileScaleAdd, alpha)
}

// finish divides by the sums, lets the sinks in and writes output and log-sum-exp.
func (u *forwardUnit[T]) finish() {
	dv, b := u.problem.v.Dim, u.st.seg.batch
	for r := range u.st.rows() {
		i, h := u.st.place(r)
		out, o := u.out.row(b, i, h), u.o[r*u.ld:][:dv]
		m, sum := float64(u.rowMax[r]), float64(u.rowSum[r])
		if sum == 0 { // no key seen
			clear(out)
			continue
		}
		inv, at := 1.0, u.rowAt(b, h, i)
		lift := u.lift(at)
		if u.sinks != nil {
			sink := float64(u.sinks[h]) - lift
			top := float64(T(max(m, sink))) // as rowMax will hold it
			inv = math.Exp(m - top)
			sum = sum*inv + math.Exp(sink-top)
			m = top
		}
		inv /= sum
		kernel.Scale(out, o, T(inv))
		if u.lse != nil {
			u.lse[at] = T(m + log[T](sum) + lift)
		}
		if u.problem.rowMax != nil {
			u.problem.rowMax[at], u.problem.rowSum[at] = T(m), T(sum)
		}
	}
}

// rowAt is the place of a row in arrays (batch, heads, seqQ).
func (p *problem[T]) rowAt(b, h, i int) int { return (b*p.q.Heads+h)*p.q.Seq + i }
