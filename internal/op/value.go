package op

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
)

// Data returns the numbers of v in row-major order. The memory is v's own where v is contiguous, a copy where it is a
// view; callers only read it.
func Data[T kernel.Float](v G.Value) ([]T, error) {
	switch x := v.(type) {
	case *tensor.Dense:
		switch d := x.Data().(type) {
		case []T:
			return RowMajor(x, d), nil
		case T:
			return []T{d}, nil
		}
		return nil, fmt.Errorf("op: got a tensor of %v, want %T", x.Dtype(), *new(T))
	case G.Scalar:
		if d, ok := x.Data().(T); ok {
			return []T{d}, nil
		}
		return nil, fmt.Errorf("op: got a scalar of %v, want %T", x.Dtype(), *new(T))
	case nil:
		return nil, fmt.Errorf("op: got no value, want a tensor of %T", *new(T))
	}
	return nil, fmt.Errorf("op: got a value of type %T, want *tensor.Dense", v)
}

// Elements is Data of an argument of fn, n numbers: gorgonia.Let can bind a value of another size than its node has.
func Elements[T kernel.Float](fn, name string, v G.Value, n int) ([]T, error) {
	x, err := Data[T](v)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", fn, name, err)
	}
	if len(x) != n {
		return nil, fmt.Errorf("%s: %s: got %d elements, want %d", fn, name, len(x), n)
	}
	return x, nil
}

// RowMajor returns the elements of x, whose memory is src: src itself where they lie in row-major order, a copy elsewhere. It goes
// by the strides alone: RequiresIterator says no for a slice of a transposed tensor.
func RowMajor[E any](x *tensor.Dense, src []E) []E {
	shape, strides := x.Shape(), x.Strides()
	n := x.Size()
	if n == 0 || shape.Dims() == 0 || isRowMajor(shape, strides) {
		return src[:n]
	}
	out := make([]E, n)
	idx := make([]int, shape.Dims())
	for i := range out {
		at := 0
		for d, j := range idx {
			at += j * strides[d]
		}
		out[i] = src[at]
		for d := len(idx) - 1; d >= 0; d-- {
			if idx[d]++; idx[d] < shape[d] {
				break
			}
			idx[d] = 0
		}
	}
	return out
}

// Contiguous reports whether the elements of d fill its memory in row-major order.
func Contiguous(d *tensor.Dense) bool { return isRowMajor(d.Shape(), d.Strides()) }

// isRowMajor reports whether strides are those of a contiguous row-major tensor; the stride of a dimension of 1 does not matter.
func isRowMajor(shape tensor.Shape, strides []int) bool {
	want := 1
	for d := len(shape) - 1; d >= 0; d-- {
		if shape[d] != 1 && strides[d] != want {
			return false
		}
		want *= shape[d]
	}
	return true
}

// Ints returns the integers of v (int, int32 or int64, tensor or scalar) as ints, always a copy.
func Ints(v G.Value) ([]int, error) {
	var data any
	switch x := v.(type) {
	case *tensor.Dense:
		switch d := x.Data().(type) {
		case []int:
			data = RowMajor(x, d)
		case []int32:
			data = RowMajor(x, d)
		case []int64:
			data = RowMajor(x, d)
		default:
			data = d
		}
	case G.Scalar:
		data = x.Data()
	case nil:
		return nil, fmt.Errorf("op: got no value, want integers")
	}
	switch d := data.(type) {
	case []int:
		return append([]int(nil), d...), nil
	case []int32:
		return widen(d), nil
	case []int64:
		return widen(d), nil
	case int:
		return []int{d}, nil
	case int32:
		return []int{int(d)}, nil
	case int64:
		return []int{int(d)}, nil
	}
	return nil, fmt.Errorf("op: got a value of type %T, want integers", v)
}

func widen[I int32 | int64](d []I) []int {
	out := make([]int, len(d))
	for i, x := range d {
		out[i] = int(x)
	}
	return out
}

// Int returns the single integer in v.
func Int(v G.Value) (int, error) {
	xs, err := Ints(v)
	if err != nil {
		return 0, err
	}
	if len(xs) != 1 {
		return 0, fmt.Errorf("op: got %d integers, want 1", len(xs))
	}
	return xs[0], nil
}

// New returns a zeroed tensor of rank 1 or more, and its memory.
func New[T kernel.Float](shape tensor.Shape) (*tensor.Dense, []T) {
	data, zeroed := makeUnset[T](shape.TotalSize())
	if !zeroed {
		clear(data)
	}
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data)), data
}

// NewUnset is New for who writes every element: the memory holds anything.
func NewUnset[T kernel.Float](shape tensor.Shape) (*tensor.Dense, []T) {
	data, _ := makeUnset[T](shape.TotalSize())
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data)), data
}

// NewLike returns a zeroed tensor with the shape and dtype of v, which has rank 1 or more.
func NewLike(v G.Value) *tensor.Dense { return NewOf(v.Dtype(), v.Shape()) }

// NewOf is New for a dtype that is known at run time only.
func NewOf(dt tensor.Dtype, shape tensor.Shape) *tensor.Dense { return newOf(dt, shape, false) }

// newFor is NewOf for what op of writes, zeroed unless it is a Filler.
func newFor(of any, dt tensor.Dtype, shape tensor.Shape) *tensor.Dense {
	_, fills := of.(Filler)
	return newOf(dt, shape, fills)
}

// newOf is New or NewUnset.
func newOf(dt tensor.Dtype, shape tensor.Shape, unset bool) *tensor.Dense {
	if dt == tensor.Float64 {
		return made[float64](shape, unset)
	}
	return made[float32](shape, unset)
}

func made[T kernel.Float](shape tensor.Shape, unset bool) (d *tensor.Dense) {
	if unset {
		d, _ = NewUnset[T](shape)
		return d
	}
	d, _ = New[T](shape)
	return d
}

// NewScalar returns x as the value of a scalar node.
func NewScalar[T kernel.Float](x T) G.Value {
	if x, ok := any(x).(float64); ok {
		return G.NewF64(x)
	}
	return G.NewF32(float32(x))
}

// Memory returns the numbers of a contiguous tensor, such as New and NewLike make, for reading and writing.
func Memory[T kernel.Float](d *tensor.Dense) []T {
	switch x := d.Data().(type) {
	case []T:
		return x
	case nil:
		return nil
	default:
		panic(fmt.Sprintf("op: got a tensor of %T, want []%T", x, *new(T)))
	}
}
