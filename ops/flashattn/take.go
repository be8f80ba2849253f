package flashattn

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// takeOp copies a run of elements of a vector into a tensor. AttendLSE makes its two nodes of one result with it, so that
// the gradients of both reach a single backward pass.
type takeOp struct {
	op.Base
	from int
}

var _ op.Selective = (*takeOp)(nil)

func take(x *G.Node, from int, shape tensor.Shape) (*G.Node, error) {
	o := &takeOp{op.NewBase("flashattn.take", struct{ From int }{from}, shape, x.Dtype(), x), from}
	return op.Apply(o, x)
}

func (o *takeOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if in[0].Dtype() == tensor.Float64 {
		return doTake[float64](o, in[0])
	}
	return doTake[float32](o, in[0])
}

func doTake[T kernel.Float](o *takeOp, x G.Value) (G.Value, error) {
	src, err := op.Data[T](x)
	if err != nil {
		return nil, err
	}
	out, dst := op.New[T](o.OutShape())
	copy(dst, src[o.from:])
	return out, nil
}

func (o *takeOp) DiffWRT(int) []bool { return []bool{true} }

// BackwardReads: nothing.
func (o *takeOp) BackwardReads(i int) bool { return false }

func (o *takeOp) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

func (o *takeOp) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

func (o *takeOp) Backward(_ []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if dOut.Dtype() == tensor.Float64 {
		return backTake[float64](o, dOut, dIn[0])
	}
	return backTake[float32](o, dOut, dIn[0])
}

func backTake[T kernel.Float](o *takeOp, dOut G.Value, dIn *tensor.Dense) error {
	src, err := op.Data[T](dOut)
	if err != nil {
		return err
	}
	copy(op.Memory[T](dIn)[o.from:], src)
	return nil
}
