package ops

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// RMSNormConfig configures RMSNorm.
type RMSNormConfig struct {
	// Eps is added to the mean square so that a row of zeros stays finite. 0 means 1e-6.
	Eps float64
}

// RMSNorm divides each row of the last dimension by its root mean square and scales it:
//
//	y[r,j] = gamma[j] · x[r,j] / √(Σ_i x[r,i]²/dim + Eps)
//
// x has shape (…, dim), rank 1 or more; gamma has shape (dim) or is nil for ones. The result has x's shape and is
// differentiable with respect to both.
//
// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.
func RMSNorm(x, gamma *G.Node, cfg RMSNormConfig) (*G.Node, error) {
	const fn = "ops.RMSNorm"
	args := []op.Arg{{Name: "x", Node: x}}
	if gamma != nil {
		args = append(args, op.Arg{Name: "gamma", Node: gamma})
	}
	if err := checkNorm(fn, args, &cfg.Eps, 1e-6); err != nil {
		return nil, err
	}
	in := nodesOf(args)
	o := &rmsNorm{Base: op.NewBase(fn, cfg, x.Shape(), x.Dtype(), in...), dtype: x.Dtype(), eps: cfg.Eps}
	o.rows, o.dim = rowsOf(x.Shape())
	return op.Apply(o, in...)
}

// checkNorm checks the arguments of a normalisation, x and the vectors that scale or shift its rows, and replaces an eps
// of 0 by preset.
func checkNorm(fn string, args []op.Arg, eps *float64, preset float64) error {
	if err := op.CheckArgs(fn, args...); err != nil {
		return err
	}
	if err := op.CheckFloat(fn, args...); err != nil {
		return err
	}
	if err := checkRows(fn, args[0]); err != nil {
		return err
	}
	_, dim := rowsOf(args[0].Node.Shape())
	for _, a := range args[1:] {
		if err := op.CheckRank(fn, a, 1); err != nil {
			return err
		}
		if err := op.CheckShape(fn, a, dim); err != nil {
			return err
		}
	}
	if *eps == 0 {
		*eps = preset
	}
	if !(*eps > 0) || math.IsInf(*eps, 1) {
		return fmt.Errorf("%s: Eps: got %v, want a positive number, or 0 for %v", fn, *eps, preset)
	}
	return nil
}

func nodesOf(args []op.Arg) G.Nodes {
	nodes := make(G.Nodes, len(args))
	for i, a := range args {
		nodes[i] = a.Node
	}
	return nodes
}

// rmsNorm has the inputs x and, if there is one, gamma.
type rmsNorm struct {
	op.Base
	dtype     tensor.Dtype
	rows, dim int
	eps       float64
}

var _ op.Selective = (*rmsNorm)(nil)

func (o *rmsNorm) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return rmsNormForward[float64](o, in)
	}
	return rmsNormForward[float32](o, in)
}

// DiffWRT: all inputs.
func (o *rmsNorm) DiffWRT(n int) []bool { return allTrue(n) }

// BackwardReads: the inputs.
func (o *rmsNorm) BackwardReads(i int) bool { return i >= 0 }

// SymDiff builds the gradient for a TapeMachine.
func (o *rmsNorm) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *rmsNorm) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: with r = 1/√(mean x² + eps), h = x·r and u = dOut·gamma, all along one row,
//
//	dx = r·(u − h·mean(u·h))    dgamma = Σ_rows dOut·h
func (o *rmsNorm) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return rmsNormBackward[float64](o, in, dOut, dIn)
	}
	return rmsNormBackward[float32](o, in, dOut, dIn)
}

func rmsNormArgs[T kernel.Float](o *rmsNorm, in []G.Value) (x, gamma []T, err error) {
	if x, err = op.Elements[T](o.Name(), "x", in[0], o.rows*o.dim); err != nil || len(in) == 1 {
		return x, nil, err
	}
	gamma, err = op.Elements[T](o.Name(), "gamma", in[1], o.dim)
	return x, gamma, err
}

func rmsNormForward[T kernel.Float](o *rmsNorm, in []G.Value) (G.Value, error) {
	x, gamma, err := rmsNormArgs[T](o, in)
	if err != nil {
		return nil, err
	}
	out, y := op.NewUnset[T](o.OutShape())
	chunkRows(o.rows, o.dim).run(func(_, lo, hi int) {
		for a := lo * o.dim; a < hi*o.dim; a += o.dim {
			b := a + o.dim
			kernel.RMSNormRow(y[a:b], x[a:b], gamma, o.eps)
		}
	})
	return out, nil
}

func rmsNormBackward[T kernel.Float](o *rmsNorm, in []G.Value, dOut G.Value, dIn []*tensor.Dense) error {
	x, gamma, err := rmsNormArgs[T](o, in)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, len(x))
	if err != nil {
		return err
	}
	dx := op.Memory[T](dIn[0])
	var dgamma []T
	if gamma != nil {
		dgamma = op.Memory[T](dIn[1])
	}
	sumOverRows(chunkRows(o.rows, o.dim), dgamma, func(lo, hi int, sum []T) {
		for a := lo * o.dim; a < hi*o.dim; a += o.dim {
			b := a + o.dim
			// The forward row is cheaper to run again, in the cache, than its rstd is to keep.
			rstd := kernel.RMSNormRow(dx[a:b], x[a:b], nil, o.eps)
			kernel.RMSNormGradRow(dx[a:b], sum, x[a:b], dy[a:b], gamma, rstd)
		}
	})
	return nil
}
