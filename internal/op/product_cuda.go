//go:build cuda

package op

import "stheno/cudamodules"

// CardMatrix is a matrix on the card, a value or scratch, with the strides of its rows and columns in numbers.
type CardMatrix struct {
	data     any
	row, col int
}

// Matrix is a matrix with these strides.
func Matrix(data any, row, col int) CardMatrix { return CardMatrix{data, row, col} }

// T is the transposed matrix.
func (m CardMatrix) T() CardMatrix { return CardMatrix{m.data, m.col, m.row} }

// Product is out = alpha·a·b for each of a batch of dense matrices, one after the other: out (m × n), a (m × k), b (k × n). The suffix
// is that of their numbers.
func (c *Card) Product(suffix string, batch, m, n, k int, alpha float64, out, a, b CardMatrix) error {
	return c.product(suffix, batch, m, n, k, alpha, 0, out, a, b)
}

// AddProduct is out += alpha·a·b, otherwise like Product.
func (c *Card) AddProduct(suffix string, batch, m, n, k int, alpha float64, out, a, b CardMatrix) error {
	return c.product(suffix, batch, m, n, k, alpha, 1, out, a, b)
}

func (c *Card) product(suffix string, batch, m, n, k int, alpha, beta float64, out, a, b CardMatrix) error {
	params := []any{out.data, a.data, b.data, m, n, k, a.row, a.col, b.row, b.col, out.row, out.col}
	if batch == 1 && m <= cudamodules.FewRows {
		g := cudamodules.RowGeometry(m, n)
		return c.Launch("matmul.gemm_row"+suffix, g.Grid, g.Block, 0, append(params, alpha, beta)...)
	}
	g := cudamodules.ProductGeometry(SizeOf(suffix), m, n, batch)
	return c.Launch("matmul.gemm"+suffix, g.Grid, g.Block, 0, append(params, m*k, k*n, m*n, alpha, beta)...)
}
