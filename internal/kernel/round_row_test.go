package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRoundRow(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 31, 32, 33, 64, 100, 1024, 1100, 2080} {
			r, x := rand.New(rand.NewPCG(1, uint64(n))), make([]float32, n)
			for i := range x {
				x[i] = float32(min(max(r.NormFloat64(), -4), 4))
				if i%7 == 0 {
					x[i] = float32(i%9) + 0.5 - 4 // half way, at inv 1
				}
			}
			for _, inv := range []float32{1, 20, 0x1p-30} {
				got := make([]int8, n)
				sum := RoundRow(got, x, inv)
				want := int32(0)
				for i, v := range x {
					q := math.RoundToEven(float64(v * inv))
					require.Equal(t, int8(q), got[i], "element %d of %d", i, n)
					want += int32(q)
				}
				require.Equal(t, want, sum)
			}
		}
	})
}
