package flashattn

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLog(t *testing.T) {
	check := func(x float64) {
		want := math.Log(x)
		require.InDelta(t, want, log[float32](x), 0x1p-39*math.Abs(want), "log %v", x)
		require.Equal(t, want, log[float64](x))
	}
	for x := 1e-300; x < 1e300; x *= 1.37 {
		check(x)
	}
	for _, near := range []float64{0.5, math.Sqrt2 / 2, 1, math.Sqrt2, 2, math.MaxFloat64, 0x1p-1022} {
		for x, n := near*(1-0x1p-40), 0; n < 3; n++ {
			if !math.IsInf(x, 0) {
				check(x)
			}
			x = near * (1 + float64(n)*0x1p-40)
		}
	}
	for _, x := range []float64{0, 0x1p-1070, math.Inf(1)} {
		require.Equal(t, math.Log(x), log[float32](x))
	}
	require.True(t, math.IsNaN(log[float32](math.NaN())) && math.IsNaN(log[float32](-1)))
}
