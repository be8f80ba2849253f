//go:build cuda

package grounding

import (
	G "gorgonia.org/gorgonia"

	"stheno/internal/op"
)

var (
	_ G.CUDADoer        = (*mapsOp)(nil)
	_ op.CUDABackwarder = (*mapsOp)(nil)
)

// onCard gives f the parameters of kernels from q on.
func (o *mapsOp) onCard(c *op.Card, in []G.Value, f func(params []any) error) error {
	tokens := make([]int64, len(o.cfg.Tokens))
	for i, t := range o.cfg.Tokens {
		tokens[i] = int64(t)
	}
	return c.Scratch(8*len(tokens), func(p op.DevicePtr) error {
		if err := op.CopyIn(c, p, tokens); err != nil {
			return err
		}
		return f([]any{in[0], in[1], in[2], p, o.batch, o.seq, o.heads, o.kvHeads, o.patches, len(tokens), o.dim, o.cfg.Scale})
	})
}

// Copies are the tokens.
func (o *mapsOp) Copies() (sent int64, readBack []int) { return int64(8 * len(o.cfg.Tokens)), nil }

func (o *mapsOp) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *mapsOp) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		return o.onCard(c, in, func(params []any) error {
			n := o.OutShape().TotalSize()
			return c.Launch("maps.maps"+op.Suffix(in[0]), [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, append([]any{prealloc}, params...)...)
		})
	})
}

// CUDABackward is Backward on a card.
func (o *mapsOp) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return o.onCard(c, in, func(params []any) error {
		suffix := op.Suffix(dOut)
		shared := 8 * o.dim * op.SizeOf(suffix)
		grid, block := warpGrid(o.batch * o.seq * o.heads)
		if err := c.Launch("maps.maps_rows"+suffix, grid, block, shared, append([]any{dIn[0], dIn[2], dOut}, params...)...); err != nil {
			return err
		}
		grid, block = warpGrid(o.batch * o.patches * o.kvHeads)
		return c.Launch("maps.maps_keys"+suffix, grid, block, shared, append([]any{dIn[1], dOut}, params...)...)
	})
}
