//go:build cuda

package kvcompress

import (
	"fmt"

	G "gorgonia.org/gorgonia"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

var (
	_ G.CUDADoer        = (*fakeQuantize)(nil)
	_ op.CUDABackwarder = (*fakeQuantize)(nil)
)

func (o *fakeQuantize) CallsExtern() bool { return true }

// CUDADo is Do on a card. A number that FP16 cannot hold makes NaN of itself there, where Do has an error.
func (o *fakeQuantize) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		l, s, suffix := &o.layout, o.OutShape(), op.Suffix(in[0])
		batch, seq, heads, dim := s[0], s[1], s[2], s[3]
		coded := max(l.sinks, seq-l.recent)
		count := coded - l.sinks
		span := (count + l.group - 1) / l.group * l.group
		kind, rotate, limit, halves := "values", 1, float64(kernel.MaxFloat16), 0
		if o.keys {
			kind, rotate, limit = "keys", max(1, l.rotate), float64(l.keyLimit())
		}
		if o.fp16 {
			halves = 1
		}
		warps := func(n int) [3]int { return [3]int{min((n+3)/4, 65535)} }
		block, shared := [3]int{128}, 4*4*dim
		return c.Scratch(4*max(1, batch*heads*span*dim), func(rows op.DevicePtr) error {
			if span > 0 {
				if err := c.Launch("kvfake.kv_fake_rows"+suffix, warps(batch*heads*span), block, shared, rows, in[0],
					batch, seq, heads, dim, l.sinks, span, halves, rotate); err != nil {
					return err
				}
				if err := c.Launch(fmt.Sprintf("kvfake.kv_fake_%s_%d", kind, l.bits), warps(batch*heads*span), block, 0, rows,
					batch*heads, dim, l.group, count, span); err != nil {
					return err
				}
			}
			return c.Launch("kvfake.kv_fake_put"+suffix, warps(batch*heads*seq), block, shared, prealloc, in[0], rows,
				batch, seq, heads, dim, l.sinks, coded, span, halves, rotate, limit)
		})
	})
}

// CUDABackward is Backward on a card.
func (o *fakeQuantize) CUDABackward(c *op.Card, _ []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return c.Copy(dIn[0], dOut, o.OutShape().TotalSize()*op.SizeOf(op.Suffix(dOut)))
}
