package flashattn

import (
	"math"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// gradients is what the backward pass reads and fills besides the problem. Data or slices that are nil are not wanted;
// what is wanted must be zeroed.
type gradients[T kernel.Float] struct {
	dOut       Heads[T]
	dLSE       []T // (batch, heads, seqQ), nil for zero
	dQ, dK, dV Heads[T]
	dSinks     []T
	dBias      bias[T]
}

// backwardRun computes gradients in the order of FlashAttention-2: for each block of keys, all rows that see it, with the
// weights recomputed from the row statistics: w = e^(logit − rowMax) is the weight times rowSum, and 1/rowSum goes into the
// row of dOut and into delta once. Keys, values and their gradients stay in cache; the gradient of q is added to.
//
// A task owns what it writes: some segments and key heads and every splits-th block of their keys. With more than one split
// each has its own dQ, and these are added in order at the end. Tasks depend on shapes only, so results do not depend on
// the number of threads.
type backwardRun[T kernel.Float] struct {
	*problem[T]
	*gradients[T]
	blocks
	delta   []T   // (batch, heads, seqQ): (rowsum(dOut∘out) − dLSE)/rowSum
	partial [][]T // dQ of each split, contiguous as q; nil for one split

	segGroup, headGroup int // segments and key heads of one task
	splits              int
	tiles               bool // see backward_tiles.go
}

// fewTasks is the number of tasks below which blocks of keys are shared out.
const fewTasks = 4

// backward fills g.
func (p *problem[T]) backward(g *gradients[T]) {
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		x := *p
		x.round(w)
		p := &x
		r := &backwardRun[T]{problem: p, gradients: g, tiles: scoresInTiles[T](p.attrs)}
		r.blocks = p.backwardBlocks(p.q.Dim, p.v.Dim, r.tiles)
		n := p.q.Batch * p.q.Heads * p.q.Seq
		r.plan()
		r.delta = parallel.Scratch[T](w, slotRows, n)
		if r.splits > 1 {
			size := p.q.Batch * p.q.Seq * p.q.Heads * p.q.Dim
			all := parallel.Scratch[T](w, slotPartial, r.splits*size)
			clear(all)
			for s := range r.splits {
				r.partial = append(r.partial, all[s*size:][:size])
			}
		}
		parallel.Run(p.q.Batch*r.rowGroups(), r.rows)
		segs, heads := r.groups()
		parallel.Run(segs*heads*r.splits, r.task)
		r.sum()
		if g.dSinks != nil {
			r.sinks() // reads delta, which is scratch until Run returns
		}
	})
}

// plan chooses the tasks.
func (r *backwardRun[T]) plan() {
	r.segGroup, r.headGroup, r.splits = 1, 1, 1
	if r.dBias.data != nil { // tasks that add to one place of dBias become one
		if r.dBias.headStride == 0 {
			r.headGroup = r.k.Heads
		}
		if r.dBias.batchStride == 0 && r.q.Batch > 1 {
			r.segGroup = len(r.segs)
		}
	}
	segs, heads := r.groups()
	r.splits = r.blocks.splits(segs*heads, r.problem.k.Seq)
}

// splits is the number of tasks that share the keys of one (segment, key head), given how many of these there are.
func (b blocks) splits(tasks, seqKV int) int {
	if tasks == 0 || tasks >= fewTasks {
		return 1
	}
	return min((fewTasks+tasks-1)/tasks, (seqKV+b.keys-1)/b.keys)
}

// groups is the number of groups of segments and of key heads.
func (r *backwardRun[T]) groups() (segs, heads int) {
	return (len(r.segs) + r.segGroup - 1) / r.segGroup, (r.k.Heads + r.headGroup - 1) / r.headGroup
}

// groupRows is how many rows of all heads a task of rows takes: heads of a row lie side by side in memory, and rows of one head far apart.
const groupRows = 2 * deltaRows

func (r *backwardRun[T]) rowGroups() int { return (r.q.Seq + groupRows - 1) / groupRows }

// rows prepares the row statistics of some rows of a batch element.
func (r *backwardRun[T]) rows(w *parallel.Worker, n int) {
	b, first := n/r.rowGroups(), n%r.rowGroups()*groupRows
	for i := first; i < min(first+groupRows, r.q.Seq); i += deltaRows {
		for h := range r.q.Heads {
			r.rowsOf(w, b, h, i, r.delta[r.rowAt(b, h, i):][:min(deltaRows, r.q.Seq-i)])
		}
	}
}

// rowsOf fills delta of the rows from i of a (batch, head).
func (r *backwardRun[T]) rowsOf(w *parallel.Worker, b, h, i int, delta []T) {
	if !r.tiles || !r.deltas(w, b, h, i, delta) {
		for p := range delta {
			delta[p] = kernel.Dot(r.out.row(b, i+p, h), r.dOut.row(b, i+p, h)) * r.inverse(r.rowAt(b, h, i+p))
		}
	}
	if r.dLSE != nil {
		for p := range delta {
			at := r.rowAt(b, h, i+p)
			delta[p] -= r.dLSE[at] * r.inverse(at)
		}
	}
}

// inverse is 1/rowSum, 0 for a row that sees no key.
func (r *backwardRun[T]) inverse(at int) T {
	if r.rowSum[at] == 0 {
		return 0
	}
	return 1 / r.rowSum[at]
}

// Scratch slots of the backward pass; rows and partial belong to the caller of all tasks.
const (
	slotRows = iota + forwardSlots
	slotPartial
	slotBackEdges
	slotBackKeys
	slotBackGrads
	slotBackRows
	slotBackTiles
	slotBackPieces
	slotBackInfo
	allSlots
)

// backwardScratch is the number of elements in each slot for a task of the given rows; those of slotBackEdges are int32.
// slotRows and slotPartial are left to the caller.
func (b blocks) backwardScratch(rows, d, dv int) [allSlots]int {
	return [allSlots]int{
		slotBackEdges: 2 * rows, slotBackKeys: b.keys * (2*d + dv), slotBackGrads: b.keys * (d + dv),
		slotBackRows: b.chunk*(2*d+dv+2) + b.codedRows(b.chunk)*d, slotBackTiles: 4 * b.chunk * b.panel,
	}
}

// codedRows is n if rows are held as codes too.
func (b blocks) codedRows(n int) int {
	if b.coded {
		return n
	}
	return 0
}

// backwardUnit is the state of one (segment, key head) and split on one worker.
type backwardUnit[T kernel.Float] struct {
	*backwardRun[T]
	st     stacked
	split  int
	lo, hi []int32
	backwardTiles[T]

	// Of a block of keys: k (keys × d), kt (transposed and scaled, in panels), vt (transposed), gradients dk (keys × d), dv (keys × dv).
	k, kt, vt, dk, dv []T
	blockFinite       bool
	// Of a chunk of rows: q, its codes if there are, dOut/rowSum, dq, statistics.
	q, qCodes, dOut, dq, rowMax, delta []T
	ldq, ldo, lddq                     int // of the rows of q, dOut and dq
	chunkFinite                        bool
	plain                              bool // k and what follows it hold the block
	// Tiles: logits or weights, their gradient, weights after dropout, capped logits.
	s, ds, dropped, capped []T
}

// task walks through the segments and key heads of one task in order.
func (r *backwardRun[T]) task(w *parallel.Worker, n int) {
	_, heads := r.groups()
	n, split := n/r.splits, n%r.splits
	s0, h0 := n/heads*r.segGroup, n%heads*r.headGroup
	for _, seg := range r.segs[s0:min(s0+r.segGroup, len(r.segs))] {
		for h := h0; h < min(h0+r.headGroup, r.problem.k.Heads); h++ {
			st := stacked{seg: seg, kvHead: h, q0: seg.q0, q1: seg.q1, group: r.group}
			if st.rows() > 0 && seg.k1 > seg.k0 {
				u := backwardUnit[T]{backwardRun: r, st: st, split: split}
				u.run(w)
			}
		}
	}
}

// part is a piece of a slice: where it goes and how long it is.
type part[T any] struct {
	to *[]T
	n  int
}

// carve cuts a slice into parts, one after another.
func carve[T any](from []T, parts ...part[T]) {
	for _, p := range parts {
		*p.to, from = from[:p.n:p.n], from[p.n:]
	}
}

func (u *backwardUnit[T]) run(w *parallel.Worker) {
	rows, d, dv := u.st.rows(), u.problem.q.Dim, u.problem.v.Dim
	n := u.backwardScratch(rows, d, dv)
	edges := parallel.Scratch[int32](w, slotBackEdges, n[slotBackEdges])
	u.lo, u.hi = edges[:rows], edges[rows:]
	u.st.edges(u.sight, u.lo, u.hi)
	if u.tiles {
		u.carveTiles(w, rows, d, dv)
	} else {
		u.carve(w, n)
	}

	first, last := u.st.span(u.lo, u.hi, u.panel)
	block := 0
	for j0 := first; j0 < last; j0 += u.keys {
		if block%u.splits == u.split {
			u.pass(w, j0, min(j0+u.keys, last))
		}
		block++
	}
}

// carve takes the unit's memory.
func (u *backwardUnit[T]) carve(w *parallel.Worker, n [allSlots]int) {
	keys, c, size, d, dv := u.keys, u.chunk, u.chunk*u.panel, u.problem.q.Dim, u.problem.v.Dim
	u.ldq, u.ldo, u.lddq = d, dv, d
	carve(parallel.Scratch[T](w, slotBackKeys, n[slotBackKeys]), part[T]{&u.k, keys * d}, part[T]{&u.kt, keys * d}, part[T]{&u.vt, keys * dv})
	carve(parallel.Scratch[T](w, slotBackGrads, n[slotBackGrads]), part[T]{&u.dk, keys * d}, part[T]{&u.dv, keys * dv})
	carve(parallel.Scratch[T](w, slotBackRows, n[slotBackRows]), part[T]{&u.q, c * d}, part[T]{&u.qCodes, u.codedRows(c) * d}, part[T]{&u.dq, c * d}, part[T]{&u.dOut, c * dv},
		part[T]{&u.rowMax, c}, part[T]{&u.delta, c})
	carve(parallel.Scratch[T](w, slotBackTiles, n[slotBackTiles]), part[T]{&u.s, size}, part[T]{&u.ds, size}, part[T]{&u.dropped, size}, part[T]{&u.capped, size})
}

// pass takes keys j0 ≤ j < j1 over all rows that see any of them.
func (u *backwardUnit[T]) pass(w *parallel.Worker, j0, j1 int) {
	u.plain = false
	if u.tiles {
		u.packTiles(j0, j1)
	} else {
		u.pack(j0, j1)
	}
	rows := len(u.lo)
	for r0 := 0; r0 < rows; r0 += u.chunk {
		r1 := min(r0+u.chunk, rows)
		if _, ok := see(u.lo, u.hi, r0, r1, j0, j1); ok {
			u.chunkPass(w, r0, r1, j0, j1)
		}
	}
	if u.tiles {
		u.addTiles(j0, j1)
	}
	if u.plain {
		n, b, h := j1-j0, u.st.seg.batch, u.st.kvHead
		add(u.dK, b, j0, h, n, u.dk, u.problem.k.Dim, T(u.Scale))
		add(u.dV, b, j0, h, n, u.dv, u.problem.v.Dim, 1)
	}
}

// pack copies keys, transposed and scaled too, and values, transposed, of j0 ≤ j < j1.
func (u *backwardUnit[T]) pack(j0, j1 int) {
	n, d, dv := j1-j0, u.problem.q.Dim, u.problem.v.Dim
	b, h := u.st.seg.batch, u.st.kvHead
	gather(u.k, d, u.problem.k.Data[u.problem.k.at(b, j0, h):], n, u.problem.k.SeqStride, d)
	u.packScores(u.kt, u.st.seg, h, j0, j1, u.panel)
	packKeys(u.vt, &u.problem.v, b, h, j0, j1, u.panel, 1)
	u.blockFinite = finite(u.k[:n*d])
	for j := range n {
		u.blockFinite = u.blockFinite && finite(u.problem.v.row(b, j0+j, h))
	}
	clear(u.dk[:n*d])
	clear(u.dv[:n*dv])
	u.plain = true
}

// add adds n rows of x, ldx apart, times a, to rows (b, i, h), (b, i+1, h), … of a gradient, if it is wanted.
func add[T kernel.Float](to Heads[T], b, i, h, n int, x []T, ldx int, a T) {
	if to.Data != nil {
		kernel.AddRows(to.Data[to.at(b, i, h):], to.SeqStride, x, ldx, n, to.Dim, a)
	}
}

// chunkPass takes rows r0 ≤ r < r1 over keys j0 ≤ j < j1.
func (u *backwardUnit[T]) chunkPass(w *parallel.Worker, r0, r1, j0, j1 int) {
	d, dv, b := u.problem.q.Dim, u.problem.v.Dim, u.st.seg.batch
	for r := r0; r < r1; r++ {
		i, h := u.st.place(r)
		q, dOut, at := u.q[(r-r0)*u.ldq:][:u.ldq], u.dOut[(r-r0)*u.ldo:][:u.ldo], u.rowAt(b, h, i)
		copy(q, u.problem.q.row(b, i, h))
		clear(q[d:])
		if u.codes != nil {
			u.codes.query(u.qCodes[(r-r0)*d:][:d], at)
		}
		kernel.Scale(dOut[:dv], u.gradients.dOut.row(b, i, h), u.inverse(at))
		clear(dOut[dv:])
		u.rowMax[r-r0], u.delta[r-r0] = u.problem.rowMax[at], u.backwardRun.delta[at]
	}
	m := r1 - r0
	fine := u.tiles && u.fillChunk(m)
	u.chunkFinite = fine || finite(u.q[:m*u.ldq]) && finite(u.dOut[:m*u.ldo]) && finite(u.delta[:m])
	clear(u.dq[:m*u.lddq])
	j, end := j0+max(0, int(u.lo[r0])-j0)/u.panel*u.panel, min(j1, int(u.hi[r1-1]))
	for n, panels := 0, (end-j+u.panel-1)/u.panel; j < end; j += u.panel {
		if t, ok := see(u.lo, u.hi, r0, r1, j, min(j+u.panel, j1)); ok {
			u.prefetch(r1, n, panels)
			n++
			if fine && u.fine[(j-j0)/u.panel] {
				u.multiply(t, r0, r1, j0, j1, j)
				continue
			}
			u.finish()
			if !u.plain {
				u.carvePlain(w)
				u.pack(j0, j1)
			}
			u.tile(t, r0, j0, j)
		}
	}
	u.finish()
	to := u.dQ
	if u.partial != nil {
		to = Contiguous(u.partial[u.split], u.problem.q.Batch, u.problem.q.Seq, u.problem.q.Heads, d)
	}
	if u.group == 1 {
		i, h := u.st.place(r0)
		add(to, b, i, h, m, u.dq, u.lddq, T(u.Scale))
		return
	}
	for r := r0; r < r1; r++ {
		i, h := u.st.place(r)
		add(to, b, i, h, 1, u.dq[(r-r0)*u.lddq:], d, T(u.Scale))
	}
}

// prefetch asks for the n-th of parts parts of the rows of the chunk that begins at row r: q, dOut and dQ of neighbouring rows
// lie heads·d elements apart, which the processor does not foresee.
func (u *backwardUnit[T]) prefetch(r, n, parts int) {
	step := (u.chunk/u.group + parts - 1) / parts
	i, h, b := u.st.q0+r/u.group+n*step, u.st.kvHead*u.group, u.st.seg.batch
	step = min(step, u.st.q1-i)
	for _, x := range [...]*Heads[T]{&u.problem.q, &u.gradients.dOut, &u.dQ} {
		if step > 0 && x.Data != nil {
			kernel.Prefetch(x.Data[x.at(b, i, h):], x.SeqStride, step, x.Dim*u.group)
		}
	}
}

// tile adds what a tile of one panel, which begins at key j, contributes to all gradients. The chunk begins at row r0 and
// the block at key j0.
func (u *backwardUnit[T]) tile(t tile, r0, j0, j int) {
	rows, n, ld, d, dv := t.rz-t.ra, t.jz-t.ja, u.panel, u.problem.q.Dim, u.problem.v.Dim
	q, dOut, dq := u.q[(t.ra-r0)*u.ldq:], u.dOut[(t.ra-r0)*u.ldo:], u.dq[(t.ra-r0)*u.lddq:]
	rowMax, delta := u.rowMax[t.ra-r0:][:rows], u.delta[t.ra-r0:][:rows]
	k, dk, dV := u.k[(t.ja-j0)*d:], u.dk[(t.ja-j0)*d:], u.dv[(t.ja-j0)*dv:]

	scoreQ, ldq := q, u.ldq
	if u.codes != nil {
		scoreQ, ldq = u.qCodes[(t.ra-r0)*d:], d
	}
	kernel.Tile(rows, n, d, scoreQ, ldq, 1, u.kt[(j-j0)*d+t.ja-j:], ld, u.s, ld, kernel.TileSet, nil)
	u.scores(&u.st, t, u.s, ld, u.lo, u.hi, u.capped)
	kernel.Tile(rows, n, dv, dOut, u.ldo, 1, u.vt[(j-j0)*dv+t.ja-j:], ld, u.ds, ld, kernel.TileSet, nil)
	if !u.blockFinite || !u.chunkFinite {
		u.careful(t, r0, j0)
		return
	}
	kernel.ProbFromLSE(u.s, u.s, ld, rows, n, rowMax)
	weights := u.s
	if u.Dropout > 0 {
		weights = u.dropped
		u.drop(&u.st, t, weights, u.s, ld)
		u.drop(&u.st, t, u.ds, u.ds, ld)
	}
	kernel.Tile(n, dv, rows, weights, 1, ld, dOut, u.ldo, dV, dv, kernel.TileAdd, nil)
	kernel.DScore(u.ds, u.s, u.ds, ld, rows, n, delta)
	if !t.full { // a masked weight is 0, but 0 times an overflow is not
		mask(u.ds, ld, rows, u.lo[t.ra:], u.hi[t.ra:], t.ja, n, 0)
	}
	u.addBias(t, u.ds)
	if u.Softcap > 0 {
		kernel.SoftcapGrad(u.ds, u.capped, ld, rows, n, u.Softcap)
	}
	kernel.Tile(n, d, rows, u.ds, 1, ld, q, u.ldq, dk, d, kernel.TileAdd, nil)
	kernel.Tile(rows, d, n, u.ds, ld, 1, k, d, dq, u.lddq, kernel.TileAdd, nil)
}

// addBias adds the tile's dS to dBias.
func (u *backwardUnit[T]) addBias(t tile, ds []T) {
	if u.dBias.data == nil {
		return
	}
	n := t.jz - t.ja
	for r := t.ra; r < t.rz; r++ {
		i, h := u.st.place(r)
		to := u.dBias.data[u.dBias.at(u.st.seg.batch, h, i)+t.ja:][:n]
		kernel.Add(to, to, ds[(r-t.ra)*u.panel:][:n])
	}
}

// sum adds the dQ of the splits in order.
func (r *backwardRun[T]) sum() {
	if r.partial == nil || r.dQ.Data == nil {
		return
	}
	parallel.Run(r.q.Batch*r.q.Seq, func(_ *parallel.Worker, n int) {
		b, i := n/r.q.Seq, n%r.q.Seq
		for h := range r.q.Heads {
			from := (n*r.q.Heads + h) * r.q.Dim
			for _, part := range r.partial {
				add(r.dQ, b, i, h, 1, part[from:], r.q.Dim, 1)
			}
		}
	})
}

// sinks computes dSinks_h = −Σ e^(sink_h − lse)·(dOut·out − dLSE) over the rows of head h that see a key.
func (r *backwardRun[T]) sinks() {
	for h := range r.q.Heads {
		sum, sink := 0.0, float64(r.problem.sinks[h])
		for b := range r.q.Batch {
			for i := range r.q.Seq {
				if at := r.rowAt(b, h, i); r.rowSum[at] != 0 {
					sum -= math.Exp(sink-r.lift(at)-float64(r.rowMax[at])) * float64(r.delta[at])
				}
			}
		}
		r.dSinks[h] = T(sum)
	}
}
