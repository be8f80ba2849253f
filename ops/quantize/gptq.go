package quantize

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
)

// compensation is what GPTQ needs of the moments H (Frantar et al. 2022, §3.3): with H + λ·I = R·Rᵀ for an upper triangle R, the
// upper Cholesky factor of its inverse is U = R⁻¹, (H + λ·I)⁻¹ = Uᵀ·U. R is the lower factor of H turned around, so that nothing is
// inverted but a triangle.
type compensation struct {
	n     int
	order []int     // the input that is the k-th to be rounded
	lower []float64 // Uᵀ, row by row
	fixed bool      // scales are those of the weights as they were given
}

// gptqBlock is how many inputs are rounded before their errors go on to all that follow; scales of groups up to this size are
// taken of weights that have seen all corrections.
const gptqBlock = 128

func newCompensation(r Rounding) (*compensation, error) {
	m := r.Moments
	n := m.n
	c := &compensation{n: n, order: make([]int, n), fixed: r.ActOrder}
	var mean float64
	for i := range c.order {
		c.order[i] = i
		mean += m.At(i, i) / float64(n)
	}
	if r.ActOrder {
		slices.SortStableFunc(c.order, func(a, b int) int {
			switch x, y := m.At(a, a), m.At(b, b); {
			case x > y:
				return -1
			case x < y:
				return 1
			}
			return 0
		})
	}
	damping := r.Damping
	if damping == 0 {
		damping = 0.01
	}
	damping *= mean
	if mean == 0 { // no input was ever different from 0: nothing to make good for
		damping = 1
	}
	turned := mat.NewSymDense(n, nil)
	for i, p := range c.order {
		for j := i; j < n; j++ {
			v := m.At(p, c.order[j])
			if j == i {
				v += damping
			}
			turned.SetSym(n-1-i, n-1-j, v)
		}
	}
	var factor mat.Cholesky
	if !factor.Factorize(turned) {
		return nil, fmt.Errorf("Moments: got a matrix that is not positive definite with Damping %v, want a larger Damping", r.Damping)
	}
	var l mat.TriDense
	factor.LTo(&l)
	var inverse mat.TriDense
	if err := inverse.InverseTri(&l); err != nil {
		if _, ill := err.(mat.Condition); !ill {
			return nil, fmt.Errorf("Moments: %w", err)
		}
	}
	c.lower = make([]float64, n*n)
	for i := range n {
		for j := range i + 1 {
			v := inverse.At(n-1-j, n-1-i)
			if d := v - v; d != 0 {
				return nil, fmt.Errorf("Moments: got a matrix whose inverse is not finite with Damping %v, want a larger Damping", r.Damping)
			}
			if i == j && v == 0 {
				return nil, fmt.Errorf("Moments: got a matrix whose inverse is 0 with Damping %v, want a smaller Damping", r.Damping)
			}
			c.lower[i*n+j] = v
		}
	}
	return c, nil
}

// errorsOf are one number for each output of a panel.
type errorsOf [kernel.PanelCols]float64

// compensate stores the codes of outputs j0 to j1, whose weights are columns. For each input k, in order,
//
//	e = (w_k − ŵ_k) / U[k, k]        w_i −= U[k, i]·e   for every input i that follows
func (c *coder) compensate(columns []float64, j0, j1 int) {
	n, g, width := c.q.K, c.gptq, j1-j0
	size := c.groupRows()
	if c.ownGrids() && (g.fixed || size == n) {
		for j := j0; j < j1; j++ {
			column := columns[(j-j0)*n:][:n]
			for p := 0; p < n; p += size {
				c.setGrid(p/size, j, c.choose(column[p:min(p+size, n)], nil, size))
			}
		}
	}
	w := make([]errorsOf, n)
	e := make([]errorsOf, gptqBlock)
	for k, p := range g.order {
		for j := range width {
			w[k][j] = columns[j*n+p]
		}
		clear(w[k][width:])
	}
	var grids [kernel.PanelCols]grid
	group := make([]float64, size)
	for k0 := 0; k0 < n; k0 += gptqBlock {
		k1 := min(k0+gptqBlock, n)
		for k := k0; k < k1; k++ {
			p := g.order[k]
			if g.fixed || p%size == 0 {
				for j := range width {
					if c.ownGrids() && !g.fixed && size < n {
						rows := w[k:min(k+size, n)]
						for i := range rows {
							group[i] = rows[i][j]
						}
						c.setGrid(p/size, j0+j, c.choose(group[:len(rows)], nil, size))
					}
					grids[j] = c.gridAt(p/size, j0+j)
				}
			}
			row, diagonal := &e[k-k0], g.lower[k*n+k]
			clear(row[width:])
			for j := range width {
				x := w[k][j]
				code := grids[j].code(x)
				c.q.SetCode(p, j0+j, code)
				row[j] = (x - float64(grids[j].value(code))) / diagonal
			}
			for i := k + 1; i < k1; i++ {
				subtract(&w[i], g.lower[i*n+k], row)
			}
		}
		for i := k1; i < n; i++ {
			for k, u := range g.lower[i*n+k0 : i*n+k1] {
				subtract(&w[i], u, &e[k])
			}
		}
	}
}

// subtract is y −= a·x.
func subtract(y *errorsOf, a float64, x *errorsOf) {
	for j := range y {
		y[j] -= a * x[j]
	}
}

// OutputError is how far a layer's outputs are from those of w on the inputs that the moments were taken of:
//
//	√( Σ_r ‖x_r·(ŵ − w)‖² / Σ_r ‖x_r·w‖² )
//
// w is what p was made of. It is 0 where all outputs of w are 0.
func OutputError(w *tensor.Dense, p *Packed, m *Moments) (float64, error) {
	const fn = "quantize.OutputError"
	if err := checkMatrix(fn, w); err != nil {
		return 0, err
	}
	if m == nil {
		return 0, fmt.Errorf("%s: m: got nil, want moments", fn)
	}
	back, err := p.Dequantize()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", fn, err)
	}
	if !back.Shape().Eq(w.Shape()) {
		return 0, fmt.Errorf("%s: w: got shape %v, want %v as the codes have", fn, w.Shape(), back.Shape())
	}
	if m.n != p.In {
		return 0, fmt.Errorf("%s: m: got %d channels, want %d", fn, m.n, p.In)
	}
	if err := m.checkFinite(); err != nil {
		return 0, fmt.Errorf("%s: m: %w", fn, err)
	}
	exact, err := float64s(w)
	if err != nil {
		return 0, fmt.Errorf("%s: w: %w", fn, err)
	}
	rounded, err := float64s(back)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", fn, err)
	}
	for i := range rounded {
		rounded[i] -= exact[i]
	}
	h := make([]float64, m.n*m.n)
	for i := range m.n {
		for j := range m.n {
			h[i*m.n+j] = m.At(i, j)
		}
	}
	// Σ_j d_jᵀ·H·d_j over outputs j.
	form := func(d []float64) (sum float64) {
		x := kernel.RowMajor(d, p.In, p.Out)
		if p.Config.Transposed {
			x = kernel.RowMajor(d, p.Out, p.In).T()
		}
		hd := make([]float64, len(d))
		kernel.Gemm(kernel.RowMajor(hd, p.In, p.Out), kernel.RowMajor(h, m.n, m.n), x, false, kernel.Epilogue[float64]{})
		for i := range p.In {
			for j := range p.Out {
				sum += hd[i*p.Out+j] * x.Data[i*x.RowStride+j*x.ColStride]
			}
		}
		return max(sum, 0) // H is positive semidefinite but for rounding
	}
	all := form(exact)
	if all == 0 {
		return 0, nil
	}
	return math.Sqrt(form(rounded) / all), nil
}
