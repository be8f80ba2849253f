package ops

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// LinearsConfig configures Linears.
type LinearsConfig struct {
	// NoGrad makes a node that no gradient flows through.
	NoGrad bool
}

// Linears are several affine maps of one x, the queries, keys and values of attention for example:
//
//	y_i = x·W_i + b_i
//
// x has shape (rows, in) or (batch, seq, in), w[i] has (in, out_i), and b[i] has (out_i); b is nil, or as long as w. The result is a
// vector: all rows of y_0, (rows, out_0) in row-major order, then those of y_1, and so on. It is differentiable with respect to x, w
// and b unless NoGrad is set.
//
// One node of all, for the gradients of x are then summed while they are computed, and their memory is one.
func Linears(x *G.Node, w, b []*G.Node, cfg LinearsConfig) (*G.Node, error) {
	const fn = "ops.Linears"
	args := []op.Arg{{Name: "x", Node: x}}
	for i, n := range w {
		args = append(args, op.Arg{Name: fmt.Sprintf("w[%d]", i), Node: n})
	}
	for i, n := range b {
		args = append(args, op.Arg{Name: fmt.Sprintf("b[%d]", i), Node: n})
	}
	o := &linears{cfg: cfg, biased: b != nil}
	if err := o.check(fn, args, len(w), len(b)); err != nil {
		return nil, err
	}
	attrs := struct {
		LinearsConfig
		Bias bool
		Outs []int
	}{cfg, o.biased, o.outs}
	in := nodesOf(args)
	o.Base = op.NewBase(fn, attrs, tensor.Shape{o.rows * o.width()}, x.Dtype(), in...)
	o.dtype = x.Dtype()
	return op.Apply(o, in...)
}

// linears has the inputs x, the matrices, then as many biases if biased.
type linears struct {
	op.Base
	cfg      LinearsConfig
	dtype    tensor.Dtype
	rows, in int
	outs     []int
	biased   bool
}

var _ op.Selective = (*linears)(nil)

// width is the number of outputs of a row.
func (o *linears) width() (n int) {
	for _, out := range o.outs {
		n += out
	}
	return n
}

// check reads the sizes from the arguments: x, the matrices, the biases.
func (o *linears) check(fn string, args []op.Arg, matrices, biases int) error {
	switch {
	case matrices == 0:
		return fmt.Errorf("%s: w: got no matrix, want at least one", fn)
	case o.biased && biases != matrices:
		return fmt.Errorf("%s: b: got %d biases for %d matrices, want none or as many", fn, biases, matrices)
	}
	if err := op.CheckArgs(fn, args...); err != nil {
		return err
	}
	if err := op.CheckFloat(fn, args...); err != nil {
		return err
	}
	if err := op.CheckRank(fn, args[0], 2, 3); err != nil {
		return err
	}
	for _, a := range args {
		if err := checkRows(fn, a); err != nil {
			return err
		}
	}
	o.rows, o.in = rowsOf(args[0].Node.Shape())
	for i, a := range args[1 : 1+matrices] {
		if err := op.CheckRank(fn, a, 2); err != nil {
			return err
		}
		o.outs = append(o.outs, a.Node.Shape()[1])
		if err := op.CheckShape(fn, a, o.in, o.outs[i]); err != nil {
			return err
		}
	}
	for i, a := range args[1+matrices:] {
		if err := op.CheckRank(fn, a, 1); err != nil {
			return err
		}
		if err := op.CheckShape(fn, a, o.outs[i]); err != nil {
			return err
		}
	}
	return nil
}

func (o *linears) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return linearsForward[float64](o, in)
	}
	return linearsForward[float32](o, in)
}

// DiffWRT: all inputs, nothing with NoGrad.
func (o *linears) DiffWRT(n int) []bool {
	if o.cfg.NoGrad {
		return make([]bool, n)
	}
	return allTrue(n)
}

// BackwardReads: x and the matrices.
func (o *linears) BackwardReads(i int) bool { return i >= 0 && i <= len(o.outs) }

// SymDiff builds the gradient for a TapeMachine.
func (o *linears) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *linears) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	if o.cfg.NoGrad {
		return nil
	}
	return op.DoDiff(o, in, out)
}

// Backward: with dY_i the gradient of y_i,
//
//	dX = Σ_i dY_i·W_iᵀ    dW_i = Xᵀ·dY_i    db_i = Σ_rows dY_i
func (o *linears) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return linearsBackward[float64](o, in, dOut, dIn)
	}
	return linearsBackward[float32](o, in, dOut, dIn)
}

// linearsFactors are x and the matrices.
func linearsFactors[T kernel.Float](o *linears, in []G.Value) (x kernel.Matrix[T], w []kernel.Matrix[T], err error) {
	data, err := op.Elements[T](o.Name(), "x", in[0], o.rows*o.in)
	if err != nil {
		return x, nil, err
	}
	x = kernel.RowMajor(data, o.rows, o.in)
	for i, out := range o.outs {
		if data, err = op.Elements[T](o.Name(), fmt.Sprintf("w[%d]", i), in[1+i], o.in*out); err != nil {
			return x, nil, err
		}
		w = append(w, kernel.RowMajor(data, o.in, out))
	}
	return x, w, nil
}

// parts are the results of the maps in a vector of all.
func parts[T kernel.Float](o *linears, y []T) []kernel.Matrix[T] {
	out := make([]kernel.Matrix[T], len(o.outs))
	for i, n := range o.outs {
		out[i] = kernel.RowMajor(y[:o.rows*n], o.rows, n)
		y = y[o.rows*n:]
	}
	return out
}

func linearsForward[T kernel.Float](o *linears, in []G.Value) (G.Value, error) {
	x, w, err := linearsFactors[T](o, in)
	if err != nil {
		return nil, err
	}
	ends := make([]kernel.Epilogue[T], len(w))
	for i := range ends {
		if o.biased {
			if ends[i].Bias, err = op.Elements[T](o.Name(), fmt.Sprintf("b[%d]", i), in[1+len(w)+i], o.outs[i]); err != nil {
				return nil, err
			}
		}
	}
	out, y := op.NewUnset[T](o.OutShape())
	for i, c := range parts(o, y) {
		kernel.Gemm(c, x, w[i], false, ends[i])
	}
	return out, nil
}

func linearsBackward[T kernel.Float](o *linears, in []G.Value, dOut G.Value, dIn []*tensor.Dense) error {
	x, w, err := linearsFactors[T](o, in)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, o.rows*o.width())
	if err != nil {
		return err
	}
	dx := kernel.RowMajor(op.Memory[T](dIn[0]), o.rows, o.in)
	for i, d := range parts(o, dy) {
		kernel.Gemm(dx, d, w[i].T(), i > 0, kernel.Epilogue[T]{})
		kernel.Gemm(kernel.RowMajor(op.Memory[T](dIn[1+i]), o.in, o.outs[i]), x.T(), d, false, kernel.Epilogue[T]{})
		if o.biased {
			sumRows(o.rows, op.Memory[T](dIn[1+len(w)+i]), d.Data)
		}
	}
	return nil
}

// sumRows is db = Σ_rows dy.
func sumRows[T kernel.Float](rows int, db, dy []T) {
	n := len(db)
	sumOverRows(chunkRows(rows, n), db, func(lo, hi int, sum []T) {
		for a := lo * n; a < hi*n; a += n {
			kernel.Add(sum, sum, dy[a:a+n])
		}
	})
}
