//go:build cuda

package kvcompress

import (
	"fmt"
	"unsafe"

	G "gorgonia.org/gorgonia"

	"stheno/internal/op"
	"stheno/ops/flashattn"
)

// attendOpFor is o on the card if its cache is there.
func attendOpFor(o *attend) G.Op {
	if c, ok := o.cache.(cardCache); ok && c.OnCard() {
		return &cudaAttend{o, c}
	}
	return o
}

// cardCache is a cache that can lie on a card: Compressed, and Plain, of which all tokens are kept as sinks are.
type cardCache interface {
	Ragged
	OnCard() bool
	cardLayout() *layout
	// book notes that sequence b has count tokens more.
	book(b, count int) books
}

// books are what kernels are told of a sequence.
type books struct {
	before, codedBefore, after, coded, dropped int   // as in State of kvcache.cu
	span, touched                              int   // keys that are to be coded, and pages of them
	memory                                     []any // from sink_k to numbers
	halves                                     int   // 1 if the ring is in FP16
}

// cudaAttend is attend over a cache on a card. The host keeps the books, of how many tokens there are and which are coded; codes are
// made and read on the card.
type cudaAttend struct {
	*attend
	cache cardCache
}

var _ G.CUDADoer = (*cudaAttend)(nil)

func (o *cudaAttend) CallsExtern() bool { return true }

// Copies are the state of each sequence and the slopes of ALiBi; positions and counts are read back.
func (o *cudaAttend) Copies() (sent int64, readBack []int) {
	bytes := o.cache.Shape().Batch * 8 * cardStates
	if o.cfg.ALiBi {
		bytes += 4 * o.heads
	}
	readBack = []int{o.mains}
	if o.counted {
		readBack = append(readBack, o.mains+1)
	}
	return int64(bytes), readBack
}

// CUDADo is Do on a card.
func (o *cudaAttend) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) (err error) {
		if !o.cache.OnCard() {
			return fmt.Errorf("%s: cache: got one that has left the card, want it there as when the node was made", o.Name())
		}
		pos, err := c.Ints(in[o.mains])
		if err != nil {
			return err
		}
		before, err := o.checkPositions(pos)
		if err != nil {
			return err
		}
		counts, rest := make([]int, len(before)), in[o.mains+1:]
		for b := range counts {
			counts[b] = o.seq
		}
		if o.counted {
			if counts, err = c.Ints(rest[0]); err != nil {
				return err
			}
			rest = rest[1:]
		}
		var sinks any
		if len(rest) > 0 {
			sinks = rest[0]
		}
		s := o.cache.Shape()
		if err := s.checkCounts("Append", o.seq, counts); err != nil {
			return err
		}
		if err := s.checkRoom(o.cache.LenOf, o.seq, counts); err != nil {
			return err
		}
		done := false
		defer func() {
			if !done { // an error or a panic
				if undo := o.truncate(before); undo != nil && err != nil {
					err = fmt.Errorf("%w; and forgetting the tokens again: %w", err, undo)
				}
			}
		}()
		err = o.slopes(c, func(slopes any) error {
			for b := range counts {
				if err := o.one(c, b, counts[b], prealloc, in, slopes, sinks); err != nil {
					return err
				}
			}
			return nil
		})
		done = err == nil
		return err
	})
}

// splitOnCard is how many tokens a block passes over. It is a constant, so that results do not depend on the card.
const splitOnCard = 256

// rowsOnCard is how many rows, queries times heads that share a key head, a block takes.
const rowsOnCard = 8

// book of a cache with codes. A page that is new takes the keys of its whole group, for their scales.
func (c *Compressed) book(b, count int) books {
	l, s := &c.layout, &c.seqs[b]
	x := books{before: s.n, codedBefore: s.coded}
	s.n += count
	s.coded = max(s.coded, s.n-l.recent)
	if n := s.coded - x.codedBefore; n > 0 {
		first, _ := l.place(x.codedBefore)
		last, _ := l.place(s.coded - 1)
		x.touched, x.span = last-first+1, n
		if start := l.sinks + last*l.group; start >= x.codedBefore {
			x.span = start + l.group - x.codedBefore
		}
		for len(s.pages) <= last {
			p := s.newPage(l)
			p.clear(l)
			s.pages = append(s.pages, p)
		}
	}
	c.evict(s)
	x.after, x.coded, x.dropped = s.n, s.coded, s.first
	ringK, ringV := address(s.k), address(s.v)
	if s.halfK != nil {
		ringK, ringV, x.halves = address(s.halfK), address(s.halfV), 1
	}
	x.memory = []any{address(s.sinkK), address(s.sinkV), ringK, ringV, nil, nil}
	if len(s.fixed) > 0 {
		x.memory[4], x.memory[5] = address(s.fixed[0].codes), address(s.fixed[0].halves)
	}
	return x
}

func (c *Compressed) cardLayout() *layout { return &c.layout }

func (c *Plain) cardLayout() *layout {
	s := c.shape
	return &layout{heads: s.KVHeads, dk: s.HeadDim, dv: s.ValueDim, padK: (s.HeadDim + 15) &^ 15, padV: (s.ValueDim + 15) &^ 15,
		group: 16, recent: 1, sinks: s.Capacity, bits: 8}
}

func (c *Plain) book(b, count int) books {
	s, x := c.shape, books{before: c.lens[b], codedBefore: c.shape.Capacity, coded: c.shape.Capacity}
	c.lens[b] += count
	x.after = c.lens[b]
	at := b * s.KVHeads * s.Capacity
	x.memory = []any{address(c.k[at*s.HeadDim:]), address(c.v[at*s.ValueDim:]), nil, nil, nil, nil}
	return x
}

// cardStates is how many numbers say where a sequence stands.
const cardStates = 5

// one appends count tokens to sequence b and attends their queries.
func (o *cudaAttend) one(c *op.Card, b, count int, out G.Value, in []G.Value, slopes, sinks any) error {
	l, s := o.cache.cardLayout(), o.cache.book(b, count)
	const size = 4
	q, k, v := o.parts(in)
	q, k, v = q+op.DevicePtr(size*b*o.seq*o.heads*l.dk), k+op.DevicePtr(size*b*o.seq*l.heads*l.dk), v+op.DevicePtr(size*b*o.seq*l.heads*l.dv)
	states := [cardStates]int64{int64(s.before), int64(s.codedBefore), int64(s.after), int64(s.coded), int64(s.dropped)}
	return c.Scratch(8*len(states), func(state op.DevicePtr) error {
		if err := op.CopyIn(c, state, states[:]); err != nil {
			return err
		}
		cache := append(s.memory, state, l.heads, l.dk, l.dv, l.sinks, l.recent, l.group, l.most, s.halves, max(1, l.rotate))
		if s.span > 0 {
			err := c.Scratch(size*l.heads*s.span*l.dk, func(rows op.DevicePtr) error {
				grid := [3]int{min((l.heads*s.span+3)/4, 65535)}
				if err := c.Launch("kvcache.kv_rows", grid, [3]int{128}, 4*size*l.dk, append([]any{rows, k, s.span, o.seq, 1}, cache...)...); err != nil {
					return err
				}
				return c.Launch(fmt.Sprintf("kvcache.kv_encode_%d", l.bits), [3]int{s.touched, l.heads, 1}, [3]int{128}, 0,
					append([]any{rows, v, s.span, o.seq}, cache...)...)
			})
			if err != nil {
				return err
			}
		}
		n := o.seq * l.heads * (l.dk + l.dv)
		if err := c.Launch("kvcache.kv_store", [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, append([]any{k, v, o.seq, 1}, cache...)...); err != nil {
			return err
		}
		to := op.At(out, size*b*o.seq*o.heads*l.dv)
		if done, err := o.inTiles(c, &s, count, to, q, slopes, sinks, cache); done || err != nil {
			return err
		}
		return o.inParts(c, &s, to, q, state, slopes, sinks, cache)
	})
}

// parts are where q, k and v lie.
func (o *attend) parts(in []G.Value) (q, k, v op.DevicePtr) {
	if o.mains == 3 {
		return op.At(in[0], 0), op.At(in[1], 0), op.At(in[2], 0)
	}
	const size = 4
	s := o.cache.Shape()
	queries, keys := size*s.Batch*o.seq*o.heads*s.HeadDim, size*s.Batch*o.seq*s.KVHeads*s.HeadDim
	return op.At(in[0], 0), op.At(in[0], queries), op.At(in[0], queries+keys)
}

// slopes lends f those of ALiBi, nil for none.
func (o *cudaAttend) slopes(c *op.Card, f func(slopes any) error) error {
	if !o.cfg.ALiBi {
		return f(nil)
	}
	all := flashattn.Slopes(o.heads)
	narrow := make([]float32, len(all))
	for h, x := range all {
		narrow[h] = float32(x)
	}
	return c.Scratch(4*len(narrow), func(slopes op.DevicePtr) error {
		if err := op.CopyIn(c, slopes, narrow); err != nil {
			return err
		}
		return f(slopes)
	})
}

// tiledOnCard is from how many rows of a key head on what the cache stands for is written out, in float32 and for as long as the call
// lasts, so that attention in tiles on tensor cores passes over it.
const tiledOnCard = 64

// inTiles attends the queries of count tokens, the newest, in tiles, or reports false if that is not worth it or cannot be.
func (o *cudaAttend) inTiles(c *op.Card, s *books, count int, out, q op.DevicePtr, slopes, sinks any, cache []any) (done bool, err error) {
	l, x := o.cache.cardLayout(), newSight(o.cfg, o.cache.Shape().HeadDim, o.heads)
	const size, most = 4, 256
	if count*o.heads/l.heads < tiledOnCard || s.dropped > 0 || max(l.dk, l.dv) > most {
		return false, nil
	}
	pitch := func(d int) int { return (d+7)/8*8 + 4 }
	shared := size * (96*pitch(l.dk) + 32*pitch(l.dv)) // see attention.cu
	if room, err := c.SharedMost(); err != nil || shared > room {
		return false, err
	}
	width := 64
	for width < l.dv {
		width *= 2
	}
	n := s.after
	return true, c.Scratch(size*n*l.heads*(l.dk+l.dv), func(k op.DevicePtr) error {
		v := k + op.DevicePtr(size*n*l.heads*l.dk)
		err := c.Launch(fmt.Sprintf("kvcache.kv_unpack_%d", l.bits), [3]int{min((n*l.heads+3)/4, 65535)}, [3]int{128}, 4*size*l.dk,
			append([]any{k, v, n}, cache...)...)
		if err != nil {
			return err
		}
		if err := c.Launch(fmt.Sprintf("attention.attention_%d_f32", width), [3]int{(count + 63) / 64, o.heads, 1}, [3]int{128}, shared,
			out, nil, nil, q, k, v, sinks, slopes, nil, 0, 0, count, n, o.heads, l.heads, l.dk, l.dv, x.left, 0, x.scale, x.softcap); err != nil {
			return err
		}
		idle := (o.seq - count) * o.heads * l.dv
		if idle == 0 {
			return nil
		}
		return c.Elementwise("elements.zero_f32", idle, out+op.DevicePtr(size*count*o.heads*l.dv))
	})
}

// inParts attends eight rows at a time, over parts of the tokens.
func (o *cudaAttend) inParts(c *op.Card, s *books, out, q, state op.DevicePtr, slopes, sinks any, cache []any) error {
	l, x := o.cache.cardLayout(), newSight(o.cfg, o.cache.Shape().HeadDim, o.heads)
	const size = 4
	splits := max(1, (s.after+splitOnCard-1)/splitOnCard)
	chunks := (o.seq*o.heads/l.heads + rowsOnCard - 1) / rowsOnCard
	shared := size * rowsOnCard * (3*l.padK + 3*64 + l.padV + 8)
	return c.Scratch(size*l.heads*chunks*splits*rowsOnCard*(2+l.dv), func(parts op.DevicePtr) error {
		err := c.Launch(fmt.Sprintf("kvcache.kv_attend_%d", l.bits), [3]int{splits, l.heads, chunks}, [3]int{128}, shared,
			append([]any{parts, q, slopes, o.seq, o.heads, x.left, splitOnCard, x.scale, x.softcap}, cache...)...)
		if err != nil {
			return err
		}
		return c.Launch("kvcache.kv_merge", [3]int{o.heads, o.seq, 1}, [3]int{128}, 0, out, parts, sinks, state, o.seq, o.heads, l.heads, l.dv, splits)
	})
}

// address is where memory of the card lies, nil for none.
func address[T float32 | uint16 | uint8](x []T) any {
	if len(x) == 0 {
		return nil
	}
	return op.DevicePtr(uintptr(unsafe.Pointer(unsafe.SliceData(x))))
}
