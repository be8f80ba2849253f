package ops

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// LinearConfig configures Linear.
type LinearConfig struct {
	// Activation is applied to the result while it is in the cache.
	Activation Activation

	// Input is applied to x before the product. In place of the Activation of the node before, it leaves that without memory for its
	// backward pass: one array is kept from the forward pass where there would be two, and Input is computed again.
	Input Activation

	// TransposeWeight says that w is stored as (out, in), as an embedding table is that also serves as the output layer.
	TransposeWeight bool

	// NoGrad makes a node that no gradient flows through and that keeps nothing for a backward pass.
	NoGrad bool

	// NoInputGrad says that x is data: no gradient flows to it, and half of the backward pass's products are saved.
	NoInputGrad bool
}

// Linear is an affine map of each row, then an activation:
//
//	y = act(in(x)·W + b)
//
// with the Input in, the identity as a rule, and the Activation act. x has shape (rows, in) or (batch, seq, in); w has shape (in, out),
// or (out, in) with TransposeWeight; b has shape (out) or is nil. The result has shape (rows, out) or (batch, seq, out) and is
// differentiable with respect to x, w and b unless NoGrad is set, or only w and b with NoInputGrad.
//
// With an activation other than ReLU the backward pass needs x·W + b, which the node keeps from the forward pass: as much
// memory again as the result takes.
func Linear(x, w, b *G.Node, cfg LinearConfig) (*G.Node, error) {
	const fn = "ops.Linear"
	args := []op.Arg{{Name: "x", Node: x}, {Name: "w", Node: w}}
	if b != nil {
		args = append(args, op.Arg{Name: "b", Node: b})
	}
	o := &linear{cfg: cfg, biased: b != nil}
	if err := o.check(fn, args); err != nil {
		return nil, err
	}
	shape := x.Shape()
	shape[shape.Dims()-1] = o.out
	in := nodesOf(args)
	o.keeps = cfg.Activation != ActNone && cfg.Activation != ActReLU && !cfg.NoGrad
	if o.keeps {
		kept, err := op.SideFor(o, x, shape, x.Dtype())
		if err != nil {
			return nil, err
		}
		in = append(in, kept)
	}
	attrs := struct {
		LinearConfig
		Bias bool
	}{cfg, o.biased}
	o.Base = op.NewBase(fn, attrs, shape, x.Dtype(), in...)
	o.dtype = x.Dtype()
	return op.Apply(o, in...)
}

// linear has the inputs x and w, then b if biased, then a side for the pre-activation if it keeps that.
type linear struct {
	op.Base
	cfg           LinearConfig
	dtype         tensor.Dtype
	rows, in, out int
	biased, keeps bool
}

var _ op.Selective = (*linear)(nil)

// check reads the sizes from the arguments.
func (o *linear) check(fn string, args []op.Arg) error {
	if err := op.CheckArgs(fn, args...); err != nil {
		return err
	}
	if err := op.CheckFloat(fn, args...); err != nil {
		return err
	}
	x, w := args[0], args[1]
	if err := op.CheckRank(fn, x, 2, 3); err != nil {
		return err
	}
	if err := op.CheckRank(fn, w, 2); err != nil {
		return err
	}
	for _, a := range args {
		if err := checkRows(fn, a); err != nil {
			return err
		}
	}
	o.rows, o.in = rowsOf(x.Node.Shape())
	want := []int{o.in, w.Node.Shape()[1]}
	o.out = want[1]
	if o.cfg.TransposeWeight {
		o.out = w.Node.Shape()[0]
		want = []int{o.out, o.in}
	}
	if err := op.CheckShape(fn, w, want...); err != nil {
		return err
	}
	if o.biased {
		if err := op.CheckRank(fn, args[2], 1); err != nil {
			return err
		}
		if err := op.CheckShape(fn, args[2], o.out); err != nil {
			return err
		}
	}
	if err := checkActivation(fn, o.cfg.Input); err != nil {
		return fmt.Errorf("%w (Input)", err)
	}
	return checkActivation(fn, o.cfg.Activation)
}

func (o *linear) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return linearForward[float64](o, in)
	}
	return linearForward[float32](o, in)
}

// DiffWRT: x, w and b, nothing with NoGrad.
func (o *linear) DiffWRT(n int) []bool {
	wrt := make([]bool, n)
	for i := range wrt {
		wrt[i] = !o.cfg.NoGrad && !(o.keeps && i == n-1) && !(o.cfg.NoInputGrad && i == 0)
	}
	return wrt
}

// BackwardReads: x, w, and what the slope of the activation is a function of: what is kept, or for ReLU the result.
func (o *linear) BackwardReads(i int) bool {
	switch {
	case i == op.Output:
		return o.cfg.Activation != ActNone && !o.keeps
	case o.biased && i == 2:
		return false
	}
	return true
}

// SymDiff builds the gradient for a TapeMachine.
func (o *linear) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *linear) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	if o.cfg.NoGrad {
		return nil
	}
	return op.DoDiff(o, in, out)
}

// Backward: with Z = in(x)·W + b and dZ = dOut·act'(Z),
//
//	dX = dZ·Wᵀ ⊙ in'(x)    dW = in(x)ᵀ·dZ    db = Σ_rows dZ
func (o *linear) Backward(in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return linearBackward[float64](o, in, out, dOut, dIn)
	}
	return linearBackward[float32](o, in, out, dOut, dIn)
}

func linearFactors[T kernel.Float](o *linear, in []G.Value) (x, w []T, err error) {
	if x, err = op.Elements[T](o.Name(), "x", in[0], o.rows*o.in); err != nil {
		return nil, nil, err
	}
	w, err = op.Elements[T](o.Name(), "w", in[1], o.in*o.out)
	return x, w, err
}

// linearWeight is W as an in×out matrix, however it is stored.
func linearWeight[T kernel.Float](o *linear, w []T) kernel.Matrix[T] {
	if o.cfg.TransposeWeight {
		return kernel.RowMajor(w, o.out, o.in).T()
	}
	return kernel.RowMajor(w, o.in, o.out)
}

func linearForward[T kernel.Float](o *linear, in []G.Value) (G.Value, error) {
	x, w, err := linearFactors[T](o, in)
	if err != nil {
		return nil, err
	}
	var b []T
	if o.biased {
		if b, err = op.Elements[T](o.Name(), "b", in[2], o.out); err != nil {
			return nil, err
		}
	}
	out, y := op.NewUnset[T](o.OutShape())
	z := y
	if o.keeps {
		if z, err = op.Elements[T](o.Name(), "kept", in[len(in)-1], len(y)); err != nil {
			return nil, err
		}
	}
	end := kernel.Epilogue[T]{Bias: b}
	if o.cfg.Activation != ActNone {
		end.After = func(i0, i1, j0, j1 int) {
			if j1-j0 == o.out { // whole rows are contiguous
				activate(o.cfg.Activation, y[i0*o.out:i1*o.out], z[i0*o.out:i1*o.out])
				return
			}
			for i := i0 * o.out; i < i1*o.out; i += o.out {
				activate(o.cfg.Activation, y[i+j0:i+j1], z[i+j0:i+j1])
			}
		}
	}
	product := func(x []T) {
		kernel.Gemm(kernel.RowMajor(z, o.rows, o.out), kernel.RowMajor(x, o.rows, o.in), linearWeight(o, w), false, end)
	}
	linearInput(o, nil, x, product)
	return out, nil
}

func linearBackward[T kernel.Float](o *linear, in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	if o.cfg.NoGrad {
		return nil
	}
	x, w, err := linearFactors[T](o, in)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, o.rows*o.out)
	if err != nil {
		return err
	}
	var z []T // what the activation's derivative is a function of
	switch {
	case o.keeps:
		z, err = op.Elements[T](o.Name(), "kept", in[len(in)-1], len(dy))
	case o.cfg.Activation != ActNone:
		z, err = op.Elements[T](o.Name(), "result", out, len(dy))
	}
	if err != nil {
		return err
	}
	var db []T
	if o.biased {
		db = op.Memory[T](dIn[2])
	}
	var dx []T
	if dIn[0] != nil {
		dx = op.Memory[T](dIn[0])
	}
	products := func(dz []T) {
		linearDelta(o, dz, db, z, dy)
		dZ := kernel.RowMajor(dz, o.rows, o.out)
		linearInput(o, dx, x, func(a []T) {
			A := kernel.RowMajor(a, o.rows, o.in)
			if o.cfg.TransposeWeight {
				kernel.Gemm(kernel.RowMajor(op.Memory[T](dIn[1]), o.out, o.in), dZ.T(), A, false, kernel.Epilogue[T]{})
			} else {
				kernel.Gemm(kernel.RowMajor(op.Memory[T](dIn[1]), o.in, o.out), A.T(), dZ, false, kernel.Epilogue[T]{})
			}
		})
		if dx == nil {
			return
		}
		end := kernel.Epilogue[T]{}
		if o.cfg.Input != ActNone {
			end.After = func(i0, i1, j0, j1 int) {
				for i := i0 * o.in; i < i1*o.in; i += o.in {
					d := dx[i+j0 : i+j1]
					activateGrad(o.cfg.Input, d, x[i+j0:i+j1], d)
				}
			}
		}
		kernel.Gemm(kernel.RowMajor(dx, o.rows, o.in), dZ, linearWeight(o, w).T(), false, end)
	}
	if z == nil {
		products(dy)
	} else {
		op.Lend(len(dy), products)
	}
	return nil
}

// linearInput gives f what the product takes, in(x): in dx where there is that, which is computed afterwards.
func linearInput[T kernel.Float](o *linear, dx, x []T, f func(a []T)) {
	fill := func(a []T) {
		overElements(len(x), func(lo, hi int) { activate(o.cfg.Input, a[lo:hi], x[lo:hi]) })
		f(a)
	}
	switch {
	case o.cfg.Input == ActNone:
		f(x)
	case dx != nil:
		fill(dx)
	default:
		op.Lend(len(x), fill)
	}
}

// linearDelta computes dz = dy·act'(z), unless z is nil and dz is dy, and db, unless that is nil, in one pass.
func linearDelta[T kernel.Float](o *linear, dz, db, z, dy []T) {
	if z == nil && db == nil {
		return
	}
	sumOverRows(chunkRows(o.rows, o.out), db, func(lo, hi int, sum []T) {
		for a := lo * o.out; a < hi*o.out; a += o.out {
			b := a + o.out
			if z != nil {
				activateGrad(o.cfg.Activation, dz[a:b], z[a:b], dy[a:b])
			}
			if db != nil {
				kernel.Add(sum, sum, dz[a:b])
			}
		}
	})
}
