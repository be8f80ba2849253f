package flashattn

import (
	"fmt"

	"stheno/internal/kernel"
)

// Heads is a strided view of numbers as a (batch, seq, heads, dim) array: element (b, i, h, c) is
// Data[b·BatchStride + i·SeqStride + h·HeadStride + c].
type Heads[T kernel.Float] struct {
	Data                               []T
	Batch, Seq, Heads, Dim             int
	BatchStride, SeqStride, HeadStride int
}

// Contiguous is the view of a row-major array.
func Contiguous[T kernel.Float](data []T, batch, seq, heads, dim int) Heads[T] {
	return Heads[T]{data, batch, seq, heads, dim, seq * heads * dim, heads * dim, dim}
}

// at is the offset of element (b, i, h, 0).
func (x *Heads[T]) at(b, i, h int) int { return b*x.BatchStride + i*x.SeqStride + h*x.HeadStride }

// row is the vector (b, i, h).
func (x *Heads[T]) row(b, i, h int) []T {
	o := x.at(b, i, h)
	return x.Data[o : o+x.Dim : o+x.Dim]
}

// check reports sizes that are not positive, strides that are negative, and data that is too short.
func (x *Heads[T]) check(name string) error {
	switch {
	case x.Batch < 1 || x.Seq < 1 || x.Heads < 1 || x.Dim < 1:
		return fmt.Errorf("%s: got shape (%d, %d, %d, %d), want positive sizes", name, x.Batch, x.Seq, x.Heads, x.Dim)
	case x.BatchStride < 0 || x.SeqStride < 0 || x.HeadStride < 0:
		return fmt.Errorf("%s: got strides (%d, %d, %d), want none negative", name, x.BatchStride, x.SeqStride, x.HeadStride)
	}
	if want := x.at(x.Batch-1, x.Seq-1, x.Heads-1) + x.Dim; len(x.Data) < want {
		return fmt.Errorf("%s: got %d elements, want at least %d", name, len(x.Data), want)
	}
	return nil
}
