//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

type number interface{ ~float32 | ~float64 }

// random are n numbers from the normal distribution.
func random[T number](seed uint64, n int) []T {
	r := rand.New(rand.NewPCG(seed, 1))
	x := make([]T, n)
	for i := range x {
		x[i] = T(r.NormFloat64())
	}
	return x
}

func wide[T number](x []T) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// suffix is how kernels are named after their dtype.
func suffix[T number]() string {
	if _, ok := any(T(0)).(float32); ok {
		return "_f32"
	}
	return "_f64"
}

func epsilon[T number]() float64 {
	if suffix[T]() == "_f32" {
		return 0x1p-24
	}
	return 0x1p-53
}

// near demands |got − want| ≤ tol·(|want| + scale), and that what is not finite is alike.
func near[T number](t *testing.T, got []T, want []float64, tol, scale float64, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	for i, w := range want {
		g := float64(got[i])
		if math.IsNaN(w) || math.IsInf(w, 0) || math.IsInf(float64(T(w)), 0) {
			require.Equal(t, fmt.Sprint(float64(T(w))), fmt.Sprint(g), "%s: element %d", what, i)
			continue
		}
		if !(math.Abs(g-w) <= tol*(math.Abs(w)+scale)) {
			t.Fatalf("%s: element %d: got %v, want %v: off by %.3g, want at most %.3g", what, i, g, w, math.Abs(g-w), tol*(math.Abs(w)+scale))
		}
	}
}

// every runs f on several schedules of threads; the results must not depend on them.
func every(t *testing.T, s *emulator.Session, f func() any) {
	t.Helper()
	var first any
	schedules := 3
	if os.Getenv("STHENO_CHECK_CUDA") == "long" {
		schedules = 40
	}
	for seed := range schedules {
		s.Schedule(seed)
		got := fmt.Sprint(f())
		if first == nil {
			first = got
		}
		require.Equal(t, first, got, "schedule %d", seed)
	}
	s.Schedule(0)
}

func elements(n, threads int) cudamodules.Geometry {
	return cudamodules.Geometry{Grid: [3]int{min((n+threads-1)/threads, 3)}, Block: [3]int{threads}}
}
