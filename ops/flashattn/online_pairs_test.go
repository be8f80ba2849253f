package flashattn

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// withPairs lets BFloat16 go through pairs, whether these are fast here or not.
func withPairs(t testing.TB) {
	t.Helper()
	restore, err := kernel.UsePairs(true)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(restore)
	if !kernel.OnlinePairsFused[float32]() {
		t.Skip("needs AVX-512")
	}
}

func TestPairs(t *testing.T) {
	withPairs(t)
	for _, s := range []instance{
		{name: "one", batch: 1, seqQ: 1, seqKV: 1, heads: 1, kvHeads: 1, d: 1, dv: 1},
		{name: "decode", batch: 2, seqQ: 1, seqKV: 97, heads: 6, kvHeads: 2, d: 64, dv: 64},
		{name: "odd", batch: 1, seqQ: 59, seqKV: 59, heads: 2, kvHeads: 1, d: 59, dv: 17},
		{name: "long", batch: 1, seqQ: 201, seqKV: 331, heads: 2, kvHeads: 2, d: 64, dv: 64},
		{name: "wide", batch: 1, seqQ: 17, seqKV: 70, heads: 1, kvHeads: 1, d: 256, dv: 255},
		{name: "blocks", batch: 1, seqQ: 130, seqKV: 150, heads: 2, kvHeads: 1, d: 24, dv: 16, cfg: Config{BlockQ: 50, BlockKV: 70}},
		{name: "packed", batch: 1, seqQ: 97, seqKV: 150, heads: 4, kvHeads: 2, d: 32, dv: 32, cuQ: []int{0, 1, 1, 40, 90}, cuKV: []int{0, 3, 10, 80, 149}},
	} {
		s.cfg.Precision = BFloat16
		for _, n := range []int{0, 1, 2, 3, 1 << 4, 1<<4 | 3, 1 << 7, 1<<6 | 1} { // masks, sinks, dLSE; dropout, which goes another way
			s.with(n).check(t)
		}
	}
}

// Values that are not finite, or would not be in BF16, stay where they are seen.
func TestPairsOfNumbersThatAreNotPaired(t *testing.T) {
	withPairs(t)
	c := instance{name: "beyond", batch: 1, seqQ: 310, seqKV: 320, heads: 4, kvHeads: 2, d: 21, dv: 12, seed: 4, cfg: Config{Causal: true, Precision: BFloat16}}
	clean := c.alone(generate(c).narrow())
	// Weights are not rounded on the other way; 1e-5 is for some tens of roundings of float32, of outputs below 4.
	bars := newRoundingBars(clean, clean.out)
	for _, bad := range []float64{math.NaN(), math.Inf(1), 3.4e38} {
		for _, kind := range []string{"q", "k", "v"} {
			for _, at := range []int{0, 33, 300} {
				v := generate(c).narrow()
				row := map[string]Heads[float32]{"q": clean.q, "k": clean.k, "v": clean.v}[kind]
				row.Data = map[string][]float32{"q": v.q, "k": v.k, "v": v.v}[kind]
				row.row(0, at, 1)[3] = float32(bad)
				p := c.alone(v)
				what, d := fmt.Sprintf("%v in row %d of %s", bad, at, kind), p.reaches(kind, at, 1)
				for n := range p.q.Seq * p.q.Heads {
					sum := 0.0
					for i, x := range p.out.Data[n*c.dv:][:c.dv] {
						sum += float64(x)
						if y := clean.out.Data[n*c.dv+i]; !d.rows[n] {
							require.InDelta(t, y, x, bars.out[n*c.dv+i]+1e-5, "%s: out row %d", what, n)
						}
					}
					if d.rows[n] && math.IsNaN(bad) {
						require.True(t, math.IsNaN(sum), "%s: out row %d is free of it", what, n)
					}
				}
			}
		}
	}
}

// What Memory says is what is held.
func TestMemoryOfPairs(t *testing.T) {
	withPairs(t)
	old, err := parallel.SetThreads(1)
	require.NoError(t, err)
	defer parallel.SetThreads(old)
	s, cfg := Shape{Batch: 1, SeqQ: 1024, SeqKV: 1024, Heads: 4, KVHeads: 4, HeadDim: 64, ValueDim: 64, Threads: 1}, Config{Precision: BFloat16}
	_, want := Memory(s, cfg)
	got := measure(t, s, cfg)
	require.LessOrEqual(t, got, want*9/8+32<<10)
	require.GreaterOrEqual(t, got, want)
}
