package ops

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// SwiGLU is the gate of a Llama feed-forward layer, elementwise:
//
//	y = SiLU(gate)·up = gate·σ(gate)·up
//
// gate and up have one shape, of rank 1 or more, which is also the result's.
//
// Source: Shazeer, "GLU Variants Improve Transformer", 2020, equation 5, with gate = xW and up = xV.
func SwiGLU(gate, up *G.Node) (*G.Node, error) {
	const fn = "ops.SwiGLU"
	if err := checkElementwise(fn, op.Arg{Name: "gate", Node: gate}, op.Arg{Name: "up", Node: up}); err != nil {
		return nil, err
	}
	return op.Apply(&swiGLU{op.NewBase(fn, nil, gate.Shape(), gate.Dtype(), gate, up), gate.Dtype()}, gate, up)
}

// swiGLU has the inputs gate and up.
type swiGLU struct {
	op.Base
	dtype tensor.Dtype
}

var _ op.Selective = (*swiGLU)(nil)

func (o *swiGLU) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return swiGLUForward[float64](o, in)
	}
	return swiGLUForward[float32](o, in)
}

// DiffWRT: both inputs.
func (o *swiGLU) DiffWRT(n int) []bool { return allTrue(n) }

// BackwardReads: both inputs.
func (o *swiGLU) BackwardReads(i int) bool { return i >= 0 }

// SymDiff builds the gradient for a TapeMachine.
func (o *swiGLU) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *swiGLU) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: dgate = dOut·up·SiLU'(gate), dup = dOut·SiLU(gate), in one pass.
func (o *swiGLU) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return swiGLUBackward[float64](o, in, dOut, dIn)
	}
	return swiGLUBackward[float32](o, in, dOut, dIn)
}

func swiGLUArgs[T kernel.Float](o *swiGLU, in []G.Value) (gate, up []T, err error) {
	n := o.OutShape().TotalSize()
	if gate, err = op.Elements[T](o.Name(), "gate", in[0], n); err != nil {
		return nil, nil, err
	}
	up, err = op.Elements[T](o.Name(), "up", in[1], n)
	return gate, up, err
}

func swiGLUForward[T kernel.Float](o *swiGLU, in []G.Value) (G.Value, error) {
	gate, up, err := swiGLUArgs[T](o, in)
	if err != nil {
		return nil, err
	}
	out, y := op.NewUnset[T](o.OutShape())
	overElements(len(y), func(lo, hi int) { kernel.SwiGLU(y[lo:hi], gate[lo:hi], up[lo:hi]) })
	return out, nil
}

func swiGLUBackward[T kernel.Float](o *swiGLU, in []G.Value, dOut G.Value, dIn []*tensor.Dense) error {
	gate, up, err := swiGLUArgs[T](o, in)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, len(gate))
	if err != nil {
		return err
	}
	dgate, dup := op.Memory[T](dIn[0]), op.Memory[T](dIn[1])
	overElements(len(dy), func(lo, hi int) {
		kernel.SwiGLUGrad(dgate[lo:hi], dup[lo:hi], gate[lo:hi], up[lo:hi], dy[lo:hi])
	})
	return nil
}
