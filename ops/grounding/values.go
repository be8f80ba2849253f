package grounding

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// maskOf reads a mask value: true where it is not 0.
func maskOf(fn, name string, v G.Value, n int) ([]bool, error) {
	out := make([]bool, n)
	switch v.Dtype() {
	case tensor.Float64:
		x, err := op.Elements[float64](fn, name, v, n)
		return fillMask(out, x), err
	case tensor.Float32:
		x, err := op.Elements[float32](fn, name, v, n)
		return fillMask(out, x), err
	}
	x, err := op.Ints(v)
	if err == nil && len(x) != n {
		err = fmt.Errorf("got %d elements, want %d", len(x), n)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", fn, name, err)
	}
	return fillMask(out, x), nil
}

func fillMask[N int | float32 | float64](out []bool, x []N) []bool {
	for i, v := range x {
		out[i] = v != 0
	}
	return out
}

// shortest is the norm below which a vector has no direction: its unit vector is 0, and so is its gradient.
const shortest = 1e-12

// inverseNorm is 1/‖x‖, 0 for a vector without direction.
func inverseNorm[T kernel.Float](x []T) T { return inverseRoot(float64(kernel.SumSquares(x)), x) }

// inverseRoot is inverseNorm where the sum of the squares, s, is known in the precision of T. The squares of very large and very small
// float32 numbers leave the range of the type, so these are summed in float64.
func inverseRoot[T kernel.Float](s float64, x []T) T {
	if s < 1e-30 || math.IsInf(s, 1) {
		s = 0
		for _, v := range x {
			s += float64(v) * float64(v)
		}
	}
	if n := math.Sqrt(s); n >= shortest || math.IsNaN(n) {
		return T(1 / n)
	}
	return 0
}

// inverseNormsOf writes the inverse norms of the rows of x and says whether all are such that products of the rows with unit
// vectors stay within the range of float32 by a wide margin.
func inverseNormsOf[T kernel.Float](inv, x []T, dim int) (safe bool) {
	safe = true
	for r := range inv {
		inv[r] = inverseNorm(x[r*dim : (r+1)*dim])
		safe = safe && isMeasured(inv[r])
	}
	return safe
}

// isMeasured reports whether 1/x is a length that leaves products room, or x is 0.
func isMeasured[T kernel.Float](x T) bool {
	const wide = 1e12
	return x == 0 || x > 1/wide && x < wide
}

// rowBlock is how many numbers one task of a pass over rows takes.
const rowBlock = 1 << 13

// overRows calls body for the blocks [lo, hi) of rows that make up [0, rows), cut by shape only.
func overRows(rows, dim int, body func(lo, hi int)) {
	per := max(1, rowBlock/max(dim, 1))
	parallel.Run((rows+per-1)/per, func(_ *parallel.Worker, i int) {
		body(i*per, min((i+1)*per, rows))
	})
}

// unitRows writes the unit vectors of the rows of x to dst, and the inverse norms.
func unitRows[T kernel.Float](dst, inv, x []T, dim int) {
	overRows(len(inv), dim, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			row := x[r*dim : (r+1)*dim]
			inv[r] = inverseNorm(row)
			kernel.Scale(dst[r*dim:(r+1)*dim], row, inv[r])
		}
	})
}

// unitGrad turns the gradient with respect to unit vectors into that with respect to the vectors, in place:
//
//	dx = (dx̂ − x̂·(x̂·dx̂)) / ‖x‖
func unitGrad[T kernel.Float](dx, unit, inv []T, dim int) {
	overRows(len(inv), dim, func(lo, hi int) {
		for r := lo; r < hi; r++ {
			d, u := dx[r*dim:(r+1)*dim], unit[r*dim:(r+1)*dim]
			kernel.Axpy(d, -kernel.Dot(u, d), u)
			kernel.Scale(d, d, inv[r])
		}
	})
}

// overBatch calls body for each item of a batch: side by side where there are enough of them to occupy every thread, else
// in order, so that the products inside have the threads. The results are the same.
func overBatch(batch int, body func(w *parallel.Worker, b int)) {
	if batch >= parallel.Threads() {
		parallel.Run(batch, body)
		return
	}
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		for b := range batch {
			body(w, b)
		}
	})
}
