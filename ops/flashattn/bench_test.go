package flashattn

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
	"stheno/internal/parallel"
)

// grid runs f over the axes of a benchmark with 12 heads and a batch of 1.
func grid(b *testing.B, f func(b *testing.B, c instance, threads int)) {
	for _, seq := range []int{64, 512, 1024, 2048, 4096} {
		for _, d := range []int{64, 80, 96, 128} {
			for _, causal := range []bool{false, true} {
				for _, threads := range []int{1, 2} {
					c := instance{batch: 1, seqQ: seq, seqKV: seq, heads: 12, kvHeads: 12, d: d, dv: d, cfg: Config{Causal: causal}}
					b.Run(fmt.Sprintf("seq=%d/d=%d/causal=%t/threads=%d", seq, d, causal, threads), func(b *testing.B) {
						old, err := parallel.SetThreads(threads)
						require.NoError(b, err)
						defer parallel.SetThreads(old)
						f(b, c, threads)
					})
				}
			}
		}
	}
}

// useful is the number of operations that attention needs: two products of 2·seqQ·seqKV·d, half of it under a causal mask.
func (c instance) useful() float64 {
	ops := 4 * float64(c.seqQ) * float64(c.seqKV) * float64(c.d*c.heads)
	if c.cfg.Causal {
		ops /= 2
	}
	return ops
}

// BenchmarkForward has the precisions that round under names of their own; %peak stays that of float32.
func BenchmarkForward(b *testing.B) {
	forward := func(b *testing.B, c instance, threads int) {
		p, _ := build(c, generate(c).narrow())
		p.rowMax, p.rowSum = nil, nil
		optest.FLOPs(c.useful(), threads).Run(b, p.forward)
	}
	grid(b, forward)
	for _, precision := range roundings {
		b.Run("precision="+precision.String(), func(b *testing.B) {
			grid(b, func(b *testing.B, c instance, threads int) {
				c.cfg.Precision = precision
				forward(b, c, threads)
			})
		})
	}
}

// BenchmarkBackward counts five products where the forward pass has two.
func BenchmarkBackward(b *testing.B) {
	grid(b, func(b *testing.B, c instance, threads int) {
		p, g := build(c, generate(c).narrow())
		p.forward()
		optest.FLOPs(2.5*c.useful(), threads).Run(b, func() {
			clear(g.dQ.Data)
			clear(g.dK.Data)
			clear(g.dV.Data)
			p.backward(g)
		})
	})
}
