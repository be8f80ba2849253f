package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVectorProducts(t *testing.T) {
	for _, isa := range Supported() {
		t.Run(isa.String(), func(t *testing.T) {
			restore, err := Use(isa)
			require.NoError(t, err)
			defer restore()
			for _, rows := range []int{0, 1, 3, 4, 5, 8, 17} {
				for _, k := range []int{0, 1, 7, 8, 9, 17, 64, 97} {
					for _, gap := range []int{0, 5} {
						testVectorProducts[float32](t, rows, k, k+gap, 1e-5)
						testVectorProducts[float64](t, rows, k, k+gap, 1e-13)
					}
				}
			}
		})
	}
}

// testVectorProducts holds both products to sums in float64. Between the rows of w lie NaN.
func testVectorProducts[T Float](t *testing.T, rows, k, ld int, tol float64) {
	r := rand.New(rand.NewPCG(uint64(rows), uint64(k)))
	random := func(n int) []T {
		x := make([]T, n)
		for i := range x {
			x[i] = T(r.NormFloat64())
		}
		return x
	}
	w := random(max(0, (rows-1)*ld+k))
	for i := range w {
		if ld > 0 && i%ld >= k {
			w[i] = T(math.NaN())
		}
	}
	x, y := random(k), random(rows+1)
	canary := y[rows]
	MulVec(y, rows, k, w, ld, x)
	weights, sum := random(rows), random(k+1)
	before, last := append([]T(nil), sum...), sum[k]
	AddVecMul(sum, k, rows, weights, w, ld)
	require.Equal(t, canary, y[rows])
	require.Equal(t, last, sum[k])
	what := fmt.Sprintf("%T rows=%d k=%d ld=%d", x, rows, k, ld)
	for i := range rows {
		want := 0.0
		for p := range k {
			want += float64(w[i*ld+p]) * float64(x[p])
		}
		require.InDelta(t, want, float64(y[i]), tol*float64(k+1), what)
	}
	for p := range k {
		want := float64(before[p])
		for i := range rows {
			want += float64(weights[i]) * float64(w[i*ld+p])
		}
		require.InDelta(t, want, float64(sum[p]), tol*float64(rows+1), what)
	}
}
