package ops

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// Add is the residual connection z = x + y, elementwise. x and y have one shape, of rank 1 or more, which is also the
// result's. Neither input is overwritten, whatever memory it shares with other nodes.
func Add(x, y *G.Node) (*G.Node, error) {
	const fn = "ops.Add"
	if err := checkElementwise(fn, op.Arg{Name: "x", Node: x}, op.Arg{Name: "y", Node: y}); err != nil {
		return nil, err
	}
	return op.Apply(&residual{op.NewBase(fn, nil, x.Shape(), x.Dtype(), x, y), x.Dtype()}, x, y)
}

// residual has the inputs x and y.
type residual struct {
	op.Base
	dtype tensor.Dtype
}

var _ op.Selective = (*residual)(nil)

func (o *residual) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return residualForward[float64](o, in)
	}
	return residualForward[float32](o, in)
}

// DiffWRT: both inputs.
func (o *residual) DiffWRT(n int) []bool { return allTrue(n) }

// BackwardReads: nothing.
func (o *residual) BackwardReads(i int) bool { return false }

// SymDiff builds the gradient for a TapeMachine.
func (o *residual) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *residual) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: dx = dy = dOut, in memory of their own.
func (o *residual) Backward(_ []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	for _, d := range dIn {
		var err error
		if o.dtype == tensor.Float64 {
			err = copyElements(o.Name(), "gradient", op.Memory[float64](d), dOut)
		} else {
			err = copyElements(o.Name(), "gradient", op.Memory[float32](d), dOut)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func residualForward[T kernel.Float](o *residual, in []G.Value) (G.Value, error) {
	n := o.OutShape().TotalSize()
	x, err := op.Elements[T](o.Name(), "x", in[0], n)
	if err != nil {
		return nil, err
	}
	y, err := op.Elements[T](o.Name(), "y", in[1], n)
	if err != nil {
		return nil, err
	}
	out, z := op.NewUnset[T](o.OutShape())
	overElements(n, func(lo, hi int) { kernel.Add(z[lo:hi], x[lo:hi], y[lo:hi]) })
	return out, nil
}
