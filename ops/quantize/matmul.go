package quantize

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/ops"
)

// Input is the precision in which MatMul takes its input.
type Input int

// The precisions of inputs.
const (
	// InputFull multiplies x as it is: to the accuracy of a product in its own dtype. Where a few rows of float32 meet INT8 or INT4 as
	// integers (docs/numerics.md), a number is off by up to 2⁻³⁰, or 2⁻²⁶ with INT4, of the largest of 32 neighbours in its row.
	InputFull Input = iota
	// InputINT8 rounds x to 8 bits while the node runs: each row with a scale of its own, max|x|/127, or all with InputScale. For
	// INT8 and INT4.
	InputINT8
)

// String returns the precision's name.
func (i Input) String() string {
	switch i {
	case InputFull:
		return "full"
	case InputINT8:
		return "int8"
	}
	return fmt.Sprintf("Input(%d)", int(i))
}

// MatMulConfig configures MatMul.
type MatMulConfig struct {
	// Input is the precision of x in the product.
	Input Input

	// InputScale is the scale with which InputINT8 rounds all of x, to round(x/scale) clamped to ±127, as Stats.Scale finds it or
	// FakeQuantize learns it. 0 gives each row its own.
	InputScale float64

	// Bias, of shape (outputs) and the dtype of x, is added to every row. Nil adds nothing.
	Bias *G.Node

	// Activation is applied to the result while it is in the cache.
	Activation ops.Activation

	// NoGrad makes a node that no gradient flows through and that keeps nothing for a backward pass.
	NoGrad bool
}

// MatMul is an affine map of each row by quantized weights, then an activation:
//
//	y = act(x·ŵ + bias)
//
// x has shape (rows, w.In) or (batch, seq, w.In); the result has shape (rows, w.Out) or (batch, seq, w.Out) and x's dtype. It
// is differentiable with respect to x and the bias unless NoGrad is set, exactly so for the weights ŵ that the codes stand for;
// see the package for InputINT8.
//
// With an InputScale, dx is 0 where x is clamped, |x| ≥ 127·InputScale.
//
// With an activation other than ReLU the backward pass needs x·ŵ + bias, which the node keeps from the forward pass: as much
// memory again as the result takes.
func MatMul(x *G.Node, w *Weights, cfg MatMulConfig) (*G.Node, error) {
	const fn = "quantize.MatMul"
	if w == nil {
		return nil, fmt.Errorf("%s: w: got nil, want weights", fn)
	}
	if err := w.check(fn); err != nil {
		return nil, err
	}
	args := append([]op.Arg{{Name: "x", Node: x}}, w.args()...)
	if cfg.Bias != nil {
		args = append(args, op.Arg{Name: "Bias", Node: cfg.Bias})
	}
	o := &matMul{input: cfg.Input, inputScale: cfg.InputScale, activation: cfg.Activation, noGrad: cfg.NoGrad, biased: cfg.Bias != nil, weights: w.Config, in: w.In, out: w.Out}
	if err := o.check(fn, args); err != nil {
		return nil, err
	}
	shape := x.Shape().Clone()
	shape[shape.Dims()-1] = o.out
	var in G.Nodes
	for _, a := range args {
		in = append(in, a.Node)
	}
	o.keeps = cfg.Activation != ops.ActNone && cfg.Activation != ops.ActReLU && !cfg.NoGrad
	if o.keeps {
		kept, err := op.SideFor(o, x, shape, x.Dtype())
		if err != nil {
			return nil, err
		}
		in = append(in, kept)
	}
	o.dtype, o.rows = x.Dtype(), x.Shape().TotalSize()/o.in
	o.Base = op.NewBase(fn, o.attrs(), shape, x.Dtype(), in...)
	return op.Apply(o, in...)
}

// matMul has the inputs x and the codes, then scales, zero points, the bias and a side for the pre-activation, as far as it has
// them.
type matMul struct {
	op.Base
	input         Input
	inputScale    float64
	activation    ops.Activation
	noGrad        bool
	biased, keeps bool
	weights       Config
	dtype         tensor.Dtype
	rows, in, out int
}

var _ op.Backwarder = (*matMul)(nil)

// attrs is what the result depends on besides the inputs.
func (o *matMul) attrs() any {
	return struct {
		Weights      Config
		In, Out      int
		Transposed   bool // Config prints without
		Input        Input
		InputScale   float64
		Activation   ops.Activation
		Bias, NoGrad bool
	}{o.weights, o.in, o.out, o.weights.Transposed, o.input, o.inputScale, o.activation, o.biased, o.noGrad}
}

func (o *matMul) check(fn string, args []op.Arg) error {
	if err := op.CheckArgs(fn, args...); err != nil {
		return err
	}
	x := args[0]
	if err := op.CheckFloat(fn, x); err != nil {
		return err
	}
	if err := op.CheckRank(fn, x, 2, 3); err != nil {
		return err
	}
	shape := x.Node.Shape()
	for _, n := range shape {
		if n < 1 {
			return fmt.Errorf("%s: x: got shape %v, want every dimension at least 1", fn, shape)
		}
	}
	if got := shape[shape.Dims()-1]; got != o.in {
		return fmt.Errorf("%s: x: got shape %v with %d inputs, want %d as the weights have", fn, shape, got, o.in)
	}
	if o.biased {
		b := args[len(args)-1]
		if err := op.CheckFloat(fn, x, b); err != nil {
			return err
		}
		if err := op.CheckRank(fn, b, 1); err != nil {
			return err
		}
		if err := op.CheckShape(fn, b, o.out); err != nil {
			return err
		}
	}
	if o.activation < ops.ActNone || o.activation > ops.ActSiLU {
		return fmt.Errorf("%s: Activation: got %d, want %d (%v) to %d (%v)", fn, int(o.activation), int(ops.ActNone), ops.ActNone, int(ops.ActSiLU), ops.ActSiLU)
	}
	switch {
	case o.input != InputFull && o.input != InputINT8:
		return fmt.Errorf("%s: Input: got %d, want %d (%v) or %d (%v)", fn, int(o.input), int(InputFull), InputFull, int(InputINT8), InputINT8)
	case o.input == InputINT8 && !o.weights.Scheme.HasScales():
		return fmt.Errorf("%s: Input: got %v with weights in %v, want %v: integer products need integer weights", fn, o.input, o.weights.Scheme, InputFull)
	case o.inputScale != 0 && o.input != InputINT8:
		return fmt.Errorf("%s: InputScale: got %v with input %v, want %v", fn, o.inputScale, o.input, InputINT8)
	case o.inputScale != 0 && !(o.inputScale >= 0x1p-100 && o.inputScale <= 0x1p100):
		return fmt.Errorf("%s: InputScale: got %v, want 0, or 2^-100 to 2^100", fn, o.inputScale)
	}
	return nil
}

// Do computes the product.
func (o *matMul) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return forward[float64](o, in)
	}
	return forward[float32](o, in)
}

// arguments are an op's inputs as numbers.
type arguments[T kernel.Float] struct {
	x, bias, kept []T
	w             *kernel.Quantized
}

func read[T kernel.Float](o *matMul, in []G.Value) (a arguments[T], err error) {
	if a.x, err = op.Elements[T](o.Name(), "x", in[0], o.rows*o.in); err != nil {
		return a, err
	}
	codes, rest := in[1], in[2:]
	var scales, zeros G.Value
	if o.weights.Scheme.HasScales() {
		scales, rest = rest[0], rest[1:]
		if o.weights.Asymmetric {
			zeros, rest = rest[0], rest[1:]
		}
	}
	if a.w, err = view(o.weights, o.in, o.out, codes, scales, zeros); err != nil {
		return a, fmt.Errorf("%s: w: %w", o.Name(), err)
	}
	if o.biased {
		if a.bias, err = op.Elements[T](o.Name(), "bias", rest[0], o.out); err != nil {
			return a, err
		}
		rest = rest[1:]
	}
	if o.keeps {
		a.kept, err = op.Elements[T](o.Name(), "kept", rest[0], o.rows*o.out)
	}
	return a, err
}

func forward[T kernel.Float](o *matMul, in []G.Value) (G.Value, error) {
	a, err := read[T](o, in)
	if err != nil {
		return nil, err
	}
	out, y := op.NewUnset[T](o.OutShape())
	z := y
	if o.keeps {
		z = a.kept
	}
	end := kernel.Epilogue[T]{Bias: a.bias}
	if o.activation != ops.ActNone {
		end.After = func(i0, i1, j0, j1 int) {
			if j1-j0 == o.out { // whole rows are contiguous
				activate(o.activation, y[i0*o.out:i1*o.out], z[i0*o.out:i1*o.out])
				return
			}
			for i := i0 * o.out; i < i1*o.out; i += o.out {
				activate(o.activation, y[i+j0:i+j1], z[i+j0:i+j1])
			}
		}
	}
	c, x := kernel.RowMajor(z, o.rows, o.out), kernel.RowMajor(a.x, o.rows, o.in)
	switch {
	case o.inputScale > 0:
		kernel.GemmStatic(c, x, a.w, o.inputScale, end)
	case o.input == InputINT8:
		kernel.GemmDynamic(c, x, a.w, end)
	default:
		kernel.GemmQuantized(c, x, a.w, end)
	}
	return out, nil
}

// activate is dst[i] = a(z[i]); dst may be z.
func activate[T kernel.Float](a ops.Activation, dst, z []T) {
	switch a {
	case ops.ActReLU:
		kernel.Relu(dst, z)
	case ops.ActGELU:
		kernel.GeluErf(dst, z)
	case ops.ActGELUTanh:
		kernel.GeluTanh(dst, z)
	case ops.ActSiLU:
		kernel.Silu(dst, z)
	}
}
