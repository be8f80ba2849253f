package kvcompress

import (
	"fmt"
	"slices"

	"stheno/internal/memory"
)

// Evicting is a Cache in float32 that keeps a budget of tokens: heavy hitters (H2O: Zhang et al. 2023, arXiv 2306.14048). Of a sequence
// each key head keeps Config.Budget tokens at most, its own choice: the first SinkTokens, the Recent newest, and of the others those
// with the largest accumulated attention. After each Attend, with the log-sum-exps of its rows,
//
//	A_j ← A_j + Σ_{i, g} e^(x_gij − lse_gi)
//
// for the tokens j that are kept, over the queries i of the call and the query heads g that share the key head, x_gij being the logit.
// While a head keeps more than Budget tokens, the one with the smallest A_j goes, of equals the oldest. With Budget = SinkTokens + Recent
// that is a rolling window behind sinks (StreamingLLM: Xiao et al. 2023, arXiv 2309.17453).
//
// Queries attend over what is kept before the call and the tokens of the call, causally; tokens keep their positions, so that
// rotary embeddings, ALiBi and windows mean what they mean without eviction. Until a token is evicted, results are those of Plain to
// the last bit.
//
// Len counts all tokens that were appended, and Capacity limits these. Memory is for Budget tokens and some, and for the tokens of a
// call while it lasts.
type Evicting struct {
	shape Shape
	cfg   Config
	slots int       // of each head of a sequence
	k, v  []float32 // (batch, kvHeads, slots, dim), in any order
	// place and weight (batch, kvHeads, slots) are the position and the accumulated attention of the token in a slot.
	place  []int32
	weight []float64
	seqs   []keptTokens

	counts, lens, positions []int
	lse, bias               []float32
}

// keptTokens is the state of one sequence. All heads keep as many tokens.
type keptTokens struct {
	n     int // tokens that were appended
	held  int // slots in use, from the first
	fresh int // how many of the last of these hold the newest tokens in order
	floor int // all tokens from this one on are kept, in all heads; sinks are too
}

var (
	_ Cache  = (*Evicting)(nil)
	_ Ragged = (*Evicting)(nil)
)

// evictSlack is the number of slots beyond the budget: tokens of a call that need no other memory.
const evictSlack = 64

// evictSlots is the number of slots for a cache that is not in a large call.
func evictSlots(s Shape, cfg Config) int {
	return min(s.Capacity, min(cfg.Budget, s.Capacity)+evictSlack)
}

func newEvicting(s Shape, cfg Config) *Evicting {
	c := &Evicting{shape: s, cfg: cfg, seqs: make([]keptTokens, s.Batch), counts: make([]int, s.Batch), lens: make([]int, s.Batch), positions: make([]int, s.Batch)}
	c.resize(evictSlots(s, cfg))
	return c
}

// resize moves what is held to memory of other size.
func (c *Evicting) resize(slots int) {
	old, s := *c, c.shape
	rows := s.Batch * s.KVHeads * slots
	c.slots = slots
	c.k, c.v = memory.Make[float32](rows*s.HeadDim), memory.Make[float32](rows*s.ValueDim)
	c.place, c.weight = make([]int32, rows), make([]float64, rows)
	for b, q := range c.seqs {
		for h := range s.KVHeads {
			from, to := old.at(b, h), c.at(b, h)
			copy(c.k[to*s.HeadDim:], old.k[from*s.HeadDim:][:q.held*s.HeadDim])
			copy(c.v[to*s.ValueDim:], old.v[from*s.ValueDim:][:q.held*s.ValueDim])
			copy(c.place[to:], old.place[from:][:q.held])
			copy(c.weight[to:], old.weight[from:][:q.held])
		}
	}
}

// at is the first slot of a head.
func (c *Evicting) at(b, h int) int { return (b*c.shape.KVHeads + h) * c.slots }

// Shape returns the sizes the cache was made with.
func (c *Evicting) Shape() Shape { return c.shape }

// Config returns the configuration, with what its zeros stand for.
func (c *Evicting) Config() Config { return c.cfg }

// Len is the number of tokens of the longest sequence, kept or not.
func (c *Evicting) Len() int {
	n := 0
	for b := range c.seqs {
		n = max(n, c.seqs[b].n)
	}
	return n
}

// LenOf is the number of tokens of sequence b, kept or not.
func (c *Evicting) LenOf(b int) int { return c.seqs[b].n }

// Kept returns the positions of the tokens that a key head of a sequence keeps, in order.
func (c *Evicting) Kept(sequence, kvHead int) ([]int, error) {
	if sequence < 0 || sequence >= c.shape.Batch || kvHead < 0 || kvHead >= c.shape.KVHeads {
		return nil, fmt.Errorf("kvcompress: Kept: got sequence %d and head %d, want 0 to %d and 0 to %d", sequence, kvHead, c.shape.Batch-1, c.shape.KVHeads-1)
	}
	out := make([]int, c.seqs[sequence].held)
	for i, p := range c.place[c.at(sequence, kvHead):][:len(out)] {
		out[i] = int(p)
	}
	slices.Sort(out)
	return out, nil
}

// Bytes is the memory of keys and values, and of what chooses among them. Attention with ALiBi or a window works with a number for each
// query, head and slot besides; that of a single query is kept for the next.
func (c *Evicting) Bytes() int64 {
	return 4*int64(len(c.k)+len(c.v)+len(c.place)) + 8*int64(len(c.weight))
}

// evictBytes is Bytes of a cache that is not in a large call.
func evictBytes(s Shape, cfg Config) int64 {
	rows := int64(s.Batch * s.KVHeads * evictSlots(s, cfg))
	return rows * int64(4*(s.HeadDim+s.ValueDim)+4+8)
}

// Reset forgets everything and keeps the memory.
func (c *Evicting) Reset() { clear(c.seqs) }

// Fork returns a cache of the same tokens that goes its own way from here on.
func (c *Evicting) Fork() *Evicting {
	f := newEvicting(c.shape, c.cfg)
	f.slots = c.slots
	f.k, f.v, f.place, f.weight = slices.Clone(c.k), slices.Clone(c.v), slices.Clone(c.place), slices.Clone(c.weight)
	copy(f.seqs, c.seqs)
	return f
}

// Truncate forgets all but the first n tokens of each sequence. Tokens that were evicted do not come back, and the attention that
// tokens got from those that are forgotten still counts: n must be such that all tokens from n on are kept, which the Recent newest are, or
// at most SinkTokens.
func (c *Evicting) Truncate(n int) error {
	lens, err := c.shape.shortened(c.LenOf, n)
	if err != nil {
		return err
	}
	return c.TruncateEach(lens)
}

// CheckTruncate returns the error that Truncate would return, and changes nothing.
func (c *Evicting) CheckTruncate(n int) error {
	lens, err := c.shape.shortened(c.LenOf, n)
	if err != nil {
		return err
	}
	return c.checkTruncate(lens)
}

// TruncateEach is Truncate with a length for each sequence.
func (c *Evicting) TruncateEach(n []int) error {
	if err := c.checkTruncate(n); err != nil {
		return err
	}
	for b := range c.seqs {
		c.truncate(b, n[b])
	}
	return nil
}

func (c *Evicting) checkTruncate(n []int) error {
	if err := c.shape.checkTruncate(c.LenOf, n); err != nil {
		return err
	}
	for b, s := range c.seqs {
		if n[b] < s.floor && n[b] > c.cfg.SinkTokens {
			return fmt.Errorf("kvcompress: Truncate: got %d tokens, want at most the %d sinks or at least %d: of those between, some are evicted",
				n[b], c.cfg.SinkTokens, s.floor)
		}
	}
	return nil
}

func (c *Evicting) truncate(b, n int) {
	s := &c.seqs[b]
	gone := s.n - n
	switch {
	case n < s.floor: // sinks are in the first slots
		*s = keptTokens{n: n, held: n, fresh: n}
		return
	case gone > s.fresh:
		for h := range c.shape.KVHeads {
			to, at := 0, c.at(b, h)
			for i := range s.held {
				if int(c.place[at+i]) < n {
					c.move(at+to, at+i)
					to++
				}
			}
		}
	}
	s.n, s.held, s.fresh = n, s.held-gone, max(0, s.fresh-gone)
}

// move copies the token of one slot to another.
func (c *Evicting) move(to, from int) {
	if to == from {
		return
	}
	dk, dv := c.shape.HeadDim, c.shape.ValueDim
	copy(c.k[to*dk:][:dk], c.k[from*dk:][:dk])
	copy(c.v[to*dv:][:dv], c.v[from*dv:][:dv])
	c.place[to], c.weight[to] = c.place[from], c.weight[from]
}

// Append adds seq tokens to each sequence.
func (c *Evicting) Append(k, v []float32, seq int) error { return c.AppendSome(k, v, seq, nil) }

// AppendSome adds the first counts[b] of seq tokens to sequence b, all of them if counts is nil.
func (c *Evicting) AppendSome(k, v []float32, seq int, counts []int) error {
	if err := c.shape.checkAppend(c.LenOf, k, v, seq, counts); err != nil {
		return err
	}
	c.each(seq, counts)
	need := 0
	for b, n := range c.counts {
		need = max(need, c.seqs[b].held+n)
	}
	if need > c.slots {
		c.resize(min(c.shape.Capacity, need+evictSlack))
	}
	s := c.shape
	for b, n := range c.counts {
		q := &c.seqs[b]
		for h := range s.KVHeads {
			for i := range n {
				from, to := (b*seq+i)*s.KVHeads+h, c.at(b, h)+q.held+i
				copy(c.k[to*s.HeadDim:][:s.HeadDim], k[from*s.HeadDim:])
				copy(c.v[to*s.ValueDim:][:s.ValueDim], v[from*s.ValueDim:])
				c.place[to], c.weight[to] = int32(q.n+i), 0
			}
		}
		q.n, q.held, q.fresh = q.n+n, q.held+n, q.fresh+n
	}
	return nil
}

// each sets counts.
func (c *Evicting) each(seq int, counts []int) {
	for b := range c.counts {
		c.counts[b] = seq
		if counts != nil {
			c.counts[b] = counts[b]
		}
	}
}
