package flashattn

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Gradients are the same to the last bit every time and at any number of threads, for shapes that are cut into splits and
// shapes that are not.
func TestResultsAreTheSameToTheBit(t *testing.T) {
	for _, c := range []struct {
		instance
		repeats int
	}{
		{instance{name: "tiny", batch: 1, seqQ: 9, seqKV: 11, heads: 2, kvHeads: 1, d: 8, dv: 8}, 1000},
		{instance{name: "splits", batch: 1, seqQ: 200, seqKV: 600, heads: 2, kvHeads: 1, d: 16, dv: 8}, 6},
		{instance{name: "heads", batch: 2, seqQ: 300, seqKV: 90, heads: 6, kvHeads: 6, d: 8, dv: 16}, 6},
		{instance{name: "tiles", batch: 1, seqQ: 130, seqKV: 190, heads: 4, kvHeads: 2, d: 64, dv: 64}, 1000},
	} {
		for n, features := range []int{1, 1<<features - 1 - 1, 1, 1, 1<<features - 1 - 1} {
			precision := []Precision{Float32, Float32, BFloat16, Int8, Int8}[n]
			t.Run(fmt.Sprintf("%s/%b/%v", c.name, features, precision), func(t *testing.T) {
				c.cfg.Precision = precision
				c, times := c.with(features), c.repeats
				if c.d == 64 && (testing.Short() || kernel.Active() == kernel.Generic) { // minutes in portable Go, or emulated
					times = 50
				}
				v := generate(c).narrow()
				var want map[string][]float32
				for n := range times {
					old, err := parallel.SetThreads(n%3 + 1)
					require.NoError(t, err)
					p, g := build(c, v)
					p.forward()
					p.backward(g)
					_, err = parallel.SetThreads(old)
					require.NoError(t, err)
					got := c.results32(p, g)
					if want == nil {
						want = got
					}
					for what := range want {
						require.True(t, equal(want[what], got[what]), "%s of run %d differs", what, n)
					}
				}
			})
		}
	}
}
