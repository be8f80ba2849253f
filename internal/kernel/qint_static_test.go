package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// With a scale given beforehand, products are those of clamped and rounded activations, summed exactly.
func TestGemmStatic(t *testing.T) {
	forEachIntegerISA(t, func(t *testing.T) {
		for _, coding := range []Coding{Code8, Code4} {
			for _, size := range [][3]int{{1, 45, 20}, {5, 70, 33}, {40, 130, 17}} {
				t.Run(fmt.Sprintf("%v/%v", coding, size), func(t *testing.T) {
					checkStatic[float32](t, coding, size[0], size[1], size[2], 4e-7)
					checkStatic[float64](t, coding, size[0], size[1], size[2], 1e-14)
				})
			}
		}
	})
	require.Panics(t, func() {
		GemmStatic(RowMajor(make([]float32, 1), 1, 1), RowMajor(make([]float32, 1), 1, 1), &Quantized{Coding: Code8, K: 1, N: 1, Codes: make([]uint8, 64), Scales: make([]float32, 1)}, math.NaN(), Epilogue[float32]{})
	})
}

func checkStatic[T Float](t *testing.T, coding Coding, m, k, n int, tol float64) {
	const scale = 0.01171875 // a few of the numbers lie beyond 127 times it
	b := &Quantized{Coding: coding, K: k, N: n, Group: 32, Codes: make([]uint8, coding.CodeLen(k, n)), Scales: make([]float32, (k+31)/32*n)}
	for i := range b.Codes {
		b.Codes[i] = uint8(i*89 + i/7)
	}
	for i := range b.Scales {
		b.Scales[i] = 0.01 + float32(i%13)/1000
	}
	a := make([]T, m*k)
	for i := range a {
		a[i] = T(1.7 * math.Sin(float64(i*i%977)))
	}
	got := make([]T, m*n)
	GemmStatic(RowMajor(got, m, n), RowMajor(a, m, k), b, scale, Epilogue[T]{})
	clamped := 0
	for i := range m {
		for j := range n {
			var want, abs float64
			for p := range k {
				q := math.RoundToEven(float64(a[i*k+p] * (1 / T(scale))))
				if math.Abs(q) > 127 {
					q = math.Copysign(127, q)
					clamped++
				}
				term := q * scale * float64(b.Scales[b.param(p, j)]) * float64(b.Code(p, j)-b.zero(p, j))
				want, abs = want+term, abs+math.Abs(term)
			}
			require.InDelta(t, want, float64(got[i*n+j]), tol*(abs+1e-9), "(%d, %d)", i, j)
		}
	}
	require.Positive(t, clamped)
}
