package flashattn

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// peak is the ceiling for a number of threads, measured once in this process.
var peak = func() func(threads int) float64 {
	var mu sync.Mutex
	known := map[int]float64{}
	return func(threads int) float64 {
		mu.Lock()
		defer mu.Unlock()
		if known[threads] == 0 {
			known[threads] = kernel.MeasurePeak(threads)
		}
		return known[threads]
	}
}()

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

func report(b *testing.B, ops float64, threads int) {
	gflops := ops * float64(b.N) / b.Elapsed().Seconds() / 1e9
	b.ReportMetric(gflops, "GFLOP/s")
	b.ReportMetric(100*gflops/peak(threads), "%peak")
}

func BenchmarkForward(b *testing.B) {
	grid(b, func(b *testing.B, c instance, threads int) {
		p, _ := build(c, generate(c).narrow())
		p.rowMax, p.rowSum = nil, nil
		for b.Loop() {
			p.forward()
		}
		report(b, c.useful(), threads)
	})
}

// BenchmarkBackward counts five products where the forward pass has two.
func BenchmarkBackward(b *testing.B) {
	grid(b, func(b *testing.B, c instance, threads int) {
		p, g := build(c, generate(c).narrow())
		p.forward()
		for b.Loop() {
			clear(g.dQ.Data)
			clear(g.dK.Data)
			clear(g.dV.Data)
			p.backward(g)
		}
		report(b, 2.5*c.useful(), threads)
	})
}
