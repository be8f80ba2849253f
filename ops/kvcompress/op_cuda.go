//go:build cuda

package kvcompress

import (
	"fmt"
	"unsafe"

	G "gorgonia.org/gorgonia"

	"stheno/internal/op"
)

// attendOpFor is o on the card if its cache is there.
func attendOpFor(o *attend) G.Op {
	if c, ok := o.cache.(*Compressed); ok && c.OnCard() {
		return &cudaAttend{o, c}
	}
	return o
}

// cudaAttend is attend over a cache on a card. The host keeps the books, of how many tokens there are and which are coded; codes are
// made and read on the card.
type cudaAttend struct {
	*attend
	cache *Compressed
}

var _ G.CUDADoer = (*cudaAttend)(nil)

func (o *cudaAttend) CallsExtern() bool { return true }

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
		s := o.cache.shape
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
		for b := range counts {
			if err = o.one(c, b, counts[b], prealloc, in, sinks); err != nil {
				return err
			}
		}
		done = true
		return nil
	})
}

// splitOnCard is how many tokens a block passes over. It is a constant, so that results do not depend on the card.
const splitOnCard = 256

// rowsOnCard is how many rows, queries times heads that share a key head, a block takes.
const rowsOnCard = 8

// one appends count tokens to sequence b and attends their queries.
func (o *cudaAttend) one(c *op.Card, b, count int, out G.Value, in []G.Value, sinks any) error {
	l, s := &o.cache.layout, &o.cache.seqs[b]
	const size = 4
	q, k, v := o.parts(in)
	q, k, v = q+op.DevicePtr(size*b*o.seq*o.heads*l.dk), k+op.DevicePtr(size*b*o.seq*l.heads*l.dk), v+op.DevicePtr(size*b*o.seq*l.heads*l.dv)

	// The books: what the cache holds after the call, and which pages that takes.
	beforeN, beforeCoded := s.n, s.coded
	s.n += count
	s.coded = max(s.coded, s.n-l.recent)
	span, touched := 0, 0
	if n := s.coded - beforeCoded; n > 0 {
		first, _ := l.place(beforeCoded)
		last, _ := l.place(s.coded - 1)
		touched = last - first + 1
		// A page that is new takes the keys of its whole group, for their scales.
		span = n
		if start := l.sinks + last*l.group; start >= beforeCoded {
			span = start + l.group - beforeCoded
		}
		for len(s.pages) <= last {
			p := s.newPage(l)
			p.clear(l)
			s.pages = append(s.pages, p)
		}
	}
	o.cache.evict(s)

	states := []int64{int64(beforeN), int64(beforeCoded), int64(s.n), int64(s.coded), int64(s.first)}
	return c.Scratch(8*len(states), func(state op.DevicePtr) error {
		if err := op.CopyIn(c, state, states); err != nil {
			return err
		}
		cache := o.parameters(s, state)
		if span > 0 {
			err := c.Scratch(size*l.heads*span*l.dk, func(rows op.DevicePtr) error {
				grid := [3]int{min((l.heads*span+3)/4, 65535)}
				if err := c.Launch("kvcache.kv_rows", grid, [3]int{128}, 4*size*l.dk, append([]any{rows, k, span, o.seq, 1}, cache...)...); err != nil {
					return err
				}
				return c.Launch(fmt.Sprintf("kvcache.kv_encode_%d", l.bits), [3]int{touched, l.heads, 1}, [3]int{128}, 0,
					append([]any{rows, v, span, o.seq}, cache...)...)
			})
			if err != nil {
				return err
			}
		}
		n := o.seq * l.heads * (l.dk + l.dv)
		if err := c.Launch("kvcache.kv_store", [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, append([]any{k, v, o.seq, 1}, cache...)...); err != nil {
			return err
		}
		return o.attendOnCard(c, s, op.At(out, size*b*o.seq*o.heads*l.dv), q, state, sinks, cache)
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

// attendOnCard attends the newest queries.
func (o *cudaAttend) attendOnCard(c *op.Card, s *stream, out, q, state op.DevicePtr, sinks any, cache []any) error {
	l, sight := &o.cache.layout, newSight(o.cfg, o.cache.dk, o.heads)
	const size = 4
	splits := max(1, (s.n+splitOnCard-1)/splitOnCard)
	chunks := (o.seq*o.heads/l.heads + rowsOnCard - 1) / rowsOnCard
	shared := size * rowsOnCard * (3*l.padK + 3*64 + l.padV + 8)
	return c.Scratch(size*l.heads*chunks*splits*rowsOnCard*(2+l.dv), func(parts op.DevicePtr) error {
		attend := func(slopes any) error {
			return c.Launch(fmt.Sprintf("kvcache.kv_attend_%d", l.bits), [3]int{splits, l.heads, chunks}, [3]int{128}, shared,
				append([]any{parts, q, slopes, o.seq, o.heads, sight.left, splitOnCard, sight.scale, sight.softcap}, cache...)...)
		}
		var err error
		if sight.slopes == nil {
			err = attend(nil)
		} else {
			narrow := make([]float32, len(sight.slopes))
			for h, x := range sight.slopes {
				narrow[h] = float32(x)
			}
			err = c.Scratch(size*len(narrow), func(slopes op.DevicePtr) error {
				if err := op.CopyIn(c, slopes, narrow); err != nil {
					return err
				}
				return attend(slopes)
			})
		}
		if err != nil {
			return err
		}
		return c.Launch("kvcache.kv_merge", [3]int{o.heads, o.seq, 1}, [3]int{128}, 0, out, parts, sinks, state, o.seq, o.heads, l.heads, l.dv, splits)
	})
}

// parameters are the memory and sizes of a sequence as kernels take them.
func (o *cudaAttend) parameters(s *stream, state op.DevicePtr) []any {
	l := &o.cache.layout
	ringK, ringV, halves := address(s.k), address(s.v), 0
	if s.halfK != nil {
		ringK, ringV, halves = address(s.halfK), address(s.halfV), 1
	}
	var codes, numbers any
	if len(s.fixed) > 0 {
		codes, numbers = address(s.fixed[0].codes), address(s.fixed[0].halves)
	}
	return []any{address(s.sinkK), address(s.sinkV), ringK, ringV, codes, numbers, state,
		l.heads, l.dk, l.dv, l.sinks, l.recent, l.group, l.most, halves, max(1, l.rotate)}
}

// address is where memory of the card lies, nil for none.
func address[T float32 | uint16 | uint8](x []T) any {
	if len(x) == 0 {
		return nil
	}
	return op.DevicePtr(uintptr(unsafe.Pointer(unsafe.SliceData(x))))
}
