package ops

import (
	"fmt"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// rowsOf reads shape as rows of its last dimension.
func rowsOf(shape tensor.Shape) (rows, dim int) {
	dim = shape[shape.Dims()-1]
	return shape.TotalSize() / dim, dim
}

// checkRows reports a node without a last dimension to work along, or with a dimension of 0.
func checkRows(fn string, a op.Arg) error {
	shape := a.Node.Shape()
	if shape.Dims() == 0 {
		return fmt.Errorf("%s: %s: got a scalar, want rank 1 or more", fn, a.Name)
	}
	for _, n := range shape {
		if n < 1 {
			return fmt.Errorf("%s: %s: got shape %v, want every dimension at least 1", fn, a.Name, shape)
		}
	}
	return nil
}

// rowChunks cuts rows into contiguous chunks, one task each. The cut depends on the shape only, never on the thread count:
// a sum over rows that is taken chunk by chunk, and then over the chunks in order, has the same bits on any number of
// threads.
type rowChunks struct{ rows, per, n int }

const (
	maxChunks   = 32   // bounds the memory for one partial sum per chunk
	minChunkLen = 4096 // numbers in a chunk below which a task costs more than it brings
)

func chunkRows(rows, dim int) rowChunks {
	per := max((rows+maxChunks-1)/maxChunks, (minChunkLen+dim-1)/dim)
	return rowChunks{rows, per, (rows + per - 1) / per}
}

// run calls body(chunk, lo, hi) for each chunk of rows [lo, hi).
func (c rowChunks) run(body func(chunk, lo, hi int)) {
	parallel.Run(c.n, func(_ *parallel.Worker, i int) {
		body(i, i*c.per, min((i+1)*c.per, c.rows))
	})
}

// sumOverRows sums what body adds per row: body gets a chunk of rows and a zeroed sum of that chunk's own, of len(total)
// numbers, to add to. total is overwritten. With no total wanted, sum is empty.
func sumOverRows[T kernel.Float](c rowChunks, total []T, body func(lo, hi int, sum []T)) {
	n := len(total)
	if c.n == 1 || n == 0 {
		clear(total)
		c.run(func(_, lo, hi int) { body(lo, hi, total) })
		return
	}
	// A Run of one task lends the caller's scratch without taking the workers, which the Run inside it then has.
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		sums := parallel.Scratch[T](w, 0, c.n*n)
		c.run(func(i, lo, hi int) {
			sum := sums[i*n : (i+1)*n]
			clear(sum)
			body(lo, hi, sum)
		})
		copy(total, sums[:n])
		for i := 1; i < c.n; i++ {
			kernel.Add(total, total, sums[i*n:(i+1)*n])
		}
	})
}

// elementBlock is how many numbers a task of an elementwise op takes: 5–20 µs of work.
const elementBlock = 1 << 14

// overElements calls body for the blocks [lo, hi) that make up [0, n).
func overElements(n int, body func(lo, hi int)) {
	parallel.Run((n+elementBlock-1)/elementBlock, func(_ *parallel.Worker, i int) {
		body(i*elementBlock, min((i+1)*elementBlock, n))
	})
}

func allTrue(n int) []bool {
	t := make([]bool, n)
	for i := range t {
		t[i] = true
	}
	return t
}
