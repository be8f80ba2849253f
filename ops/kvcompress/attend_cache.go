package kvcompress

import (
	"math"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
	"stheno/ops/flashattn"
)

// fewRows is the number of rows, queries times heads that share a key head, up to which codes are multiplied as they lie. For
// more rows it pays to decode tiles.
const fewRows = 8

// splitTokens is how many coded tokens one task of a decoding step passes over. It is a constant, so that results do not depend on
// the number of threads.
const splitTokens = 1024

// tileTokens is how many coded tokens one softmax step takes.
const tileTokens = 256

// tilePages is the same in pages.
func (l *layout) tilePages() int { return max(1, tileTokens/l.group) }

// aheadRows is how far the scales of the next tile's page are from a page's, in bytes. As to codes, the values of a page follow its
// keys, and are wanted next; while they are read, the keys of the next tile are fetched.
func (l *layout) aheadRows() int { return 2 * l.tilePages() * (l.halvesK + l.halvesV) }

// Attend attends the queries of the seq newest tokens of each sequence over everything cached.
//
// Queries see the cache as it is now: with many queries at once, those of older tokens see groups coded that a token-by-token
// generation would have seen exact.
func (c *Compressed) Attend(out, q []float32, seq, heads int, cfg flashattn.Config, sinks []float32) error {
	return c.AttendSome(out, q, seq, heads, nil, cfg, sinks)
}

// AttendSome attends the first counts[b] queries of each sequence b, its newest tokens, or all of them if counts is nil.
func (c *Compressed) AttendSome(out, q []float32, seq, heads int, counts []int, cfg flashattn.Config, sinks []float32) error {
	if err := c.shape.checkAttend(c.LenOf, out, q, seq, heads, counts, sinks); err != nil {
		return err
	}
	if err := checkConfig("kvcompress: Attend", cfg); err != nil {
		return err
	}
	for b := range c.counts {
		c.counts[b] = seq
		if counts != nil {
			c.counts[b] = counts[b]
		}
	}
	a := attention{Compressed: c, sight: newSight(cfg, c.dk, heads), out: out, q: q, seq: seq, heads: heads, group: heads / c.layout.heads, sinks: sinks}
	if seq == 1 || seq*a.group <= fewRows {
		a.few()
	} else if err := a.many(cfg); err != nil {
		return err
	}
	clearIdle(out, seq, heads*c.dv, counts)
	return nil
}

// attention is one call of Attend.
type attention struct {
	*Compressed
	sight
	out, q     []float32
	seq, heads int
	group      int // query heads that share a key head
	sinks      []float32
	splits     int
}

// row is the query row r of a key head: query r/group of head kvHead·group + r%group, in q or in out of width w.
func (a *attention) row(x []float32, b, kvHead, r, w int) []float32 {
	return x[((b*a.seq+r/a.group)*a.heads+kvHead*a.group+r%a.group)*w:][:w]
}

// partLen is the size of a partial result: for each row its largest logit, the sum of weights, and the weighted values.
func (a *attention) partLen() int { return a.seq * a.group * (2 + a.padV) }

// few computes attention for few rows: tasks over ranges of tokens of a head, whose results are merged in order.
func (a *attention) few() {
	a.splits = 1
	for b := range a.seqs {
		a.splits = max(a.splits, (len(a.seqs[b].pages)*a.layout.group+splitTokens-1)/splitTokens)
	}
	n := a.partLen()
	tasks := len(a.seqs) * a.layout.heads * a.splits
	if need := tasks * n; cap(a.parts) < need {
		a.parts = make([]float32, need)
	}
	parts := a.parts[:tasks*n]
	parallel.Run(tasks, func(w *parallel.Worker, i int) {
		a.pass(w, i/a.splits/a.layout.heads, i/a.splits%a.layout.heads, i%a.splits, parts[i*n:][:n])
	})
	for i := range len(a.seqs) * a.layout.heads {
		a.merge(i/a.layout.heads, i%a.layout.heads, parts[i*a.splits*n:][:a.splits*n])
	}
}

// tile is the state of a task: rows of queries, running results, and memory.
type tile struct {
	*attention
	s               *stream
	b, kvHead, rows int
	top, sum        []float32 // of each row
	acc             []float32 // (rows, padV)
	alpha           []float32
	q, rotated      []float32 // (rows, padK)
	scores          []float32 // (rows, ld)
	fold            []float32
	ld              int
	lo, hi          []int32
}

// pass goes over part split of the tokens of a head.
func (a *attention) pass(w *parallel.Worker, b, kvHead, split int, part []float32) {
	s, l := &a.seqs[b], &a.layout
	rows := a.counts[b] * a.group
	clear(part)
	t := tile{attention: a, s: s, b: b, kvHead: kvHead, rows: rows, top: part[:rows], sum: part[a.seq*a.group:][:rows], acc: part[2*a.seq*a.group:]}
	for r := range t.top {
		t.top[r] = float32(math.Inf(-1))
	}
	if rows == 0 {
		return
	}
	t.ld = max(l.tilePages()*l.group, (l.sinks+15)&^15, (l.recent+15)&^15)
	t.scores = parallel.Scratch[float32](w, slotScores, rows*t.ld)
	t.fold = parallel.Scratch[float32](w, slotFold, max(l.padK, l.group))
	small := parallel.Scratch[float32](w, slotSums, rows)
	t.alpha = small
	edges := parallel.Scratch[int32](w, slotEdges, 2*rows)
	t.lo, t.hi = edges[:rows], edges[rows:]
	t.queries(w)

	per := max(1, splitTokens/l.group)
	first, last := split*per, min((split+1)*per, len(s.pages))
	if split == 0 && s.sunk(l) > 0 {
		t.floats(0, s.sunk(l), s.sinkK[kvHead*l.sinks*l.dk:], s.sinkV[kvHead*l.sinks*l.dv:])
	}
	oldest := a.from(s.n - a.counts[b])
	for i := max(first, s.first); i < last; {
		end := min(i+l.tilePages(), last)
		if l.sinks+end*l.group > oldest {
			t.pages(i, end)
		}
		i = end
	}
	if lastSplit := (len(s.pages) - 1) / per; split == max(0, lastSplit) {
		t.recent(w)
	}
}

// queries copies the rows' queries, scaled unless a softcap comes between, and rotates a second copy if keys are.
func (t *tile) queries(w *parallel.Worker) {
	l := &t.layout
	t.q = parallel.Scratch[float32](w, slotQuery, t.rows*l.padK)
	factor := float32(t.scale)
	if t.softcap > 0 {
		factor = 1
	}
	for r := range t.rows {
		q := t.q[r*l.padK:][:l.padK]
		kernel.Scale(q[:l.dk], t.row(t.attention.q, t.b, t.kvHead, r, l.dk), factor)
		clear(q[l.dk:])
	}
	t.rotated = t.q
	if l.rotate > 0 {
		t.rotated = parallel.Scratch[float32](w, slotRotated, t.rows*l.padK)
		copy(t.rotated, t.q)
		for r := range t.rows {
			l.rotateRows(t.rotated[r*l.padK:][:l.dk])
		}
	}
}

// floats takes count tokens from position first on, whose keys and values are rows of float32.
func (t *tile) floats(first, count int, k, v []float32) {
	l := &t.layout
	for r := range t.rows {
		kernel.MulVec(t.scores[r*t.ld:][:count], count, l.dk, k, l.dk, t.q[r*l.padK:][:l.dk])
	}
	t.softmax(first, count)
	for r := range t.rows {
		kernel.AddVecMul(t.acc[r*l.padV:][:l.dv], l.dv, count, t.scores[r*t.ld:][:count], v, l.dv)
	}
}

// recent takes the tokens of the ring, in the one or two runs that they make.
func (t *tile) recent(w *parallel.Worker) {
	l, s := &t.layout, t.s
	for p, left := s.coded, s.inRing(); left > 0; {
		slot := p % l.recent
		n := min(left, l.recent-slot)
		at := t.kvHead*l.recent + slot
		if s.halfK == nil {
			t.floats(p, n, s.k[at*l.dk:], s.v[at*l.dv:])
		} else {
			k := parallel.Scratch[float32](w, slotKeys, n*l.dk)
			v := parallel.Scratch[float32](w, slotValues, n*l.dv)
			kernel.FromFloat16(k, s.halfK[at*l.dk:][:n*l.dk])
			kernel.FromFloat16(v, s.halfV[at*l.dv:][:n*l.dv])
			t.floats(p, n, k, v)
		}
		p, left = p+n, left-n
	}
}

// pages takes the coded tokens of pages first to end.
func (t *tile) pages(first, end int) {
	l, s := &t.layout, t.s
	position := l.sinks + first*l.group
	count := min(s.coded, l.sinks+end*l.group) - position
	for i := first; i < end; i++ {
		p, at := s.pages[i], (i-first)*l.group
		for r := range t.rows {
			y, q := t.scores[r*t.ld+at:][:l.group], t.rotated[r*l.padK:][:l.padK]
			clear(y)
			if l.bits == 16 {
				kernel.AddVecMulHalf(y, q[:l.dk], p.keys16(l, t.kvHead), l.group, 2*l.halvesK)
			} else {
				m := p.keys(l, t.kvHead)
				m.Ahead, m.AheadRows = l.codesK, l.aheadRows()
				m.AddProduct(y, q, t.fold)
			}
		}
	}
	t.softmax(position, count)
	for r := range t.rows {
		clear(t.scores[r*t.ld+count:][:(end-first)*l.group-count])
	}
	for i := first; i < end; i++ {
		p, at := s.pages[i], (i-first)*l.group
		for r := range t.rows {
			y, x := t.acc[r*l.padV:][:l.padV], t.scores[r*t.ld+at:][:l.group]
			if l.bits == 16 {
				kernel.AddVecMulHalf(y, x, p.values16(l, t.kvHead), l.padV, 2*(l.tilePages()*(l.halvesK+l.halvesV)-l.halvesK))
			} else {
				m := p.values(l, t.kvHead)
				m.Ahead, m.AheadRows = l.tilePages()*(l.codesK+l.codesV)-l.codesK, l.aheadRows()
				m.AddProduct(y, x, t.fold)
			}
		}
	}
}

// softmax turns the products of q with count keys from position first on into weights, and rescales what has been summed up.
func (t *tile) softmax(first, count int) {
	if t.softcap > 0 {
		kernel.Softcap(t.scores, t.ld, t.rows, count, t.scale, t.softcap)
	}
	p := t.s.n - t.counts[t.b]
	full := true
	for r := range t.rows {
		at := p + r/t.group
		lo, hi := max(0, t.from(at)-first), min(count, at+1-first)
		full = full && lo == 0 && hi == count
		t.lo[r], t.hi[r] = int32(min(lo, count)), int32(max(hi, 0))
		if t.slopes != nil {
			row, slope := t.scores[r*t.ld:][:count], float32(t.slopes[t.kvHead*t.group+r%t.group])
			for j := range row {
				row[j] -= slope * float32(max(at-first-j, 0))
			}
		}
	}
	if !full {
		kernel.MaskRange(t.scores, t.ld, t.rows, count, t.lo, t.hi)
	}
	kernel.SoftmaxStep(t.scores, t.ld, t.rows, count, t.top, t.sum, t.alpha)
	for r := range t.rows {
		if a := t.alpha[r]; a != 1 {
			y := t.acc[r*t.padV:][:t.padV]
			kernel.Scale(y, y, a)
		}
	}
}

// merge adds up the parts of a head, in order, and writes the output.
func (a *attention) merge(b, kvHead int, parts []float32) {
	n, all := a.partLen(), a.seq*a.group
	for r := range a.counts[b] * a.group {
		top := math.Inf(-1)
		for s := range a.splits {
			if x := float64(parts[s*n+r]); !(x <= top) {
				top = x
			}
		}
		sink := math.Inf(-1)
		if a.sinks != nil {
			sink = float64(a.sinks[kvHead*a.group+r%a.group])
			if !math.IsInf(top, -1) && !(sink <= top) {
				top = sink
			}
		}
		out := a.row(a.out, b, kvHead, r, a.dv)
		clear(out)
		if math.IsInf(top, -1) {
			continue
		}
		sum := math.Exp(sink - top)
		for s := range a.splits {
			f := math.Exp(float64(parts[s*n+r]) - top)
			if f == 0 {
				continue
			}
			sum += f * float64(parts[s*n+all+r])
			kernel.Axpy(out, float32(f), parts[s*n+2*all+r*a.padV:][:a.dv])
		}
		kernel.Scale(out, out, float32(1/sum))
	}
}
