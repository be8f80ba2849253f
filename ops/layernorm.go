package ops

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// LayerNormConfig configures LayerNorm.
type LayerNormConfig struct {
	// Eps is added to the variance so that a constant row stays finite. 0 means 1e-5.
	Eps float64
}

// LayerNorm gives each row of the last dimension mean 0 and variance 1, then scales and shifts it:
//
//	y[r,j] = gamma[j] · (x[r,j] − mean_r) / √(var_r + Eps) + beta[j]
//
// with mean_r and var_r the mean and the (biased) variance of row r. x has shape (…, dim), rank 1 or more; gamma and beta
// have shape (dim) or are nil for ones and zeros. The result has x's shape and is differentiable with respect to all three.
//
// Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, equation 4.
func LayerNorm(x, gamma, beta *G.Node, cfg LayerNormConfig) (*G.Node, error) {
	const fn = "ops.LayerNorm"
	args := []op.Arg{{Name: "x", Node: x}}
	if gamma != nil {
		args = append(args, op.Arg{Name: "gamma", Node: gamma})
	}
	if beta != nil {
		args = append(args, op.Arg{Name: "beta", Node: beta})
	}
	if err := checkNorm(fn, args, &cfg.Eps, 1e-5); err != nil {
		return nil, err
	}
	in := nodesOf(args)
	attrs := struct {
		LayerNormConfig
		Gamma, Beta bool // which of them a single vector is
	}{cfg, gamma != nil, beta != nil}
	o := &layerNorm{
		Base: op.NewBase(fn, attrs, x.Shape(), x.Dtype(), in...), dtype: x.Dtype(), eps: cfg.Eps,
		scaled: attrs.Gamma, shifted: attrs.Beta,
	}
	o.rows, o.dim = rowsOf(x.Shape())
	return op.Apply(o, in...)
}

// layerNorm has the inputs x, then gamma if scaled, then beta if shifted.
type layerNorm struct {
	op.Base
	dtype           tensor.Dtype
	rows, dim       int
	eps             float64
	scaled, shifted bool
}

var _ op.Selective = (*layerNorm)(nil)

func (o *layerNorm) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return layerNormForward[float64](o, in)
	}
	return layerNormForward[float32](o, in)
}

// DiffWRT: all inputs.
func (o *layerNorm) DiffWRT(n int) []bool { return allTrue(n) }

// BackwardReads: the inputs.
func (o *layerNorm) BackwardReads(i int) bool { return i >= 0 }

// SymDiff builds the gradient for a TapeMachine.
func (o *layerNorm) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *layerNorm) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: with r = 1/√(var + eps), h = (x − mean)·r and u = dOut·gamma, all along one row,
//
//	dx = r·(u − mean(u) − h·mean(u·h))    dgamma = Σ_rows dOut·h    dbeta = Σ_rows dOut
func (o *layerNorm) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return layerNormBackward[float64](o, in, dOut, dIn)
	}
	return layerNormBackward[float32](o, in, dOut, dIn)
}

func layerNormArgs[T kernel.Float](o *layerNorm, in []G.Value) (x, gamma, beta []T, err error) {
	if x, err = op.Elements[T](o.Name(), "x", in[0], o.rows*o.dim); err != nil {
		return nil, nil, nil, err
	}
	if o.scaled {
		if gamma, err = op.Elements[T](o.Name(), "gamma", in[1], o.dim); err != nil {
			return nil, nil, nil, err
		}
	}
	if o.shifted {
		beta, err = op.Elements[T](o.Name(), "beta", in[len(in)-1], o.dim)
	}
	return x, gamma, beta, err
}

func layerNormForward[T kernel.Float](o *layerNorm, in []G.Value) (G.Value, error) {
	x, gamma, beta, err := layerNormArgs[T](o, in)
	if err != nil {
		return nil, err
	}
	out, y := op.NewUnset[T](o.OutShape())
	chunkRows(o.rows, o.dim).run(func(_, lo, hi int) {
		for a := lo * o.dim; a < hi*o.dim; a += o.dim {
			b := a + o.dim
			kernel.LayerNormRow(y[a:b], x[a:b], gamma, beta, o.eps)
		}
	})
	return out, nil
}

func layerNormBackward[T kernel.Float](o *layerNorm, in []G.Value, dOut G.Value, dIn []*tensor.Dense) error {
	x, gamma, _, err := layerNormArgs[T](o, in)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, len(x))
	if err != nil {
		return err
	}
	dx := op.Memory[T](dIn[0])
	total := make([]T, o.dim*(len(in)-1)) // dgamma, then dbeta, as far as there are such inputs
	sumOverRows(chunkRows(o.rows, o.dim), total, func(lo, hi int, sum []T) {
		var dgamma, dbeta []T
		if o.scaled {
			dgamma, sum = sum[:o.dim], sum[o.dim:]
		}
		if o.shifted {
			dbeta = sum
		}
		for a := lo * o.dim; a < hi*o.dim; a += o.dim {
			b := a + o.dim
			// The forward row is cheaper to run again, in the cache, than its mean and rstd are to keep.
			mean, rstd := kernel.LayerNormRow(dx[a:b], x[a:b], nil, nil, o.eps)
			kernel.LayerNormGradRow(dx[a:b], dgamma, dbeta, x[a:b], dy[a:b], gamma, mean, rstd)
		}
	})
	for i, d := range dIn[1:] {
		copy(op.Memory[T](d), total[i*o.dim:])
	}
	return nil
}
