package ops

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// Activation is an elementwise nonlinearity that Linear applies to its result.
type Activation int

// The activations. Φ is the distribution function of N(0, 1), σ(z) = 1/(1 + e⁻ᶻ).
const (
	ActNone     Activation = iota // z
	ActReLU                       // max(z, 0)
	ActGELU                       // z·Φ(z)
	ActGELUTanh                   // z/2·(1 + tanh(√(2/π)·(z + 0.044715·z³)))
	ActSiLU                       // z·σ(z)
)

// String returns the activation's name.
func (a Activation) String() string {
	switch a {
	case ActNone:
		return "none"
	case ActReLU:
		return "relu"
	case ActGELU:
		return "gelu"
	case ActGELUTanh:
		return "gelu-tanh"
	case ActSiLU:
		return "silu"
	}
	return fmt.Sprintf("Activation(%d)", int(a))
}

func checkActivation(fn string, a Activation) error {
	if a < ActNone || a > ActSiLU {
		return fmt.Errorf("%s: Activation: got %d, want %d (%v) to %d (%v)", fn, int(a), int(ActNone), ActNone, int(ActSiLU), ActSiLU)
	}
	return nil
}

// activate is dst[i] = a(z[i]); dst may be z.
func activate[T kernel.Float](a Activation, dst, z []T) {
	switch a {
	case ActReLU:
		kernel.Relu(dst, z)
	case ActGELU:
		kernel.GeluErf(dst, z)
	case ActGELUTanh:
		kernel.GeluTanh(dst, z)
	case ActSiLU:
		kernel.Silu(dst, z)
	default:
		copy(dst, z)
	}
}

// activateGrad is dz[i] = dy[i]·a'(z[i]). For ActReLU, z may also be the activation's result.
func activateGrad[T kernel.Float](a Activation, dz, z, dy []T) {
	switch a {
	case ActReLU:
		kernel.ReluGrad(dz, z, dy)
	case ActGELU:
		kernel.GeluErfGrad(dz, z, dy)
	case ActGELUTanh:
		kernel.GeluTanhGrad(dz, z, dy)
	case ActSiLU:
		kernel.SiluGrad(dz, z, dy)
	default:
		copy(dz, dy)
	}
}

// ReLU is y = max(x, 0) elementwise, with the gradient 0 at 0. x has rank 1 or more, the result has x's shape. A NaN stays
// a NaN.
func ReLU(x *G.Node) (*G.Node, error) { return newActivation("ops.ReLU", x, ActReLU) }

func newActivation(fn string, x *G.Node, a Activation) (*G.Node, error) {
	arg := op.Arg{Name: "x", Node: x}
	if err := checkElementwise(fn, arg); err != nil {
		return nil, err
	}
	return op.Apply(&activation{op.NewBase(fn, a, x.Shape(), x.Dtype(), x), x.Dtype(), a}, x)
}

// checkElementwise checks the arguments of an op that works element by element on inputs of one shape.
func checkElementwise(fn string, args ...op.Arg) error {
	if err := op.CheckArgs(fn, args...); err != nil {
		return err
	}
	if err := op.CheckFloat(fn, args...); err != nil {
		return err
	}
	if err := checkRows(fn, args[0]); err != nil {
		return err
	}
	shape := args[0].Node.Shape()
	for _, a := range args[1:] {
		if err := op.CheckRank(fn, a, shape.Dims()); err != nil {
			return err
		}
		if err := op.CheckShape(fn, a, shape...); err != nil {
			return err
		}
	}
	return nil
}

// activation is an Activation as a node of its own, with the input x.
type activation struct {
	op.Base
	dtype tensor.Dtype
	act   Activation
}

var _ op.Selective = (*activation)(nil)

func (o *activation) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return activationForward[float64](o, in[0])
	}
	return activationForward[float32](o, in[0])
}

// DiffWRT: the input.
func (o *activation) DiffWRT(n int) []bool { return allTrue(n) }

// BackwardReads: x.
func (o *activation) BackwardReads(i int) bool { return i == 0 }

// SymDiff builds the gradient for a TapeMachine.
func (o *activation) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *activation) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: dx = dOut·act'(x).
func (o *activation) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return activationBackward[float64](o, in[0], dOut, dIn[0])
	}
	return activationBackward[float32](o, in[0], dOut, dIn[0])
}

func activationForward[T kernel.Float](o *activation, in G.Value) (G.Value, error) {
	x, err := op.Elements[T](o.Name(), "x", in, o.OutShape().TotalSize())
	if err != nil {
		return nil, err
	}
	out, y := op.NewUnset[T](o.OutShape())
	overElements(len(x), func(lo, hi int) { activate(o.act, y[lo:hi], x[lo:hi]) })
	return out, nil
}

func activationBackward[T kernel.Float](o *activation, in, dOut G.Value, dIn *tensor.Dense) error {
	x, err := op.Elements[T](o.Name(), "x", in, o.OutShape().TotalSize())
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, len(x))
	if err != nil {
		return err
	}
	dx := op.Memory[T](dIn)
	overElements(len(x), func(lo, hi int) { activateGrad(o.act, dx[lo:hi], x[lo:hi], dy[lo:hi]) })
	return nil
}
