package throughput

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A ceiling of one operation a nanosecond and calls that take at least a millisecond for as many leave no share above 100 %.
func TestRun(t *testing.T) {
	ceilings := 0
	r := testing.Benchmark(func(b *testing.B) {
		w := Work{Ops: 1e6, Unit: "GOP/s", Share: "%limit", Ceiling: func() float64 { ceilings++; return 1 }}
		each := w.Run(b, func() { time.Sleep(time.Millisecond) })
		require.GreaterOrEqual(t, each, 1e6)
	})
	require.Greater(t, ceilings, 1)
	require.LessOrEqual(t, r.Extra["GOP/s"], 1.0)
	require.Greater(t, r.Extra["GOP/s"], 0.0)
	require.InDelta(t, 100*r.Extra["GOP/s"], r.Extra["%limit"], 5) // medians of blocks may differ a little
	require.InDelta(t, 1e6/r.Extra["GOP/s"], r.Extra["ns/op"], 1)
}

func TestMedian(t *testing.T) {
	require.Equal(t, 3.0, median([]float64{5, 1, 3}))
	require.Equal(t, 2.5, median([]float64{4, 1, 3, 2}))
}
