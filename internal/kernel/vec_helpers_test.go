package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// vecSizes are all tails of two AVX-512 vectors and some awkward lengths; the last ones, left out under
// -short, need more than one assembly call.
func vecSizes() []int {
	var s []int
	for n := range 34 {
		s = append(s, n)
	}
	s = append(s, 59, 64, 65, 97, 1025)
	if testing.Short() {
		return s
	}
	return append(s, maxCall, maxCall+7)
}

const margin = 24

// fencePost is a NaN that no kernel makes.
var fencePost = math.Float32frombits(0x7fabcdef)

// fenced is a slice at an odd element offset between canaries.
type fenced struct {
	all  []float32
	data []float32
}

func newFenced(n, misalign int) *fenced {
	all := make([]float32, margin+misalign+n+margin)
	for i := range all {
		all[i] = fencePost
	}
	return &fenced{all, all[margin+misalign : margin+misalign+n : margin+misalign+n]}
}

func fencedCopy(x []float32, misalign int) *fenced {
	g := newFenced(len(x), misalign)
	copy(g.data, x)
	return g
}

// intact fails the test when something outside the slice was written.
func (g *fenced) intact(t *testing.T) {
	t.Helper()
	first := len(g.all) - margin - len(g.data)
	for i, v := range g.all {
		if (i < first || i >= first+len(g.data)) && math.Float32bits(v) != math.Float32bits(fencePost) {
			require.Failf(t, "written outside of the slice", "element %d of %d is %v", i-first, len(g.data), v)
		}
	}
}

func randoms(rng *rand.Rand, n int, scale float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(rng.NormFloat64() * scale)
	}
	return x
}

// ulp is the distance between neighbouring float32 values at x, at least the smallest normal one.
func ulp(x float64) float64 {
	_, e := math.Frexp(math.Max(math.Abs(x), 0x1p-126))
	return math.Ldexp(1, e-24)
}

// near requires |got−want| ≤ tol. A NaN or an infinity must be met exactly.
func near(t *testing.T, want float64, got float32, tol float64, what string, args ...any) {
	t.Helper()
	g := float64(got)
	if math.IsNaN(want) && math.IsNaN(g) || g == want {
		return
	}
	if !(math.Abs(g-want) <= tol) || math.IsInf(want, 0) {
		require.Fail(t, "value", append([]any{what + ": got %v, want %v, tolerance %v, off by %.3g"}, append(args, g, want, tol, math.Abs(g-want))...)...)
	}
}
