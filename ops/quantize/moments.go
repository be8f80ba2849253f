package quantize

import (
	"fmt"
	"slices"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// Moments are the second moments of the channels of a layer's inputs, summed over rows:
//
//	H = Σ_r x_rᵀ·x_r = XᵀX
//
// of which GPTQ needs to know by how much an error in one weight is made good by others. Only the upper triangle is stored, in
// float64: 4·n·(n+1) bytes for n channels.
type Moments struct {
	n, rows int
	sum     []float64 // row i from its diagonal on
}

// NewMoments returns the moments of no rows of n channels.
func NewMoments(n int) (*Moments, error) {
	if n < 1 || n > kernel.MaxQuantizedRows {
		return nil, fmt.Errorf("quantize.NewMoments: got %d channels, want 1 to %d", n, kernel.MaxQuantizedRows)
	}
	return &Moments{n: n, sum: make([]float64, n*(n+1)/2)}, nil
}

// Channels is the number of channels.
func (m *Moments) Channels() int { return m.n }

// Rows is the number of rows that were summed.
func (m *Moments) Rows() int { return m.rows }

// At is Σ_r x_r[i]·x_r[j].
func (m *Moments) At(i, j int) float64 {
	if i > j {
		i, j = j, i
	}
	return m.sum[m.start(i)+j-i]
}

// start is the place of (i, i).
func (m *Moments) start(i int) int { return i*m.n - i*(i-1)/2 }

// Add sums the rows of x, float32 or float64 of rank 1 or more, whose last dimension is the channels. Products of up to 1,024 rows
// are summed in x's precision, then in float64. A number that is not finite is an error, and nothing is added then.
func (m *Moments) Add(x *tensor.Dense) error {
	const fn = "quantize.Moments.Add"
	if m == nil || x == nil {
		return fmt.Errorf("%s: got nil, want moments and a tensor", fn)
	}
	if x.Dims() < 1 || x.Shape()[x.Dims()-1] != m.n || x.Shape().TotalSize() == 0 {
		return fmt.Errorf("%s: got shape %v, want %d channels in the last dimension, and every dimension at least 1", fn, x.Shape(), m.n)
	}
	var err error
	switch x.Dtype() {
	case tensor.Float32:
		err = addFinite[float32](m, x)
	case tensor.Float64:
		err = addFinite[float64](m, x)
	default:
		err = fmt.Errorf("got dtype %v, want float32 or float64", x.Dtype())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	return nil
}

func addFinite[T kernel.Float](m *Moments, v *tensor.Dense) error {
	x, err := op.Data[T](v)
	if err != nil {
		return err
	}
	for i, v := range x {
		if d := v - v; d != 0 {
			return fmt.Errorf("got %v at element %d, want finite numbers", v, i)
		}
	}
	addMoments(m, x)
	return nil
}

const (
	momentRows = 1024 // rows that are summed in the precision of x
	momentCols = 256  // rows of H that are made at a time
)

// addMoments adds rows of finite numbers.
func addMoments[T kernel.Float](m *Moments, x []T) {
	n := m.n
	m.rows += len(x) / n
	for len(x) > 0 {
		rows := min(len(x)/n, momentRows)
		for i0 := 0; i0 < n; i0 += momentCols {
			i1 := min(i0+momentCols, n)
			// A Run of one task lends the caller's scratch without taking the workers.
			parallel.Run(1, func(w *parallel.Worker, _ int) {
				c := kernel.RowMajor(parallel.Scratch[T](w, 0, (i1-i0)*(n-i0)), i1-i0, n-i0)
				a := kernel.Matrix[T]{Data: x[i0:], Rows: i1 - i0, Cols: rows, RowStride: 1, ColStride: n}
				b := kernel.Matrix[T]{Data: x[i0:], Rows: rows, Cols: n - i0, RowStride: n, ColStride: 1}
				kernel.Gemm(c, a, b, false, kernel.Epilogue[T]{})
				for i := i0; i < i1; i++ {
					sum := m.sum[m.start(i):][:n-i]
					for j, v := range c.Data[(i-i0)*(n-i0)+i-i0:][:n-i] {
						sum[j] += float64(v)
					}
				}
			})
		}
		x = x[rows*n:]
	}
}

// checkFinite reports sums that are beyond what their precision holds.
func (m *Moments) checkFinite() error {
	for i, v := range m.sum {
		if d := v - v; d != 0 {
			return fmt.Errorf("got %v at element %d of the upper triangle, want finite sums: inputs were too large to be squared in their precision", v, i)
		}
	}
	return nil
}

// Merge adds the sums of other.
func (m *Moments) Merge(other *Moments) error {
	if m == nil || other == nil || m.n != other.n {
		return fmt.Errorf("quantize.Moments.Merge: got moments of %d channels, want %d", other.channels(), m.channels())
	}
	for i, v := range other.sum {
		m.sum[i] += v
	}
	m.rows += other.rows
	return nil
}

// channels is n, 0 of nil.
func (m *Moments) channels() int {
	if m == nil {
		return 0
	}
	return m.n
}

func (m *Moments) clone() *Moments {
	c := *m
	c.sum = slices.Clone(m.sum)
	return &c
}
