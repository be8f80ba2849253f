package optest

import (
	"math"
	"testing"

	"stheno/internal/kernel"
)

// MaxError returns the largest |got−want| and its index. A NaN or infinity on one side only is an infinite error; equal
// infinities and NaN on both sides are none.
func MaxError[T kernel.Float](got []T, want []float64) (worst float64, at int) {
	if len(got) != len(want) {
		return math.Inf(1), -1
	}
	at = -1
	for i, w := range want {
		g := float64(got[i])
		var e float64
		switch {
		case math.IsNaN(g) && math.IsNaN(w), g == w:
		case math.IsNaN(g), math.IsNaN(w), math.IsInf(g, 0), math.IsInf(w, 0):
			e = math.Inf(1)
		default:
			e = math.Abs(g - w)
		}
		if e > worst || at < 0 {
			worst, at = e, i
		}
	}
	return worst, at
}

// Within fails the test unless got is as close to want as factor times the error of naive, a plain computation in the
// same precision, plus floor, which must be reasoned where it is chosen.
func Within[T kernel.Float](t testing.TB, what string, got, naive []T, want []float64, factor, floor float64) {
	t.Helper()
	e, at := MaxError(got, want)
	en, _ := MaxError(naive, want)
	if math.IsInf(en, 1) {
		t.Fatalf("%s: the naive computation is not finite where the reference is", what)
	}
	if bar := factor*en + floor; !(e <= bar) {
		if at < 0 {
			t.Fatalf("%s: got %d elements, want %d", what, len(got), len(want))
		}
		t.Fatalf("%s: element %d: got %v, want %v: error %.3g, bar %.3g (naive %.3g)", what, at, got[at], want[at], e, bar, en)
	}
}

// Close fails the test unless |got−want| ≤ tol everywhere.
func Close[T kernel.Float](t testing.TB, what string, got []T, want []float64, tol float64) {
	t.Helper()
	if e, at := MaxError(got, want); !(e <= tol) {
		if at < 0 {
			t.Fatalf("%s: got %d elements, want %d", what, len(got), len(want))
		}
		t.Fatalf("%s: element %d: got %v, want %v: error %.3g, tol %.3g", what, at, got[at], want[at], e, tol)
	}
}

// Float64s widens x.
func Float64s[T kernel.Float](x []T) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}
