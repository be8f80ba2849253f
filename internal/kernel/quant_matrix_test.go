package kernel

import (
	"math"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A large result is written past the caches, to the same bits as one that an epilogue still needs.
func TestLargeResult(t *testing.T) {
	m, k, n := 520, 40, 544
	x := normal[float32](3)
	a := RowMajor(make([]float32, m*k), m, k)
	for i := range a.Data {
		a.Data[i] = x()
	}
	forEachIntegerISA(t, func(t *testing.T) {
		for _, kind := range []quantKind{{coding: Float16}, {coding: BFloat16}, {coding: Code8}, {coding: Code8, zeros: true}, {coding: Code4, group: 32}} {
			q := kind.random(k, n, 9)
			product := func(dynamic bool, after func(i0, i1, j0, j1 int)) []float32 {
				// A line of the result begins on a line of the cache, or the test is of the ordinary way only.
				all := make([]float32, m*n+16)
				for i := range all {
					all[i] = float32(math.NaN())
				}
				skip := int(-uintptr(unsafe.Pointer(&all[0]))%64) / 4
				c := RowMajor(all[skip:][:m*n], m, n)
				if dynamic {
					GemmDynamic(c, a, q, Epilogue[float32]{After: after})
				} else {
					GemmQuantized(c, a, q, Epilogue[float32]{After: after})
				}
				return c.Data
			}
			for _, dynamic := range []bool{false, true} {
				if dynamic && !kind.coding.Integer() {
					continue
				}
				require.Equal(t, product(dynamic, func(i0, i1, j0, j1 int) {}), product(dynamic, nil), "%v", kind)
			}
		}
	})
}

// Numbers whose pieces are special: infinities and NaN, the largest ones, and those of which a piece is below the smallest normal
// number, which counts as 0.
func TestGemmQuantizedExtremes(t *testing.T) {
	const m, k, n = 9, 40, 33
	forEachIntegerISA(t, func(t *testing.T) {
		for _, kind := range quantKinds {
			q := kind.random(k, n, 4)
			a, c := RowMajor(make([]float32, m*k), m, k), RowMajor(make([]float32, m*n), m, n)
			for i, x := range []float32{1, float32(math.Inf(1)), math.Float32frombits(0x7f800001), 0x1p127, -math.MaxFloat32, 0x1p-100, 0x1.fffffep-126, 0x1.fffffep-1, 0} {
				a.Data[i*k+39] = x
			}
			GemmQuantized(c, a, q, Epilogue[float32]{})
			for j := range n {
				w := float64(q.Value(39, j))
				for i := range m {
					x, got := float64(a.Data[i*k+39]), float64(c.Data[i*n+j])
					want := x * w
					// Scales are applied after the sum, with a rounding of their own.
					near := math.Abs(got-want) <= 0x1p-22*math.Abs(want)+0x1p-125*max(1, math.Abs(w))
					switch {
					case math.IsNaN(want) || math.IsInf(x, 0):
						near = math.IsNaN(got) || got == want
					case math.Abs(want) > math.MaxFloat32, kind.coding.Integer() && math.Abs(x) > 0x1p119:
						// Integers are multiplied before they are scaled.
						near = near || math.IsNaN(got) || math.Abs(got) > 0x1p126
					}
					require.True(t, near, "%v %g·%g: got %g", kind, x, w, got)
				}
			}
		}
	})
}
