package kvcompress

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
	"stheno/ops/flashattn"
)

// Attend attends the queries of the seq newest tokens over what is kept, and evicts what is then too much.
func (c *Evicting) Attend(out, q []float32, seq, heads int, cfg flashattn.Config, sinks []float32) error {
	return c.AttendSome(out, q, seq, heads, nil, cfg, sinks)
}

// AttendSome attends the first counts[b] queries of each sequence b, its newest tokens, or all of them if counts is nil. Once tokens
// have been evicted, these must have been appended since the last call.
func (c *Evicting) AttendSome(out, q []float32, seq, heads int, counts []int, cfg flashattn.Config, sinks []float32) error {
	if err := c.shape.checkAttend(c.LenOf, out, q, seq, heads, counts, sinks); err != nil {
		return err
	}
	if err := checkConfig("kvcompress: Attend", cfg); err != nil {
		return err
	}
	c.each(seq, counts)
	for b, n := range c.counts {
		if s := c.seqs[b]; n > s.fresh {
			return fmt.Errorf("kvcompress: Attend: got queries of %d tokens of sequence %d, want at most the %d that were appended since tokens were evicted", n, b, s.fresh)
		}
	}
	a := evictingAttention{Evicting: c, sight: newSight(cfg, c.shape.HeadDim, heads), q: q, seq: seq, heads: heads, group: heads / c.shape.KVHeads}
	if err := a.forward(out, cfg, sinks); err != nil {
		return err
	}
	if cap(c.bias) > c.shape.Batch*heads*(evictSlots(c.shape, c.cfg)+1) {
		c.bias = nil
	}
	clearIdle(out, seq, heads*c.shape.ValueDim, counts)
	if c.cfg.Budget < c.shape.Capacity {
		a.choose()
	}
	return nil
}

// evictingAttention is one call of Attend.
type evictingAttention struct {
	*Evicting
	sight
	q          []float32
	seq, heads int
	group      int // query heads that share a key head
	longest    int // slots of the sequence that has most in use
	bias       []float32
}

// forward is attention over slots. The tokens of the call are in the last slots, in order, and see all slots before them: that is a
// causal mask. What depends on positions becomes a bias once slots are not positions any more.
func (a *evictingAttention) forward(out []float32, cfg flashattn.Config, sinks []float32) error {
	s, moved := a.shape, false
	for b, q := range a.seqs {
		a.lens[b], a.positions[b] = q.held, q.held-a.counts[b]
		a.longest = max(a.longest, q.held)
		moved = moved || q.floor > 0
	}
	if a.longest == 0 {
		clear(out)
		return nil
	}
	rows := s.Batch * a.heads * a.seq
	if cap(a.Evicting.lse) < rows {
		a.Evicting.lse = make([]float32, rows)
	}
	in := flashattn.Operands[float32]{KeyLens: a.lens, Positions: a.positions, Sinks: sinks, LSE: a.Evicting.lse[:rows]}
	cfg.Causal, cfg.Sinks = true, nil
	if moved && (a.slopes != nil || a.left < a.Len()) {
		if need := rows * a.longest; cap(a.Evicting.bias) < need {
			a.Evicting.bias = make([]float32, need)
		}
		a.bias = a.Evicting.bias[:rows*a.longest]
		parallel.Run(s.Batch*a.heads, func(_ *parallel.Worker, n int) { a.fillBias(n/a.heads, n%a.heads) })
		cfg.ALiBi, cfg.Window = false, flashattn.Window{}
		in.Bias, in.BiasBatch, in.BiasHeads = a.bias, s.Batch, a.heads
	}
	view := func(x []float32, dim int) flashattn.Heads[float32] {
		return flashattn.Heads[float32]{Data: x, Batch: s.Batch, Seq: a.longest, Heads: s.KVHeads, Dim: dim,
			BatchStride: s.KVHeads * a.slots * dim, SeqStride: dim, HeadStride: a.slots * dim}
	}
	return flashattn.Forward(
		flashattn.Contiguous(out, s.Batch, a.seq, a.heads, s.ValueDim), flashattn.Contiguous(a.q, s.Batch, a.seq, a.heads, s.HeadDim),
		view(a.k, s.HeadDim), view(a.v, s.ValueDim), cfg, in)
}

// fillBias is ALiBi and the window for the rows of a head: −slope·distance, −∞ where it is too large.
func (a *evictingAttention) fillBias(b, h int) {
	s := a.seqs[b]
	places := a.place[a.at(b, h/a.group):][:s.held]
	for i := range a.seq {
		row := a.bias[((b*a.heads+h)*a.seq+i)*a.longest:][:a.longest]
		clear(row)
		if i < a.counts[b] {
			a.distances(row[:s.held], places, s.n-a.counts[b]+i, h)
		}
	}
}

// distances adds to logits of a query at a position what its distances from places say.
func (a *evictingAttention) distances(logits []float32, places []int32, at, h int) {
	for j, p := range places[:len(logits)] {
		distance := at - int(p)
		switch {
		case distance > a.left:
			logits[j] = float32(math.Inf(-1))
		case a.slopes != nil:
			logits[j] -= float32(a.slopes[h]) * float32(max(0, distance))
		}
	}
}

// choose adds up the attention of the call and evicts, head by head.
func (a *evictingAttention) choose() {
	s := a.shape
	over := false
	for b := range a.seqs {
		over = over || a.seqs[b].held > a.cfg.Budget
	}
	parallel.Run(s.Batch*s.KVHeads, func(w *parallel.Worker, n int) {
		b, h := n/s.KVHeads, n%s.KVHeads
		a.accumulate(w, b, h)
		if a.seqs[b].held > a.cfg.Budget {
			a.evict(w, b, h)
		}
	})
	if !over {
		return
	}
	for b := range a.seqs {
		q := &a.seqs[b]
		if q.held > a.cfg.Budget {
			q.held, q.fresh, q.floor = a.cfg.Budget, 0, a.keptFrom(b)
		}
	}
	if n := evictSlots(s, a.cfg); a.slots > n {
		a.resize(n)
	}
}

// accumulate adds the weights of the call's queries to those of the slots of a key head.
func (a *evictingAttention) accumulate(w *parallel.Worker, b, kvHead int) {
	q, d := a.seqs[b], a.shape.HeadDim
	at := a.at(b, kvHead)
	keys, places, weight := a.k[at*d:], a.place[at:][:q.held], a.weight[at:][:q.held]
	x := parallel.Scratch[float32](w, slotScores, q.held)
	scaled := parallel.Scratch[float32](w, slotQuery, d)
	factor := float32(a.scale)
	if a.softcap > 0 {
		factor = 1
	}
	for i := range a.counts[b] {
		n := q.held - a.counts[b] + i + 1
		for g := range a.group {
			h := kvHead*a.group + g
			lse := a.lse[(b*a.heads+h)*a.seq+i]
			if math.IsInf(float64(lse), -1) {
				continue
			}
			kernel.Scale(scaled, a.q[((b*a.seq+i)*a.heads+h)*d:][:d], factor)
			logits := x[:n]
			kernel.MulVec(logits, n, d, keys, d, scaled)
			if a.softcap > 0 {
				kernel.Softcap(logits, n, 1, n, a.scale, a.softcap)
			}
			if a.slopes != nil || a.left < q.n {
				a.distances(logits, places, q.n-a.counts[b]+i, h)
			}
			kernel.ExpSub(logits, logits, lse)
			for j, y := range logits {
				if y == y { // a NaN decides nothing
					weight[j] += float64(y)
				}
			}
		}
	}
}

// evict leaves Budget tokens of a key head in its first slots.
func (a *evictingAttention) evict(w *parallel.Worker, b, kvHead int) {
	q, at := a.seqs[b], a.at(b, kvHead)
	places, weight := a.place[at:][:q.held], a.weight[at:][:q.held]
	lighter := func(i, j int32) int {
		return cmp.Or(cmp.Compare(weight[i], weight[j]), cmp.Compare(places[i], places[j]))
	}
	may := parallel.Scratch[int32](w, slotEdges, q.held)[:0]
	for i, p := range places {
		if int(p) >= a.cfg.SinkTokens && int(p) < q.n-a.cfg.Recent {
			may = append(may, int32(i))
		}
	}
	gone := q.held - a.cfg.Budget
	if gone == 1 {
		may[0] = slices.MinFunc(may, lighter)
	} else {
		slices.SortFunc(may, lighter)
	}
	may = may[:gone]
	slices.Sort(may)
	// Tokens from beyond the budget fill the holes before it.
	from := int32(a.cfg.Budget)
	beyond, _ := slices.BinarySearch(may, from)
	holes, beyondGone := may[:beyond], may[beyond:]
	for _, hole := range holes {
		for len(beyondGone) > 0 && beyondGone[0] == from {
			beyondGone, from = beyondGone[1:], from+1
		}
		a.move(at+int(hole), at+int(from))
		from++
	}
}

// keptFrom is the first token from which on all heads of a sequence keep all.
func (a *evictingAttention) keptFrom(b int) int {
	q := a.seqs[b]
	// Budget tokens are kept: going down from the newest, a token that a head lacks ends the run.
	kept := make([]bool, a.cfg.Budget)
	floor := 0
	for h := range a.shape.KVHeads {
		clear(kept)
		for _, p := range a.place[a.at(b, h):][:a.cfg.Budget] {
			if back := q.n - 1 - int(p); back < len(kept) {
				kept[back] = true
			}
		}
		run := 0
		for run < len(kept) && kept[run] {
			run++
		}
		floor = max(floor, q.n-run)
	}
	return floor
}
