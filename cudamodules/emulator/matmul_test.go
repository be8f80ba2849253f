//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

// Products of matrices in every layout, against plain sums in float64.
func TestMatmul(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for _, size := range [][3]int{{1, 1, 1}, {1, 97, 300}, {7, 33, 150}, {70, 129, 33}, {130, 3, 17}} {
		for layout := range 4 {
			testMatmul[float32](t, s, size, layout)
			testMatmul[float64](t, s, size, layout)
		}
	}
}

func testMatmul[T number](t *testing.T, s *emulator.Session, size [3]int, layout int) {
	m, n, k := size[0], size[1], size[2]
	const batch = 2
	strides := func(rows, cols int, turned bool) (row, col int) {
		if turned {
			return 1, rows
		}
		return cols, 1
	}
	ar, ac := strides(m, k, layout&1 != 0)
	br, bc := strides(k, n, layout&2 != 0)
	cr, cc := strides(m, n, layout == 3)
	a, b, c := random[T](1, batch*m*k), random[T](2, k*n), random[T](3, batch*m*n)
	alpha, beta := 1.0, 0.0
	if layout == 1 {
		alpha, beta = -0.5, 2
	}
	want := wide(c)
	for z := range batch {
		for i := range m {
			for j := range n {
				var sum float64
				for p := range k {
					sum += float64(a[z*m*k+i*ar+p*ac]) * float64(b[p*br+j*bc]) // one b for the whole batch
				}
				at := z*m*n + i*cr + j*cc
				want[at] = alpha*sum + beta*want[at]
			}
		}
	}
	var zero T
	g := cudamodules.ProductGeometry(int(unsafe.Sizeof(zero)), m, n, batch)
	if beta == 0 {
		for i := range c {
			c[i] /= 0 // not read
		}
	}
	start := append([]T(nil), c...)
	every(t, s, func() any {
		got := append([]T(nil), start...)
		kernel := "gemm" + suffix[T]()
		require.NoError(t, s.Run("matmul", kernel, g, emulator.InOut{got}, emulator.In{a}, emulator.In{b}, int64(m), int64(n), int64(k),
			int64(ar), int64(ac), int64(br), int64(bc), int64(cr), int64(cc), int64(m*k), int64(0), int64(m*n), alpha, beta))
		// k roundings, relative to sums of about √k.
		near(t, got, want, float64(2*k+4)*epsilon[T](), 2, fmt.Sprintf("%s %v layout %d", kernel, size, layout))
		return got
	})
	if m > 9 {
		return
	}
	every(t, s, func() any { // the first of the batch
		got := append([]T(nil), start[:m*n]...)
		kernel := "gemm_row" + suffix[T]()
		require.NoError(t, s.Run("matmul", kernel, cudamodules.RowGeometry(m, n), emulator.InOut{got}, emulator.In{a}, emulator.In{b},
			int64(m), int64(n), int64(k), int64(ar), int64(ac), int64(br), int64(bc), int64(cr), int64(cc), alpha, beta))
		near(t, got, want[:m*n], float64(2*k+4)*epsilon[T](), 2, fmt.Sprintf("%s %v layout %d", kernel, size, layout))
		return got
	})
}
