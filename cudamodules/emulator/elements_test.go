//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/kernel"
)

func TestElements(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for _, n := range []int{1, 63, 64, 1000, 5000} {
		testElements[float32](t, s, n)
		testElements[float64](t, s, n)
	}
}

func testElements[T number](t *testing.T, s *emulator.Session, n int) {
	x := random[T](1, n)
	for _, keep := range []float64{0.7, 1, 0.999999999999, 1e-12} {
		// Output 5 of SplitMix64 started at 11.
		golden := uint64(0x9e3779b97f4a7c15)
		z := 11 + 6*golden
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		want, got := make([]T, n), make([]T, n)
		dropout(want, x, z^z>>31, keep)
		require.NoError(t, s.Run("elements", "dropout"+suffix[T](), elements(n, 256), emulator.Out{got}, emulator.In{x}, int64(11),
			emulator.In{[]int64{5}}, int64(8), int64(kernel.DropoutBound(keep)), keep, int64(n)))
		require.Equal(t, want, got, "keep %v", keep)
	}
	zeros := make([]T, n)
	require.NoError(t, s.Run("elements", "zero"+suffix[T](), elements(n, 256), emulator.Out{zeros}, int64(n)))
	require.Equal(t, make([]T, n), zeros)

	every(t, s, func() any {
		parts := make([]float64, (n+4095)/4096)
		require.NoError(t, s.Run("elements", "squares"+suffix[T](), cudamodules.Geometry{Grid: [3]int{len(parts)}, Block: [3]int{256}},
			emulator.Out{parts}, emulator.In{x}, int64(n)))
		for b, part := range parts {
			var want float64
			for _, v := range x[4096*b : min(4096*(b+1), n)] {
				want += float64(v) * float64(v)
			}
			require.InEpsilon(t, want, part, 1e-13)
		}
		return parts
	})
}

func dropout[T number](dst, x []T, key uint64, keep float64) {
	switch d := any(dst).(type) {
	case []float32:
		kernel.DropoutRow(d, any(x).([]float32), key, 0, keep)
	case []float64:
		kernel.DropoutRow(d, any(x).([]float64), key, 0, keep)
	}
}
