// Package cublas is the part of gorgonia.org/cu/blas that Gorgonia's engine calls, on the product kernel of stheno/cudamodules in the
// place of cuBLAS. As there, matrices are column-major and slices stand for memory of the card.
package cublas

import (
	"fmt"
	"strings"
	"sync"
	"unsafe"

	"gonum.org/v1/gonum/blas"
	"gorgonia.org/cu"

	"stheno/cudamodules"
)

// Standard does products on one card. The zero Standard must be initialised first.
type Standard struct {
	ctx *cu.BatchedContext

	mu  sync.Mutex
	mod *cudamodules.Module
	err error
}

// ConsOpt is an option of Init.
type ConsOpt func(*Standard)

// WithContext says which card.
func WithContext(c *cu.BatchedContext) ConsOpt { return func(s *Standard) { s.ctx = c } }

// Init makes s ready.
func (s *Standard) Init(opts ...ConsOpt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range opts {
		o(s)
	}
	return nil
}

// Close gives the kernels back.
func (s *Standard) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mod == nil {
		return nil
	}
	err := s.mod.Close()
	s.mod = nil
	return err
}

// Err is the first error since it was last asked.
func (s *Standard) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.err
	s.err = nil
	return err
}

// matrix is memory of the card with the strides of rows and columns.
type matrix struct {
	p        unsafe.Pointer
	row, col int
}

func (x matrix) t() matrix { return matrix{x.p, x.col, x.row} }

// columns is a column-major matrix, transposed or not.
func columns(p unsafe.Pointer, ld int, t blas.Transpose) matrix {
	if t == blas.NoTrans {
		return matrix{p, 1, ld}
	}
	return matrix{p, ld, 1}
}

// gemm is c = alpha·a·b + beta·c.
func (s *Standard) gemm(kernel string, m, n, k int, alpha float64, a, b matrix, beta float64, c matrix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.launch(kernel, m, n, k, alpha, a, b, beta, c); err != nil && s.err == nil {
		s.err = fmt.Errorf("cublas: %s of %d × %d × %d: %w", kernel, m, k, n, err)
	}
}

func (s *Standard) launch(kernel string, m, n, k int, alpha float64, a, b matrix, beta float64, c matrix) error {
	if m == 0 || n == 0 {
		return nil
	}
	if s.mod == nil {
		// Init runs on a goroutine of the engine's own, and may come after the first product.
		d := cu.Device(0)
		if s.ctx != nil {
			d = s.ctx.Device
		}
		ctx, err := cu.Of(d)
		if err != nil {
			return err
		}
		if s.mod, err = ctx.Load("matmul"); err != nil {
			return err
		}
	}
	size := 8
	if strings.HasSuffix(kernel, "_f32") {
		size = 4
	}
	g, batches := cudamodules.ProductGeometry(size, m, n, 1), []any{int64(0), int64(0), int64(0)}
	if n <= cudamodules.FewRows && m > n { // a product of the transposed, of few rows
		m, n, a, b, c = n, m, b.t(), a.t(), c.t()
	}
	if m <= cudamodules.FewRows {
		kernel = strings.Replace(kernel, "gemm", "gemm_row", 1)
		g, batches = cudamodules.RowGeometry(m, n), nil
	}
	f, err := s.mod.Function(kernel)
	if err != nil {
		return err
	}
	at := func(x matrix) cudamodules.Ptr { return cudamodules.Ptr(uintptr(x.p)) }
	params := []any{at(c), at(a), at(b), int64(m), int64(n), int64(k), int64(a.row), int64(a.col), int64(b.row), int64(b.col), int64(c.row), int64(c.col)}
	return f.Launch(g, append(append(params, batches...), alpha, beta)...)
}

func first[T any](x []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(x)) }

// Sgemm is C = alpha·op(A)·op(B) + beta·C.
func (s *Standard) Sgemm(tA, tB blas.Transpose, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	s.gemm("gemm_f32", m, n, k, float64(alpha), columns(first(a), lda, tA), columns(first(b), ldb, tB), float64(beta), matrix{first(c), 1, ldc})
}

// Dgemm is C = alpha·op(A)·op(B) + beta·C.
func (s *Standard) Dgemm(tA, tB blas.Transpose, m, n, k int, alpha float64, a []float64, lda int, b []float64, ldb int, beta float64, c []float64, ldc int) {
	s.gemm("gemm_f64", m, n, k, alpha, columns(first(a), lda, tA), columns(first(b), ldb, tB), beta, matrix{first(c), 1, ldc})
}

// gemv is y = alpha·op(A)·x + beta·y, A being m × n before op.
func (s *Standard) gemv(kernel string, tA blas.Transpose, m, n int, alpha float64, a unsafe.Pointer, lda int, x unsafe.Pointer, incX int, beta float64, y unsafe.Pointer, incY int) {
	if tA != blas.NoTrans {
		m, n = n, m
	}
	s.gemm(kernel, m, 1, n, alpha, columns(a, lda, tA), matrix{x, incX, 1}, beta, matrix{y, incY, 1})
}

// Sgemv is y = alpha·op(A)·x + beta·y, A being m × n before op.
func (s *Standard) Sgemv(tA blas.Transpose, m, n int, alpha float32, a []float32, lda int, x []float32, incX int, beta float32, y []float32, incY int) {
	s.gemv("gemm_f32", tA, m, n, float64(alpha), first(a), lda, first(x), incX, float64(beta), first(y), incY)
}

// Dgemv is y = alpha·op(A)·x + beta·y, A being m × n before op.
func (s *Standard) Dgemv(tA blas.Transpose, m, n int, alpha float64, a []float64, lda int, x []float64, incX int, beta float64, y []float64, incY int) {
	s.gemv("gemm_f64", tA, m, n, alpha, first(a), lda, first(x), incX, beta, first(y), incY)
}

// Sger is A = alpha·x·yᵀ. BLAS adds to A; but Gorgonia's engine gives memory that nobody has written, and means an outer product.
func (s *Standard) Sger(m, n int, alpha float32, x []float32, incX int, y []float32, incY int, a []float32, lda int) {
	s.gemm("gemm_f32", m, n, 1, float64(alpha), matrix{first(x), incX, 1}, matrix{first(y), 1, incY}, 0, matrix{first(a), 1, lda})
}

// Dger is Sger in float64.
func (s *Standard) Dger(m, n int, alpha float64, x []float64, incX int, y []float64, incY int, a []float64, lda int) {
	s.gemm("gemm_f64", m, n, 1, alpha, matrix{first(x), incX, 1}, matrix{first(y), 1, incY}, 0, matrix{first(a), 1, lda})
}
