package ops

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// Reshape gives x another shape of the same size, in row-major order. One dimension may be −1: it takes what is left.
//
// Unlike Gorgonia's Reshape it copies. Gorgonia's result shares x's memory, and an elementwise node that runs in place on
// the one overwrites the other.
func Reshape(x *G.Node, shape ...int) (*G.Node, error) {
	const fn = "ops.Reshape"
	arg := op.Arg{Name: "x", Node: x}
	if err := checkElementwise(fn, arg); err != nil {
		return nil, err
	}
	to, err := fillShape(fn, shape, x.Shape())
	if err != nil {
		return nil, err
	}
	return op.Apply(&reshape{op.NewBase(fn, nil, to, x.Dtype(), x), x.Dtype()}, x)
}

// fillShape replaces the −1 in shape, if there is one, so that it has the size of from.
func fillShape(fn string, shape []int, from tensor.Shape) (tensor.Shape, error) {
	if len(shape) == 0 {
		return nil, fmt.Errorf("%s: got no shape, want at least one dimension", fn)
	}
	to := append(tensor.Shape{}, shape...)
	open, rest := -1, from.TotalSize()
	for i, n := range shape {
		switch {
		case n == -1 && open >= 0:
			return nil, fmt.Errorf("%s: got shape %v with more than one -1, want at most one", fn, to)
		case n == -1:
			open = i
		case n < 1:
			return nil, fmt.Errorf("%s: got shape %v, want positive dimensions and at most one -1", fn, to)
		case rest%n != 0:
			return nil, fmt.Errorf("%s: got shape %v, want one of the %d elements of %v", fn, to, from.TotalSize(), from)
		default:
			rest /= n
		}
	}
	if open >= 0 {
		to[open] = rest
	} else if rest != 1 {
		return nil, fmt.Errorf("%s: got shape %v, want one of the %d elements of %v", fn, to, from.TotalSize(), from)
	}
	return to, nil
}

type reshape struct {
	op.Base
	dtype tensor.Dtype
}

var _ op.Selective = (*reshape)(nil)

func (o *reshape) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return reshapeForward[float64](o, in[0])
	}
	return reshapeForward[float32](o, in[0])
}

// DiffWRT: the input.
func (o *reshape) DiffWRT(n int) []bool { return allTrue(n) }

// BackwardReads: nothing.
func (o *reshape) BackwardReads(i int) bool { return false }

// SymDiff builds the gradient for a TapeMachine.
func (o *reshape) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *reshape) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: dx is dOut in x's shape.
func (o *reshape) Backward(_ []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return copyElements(o.Name(), "gradient", op.Memory[float64](dIn[0]), dOut)
	}
	return copyElements(o.Name(), "gradient", op.Memory[float32](dIn[0]), dOut)
}

func reshapeForward[T kernel.Float](o *reshape, in G.Value) (G.Value, error) {
	out, y := op.NewUnset[T](o.OutShape())
	if err := copyElements(o.Name(), "x", y, in); err != nil {
		return nil, err
	}
	return out, nil
}

// copyElements copies the numbers of v to dst, in row-major order.
func copyElements[T kernel.Float](fn, name string, dst []T, v G.Value) error {
	x, err := op.Elements[T](fn, name, v, len(dst))
	if err != nil {
		return err
	}
	overElements(len(dst), func(lo, hi int) { copy(dst[lo:hi], x[lo:hi]) })
	return nil
}
