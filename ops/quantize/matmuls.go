package quantize

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// MatMulsConfig configures MatMuls.
type MatMulsConfig struct {
	// Input is the precision of x in all products.
	Input Input

	// Biases, of shape (outputs of the matrix) each and the dtype of x, are added to every row of their product. Nil adds nothing.
	Biases []*G.Node
}

// MatMuls are the products of one x with several quantized matrices, the queries, keys and values of attention for example:
//
//	y_i = x·ŵ_i + bias_i
//
// x has shape (rows, In) or (batch, seq, In), with the In that all of w have. The result is a vector of x's dtype, as that of
// ops.Linears: all rows of y_0, (rows, Out_0) in row-major order, then those of y_1, and so on, with the bits that MatMul gives. There
// is no gradient.
//
// Where the matrices have one Config, x is rounded or cut into digits once for all, and threads start once.
func MatMuls(x *G.Node, w []*Weights, cfg MatMulsConfig) (*G.Node, error) {
	const fn = "quantize.MatMuls"
	switch {
	case len(w) == 0:
		return nil, fmt.Errorf("%s: w: got no weights, want at least one matrix", fn)
	case cfg.Biases != nil && len(cfg.Biases) != len(w):
		return nil, fmt.Errorf("%s: Biases: got %d for %d matrices, want none or as many", fn, len(cfg.Biases), len(w))
	}
	o := &matMuls{input: cfg.Input}
	in := G.Nodes{x}
	size := 0
	var attrs []any
	for i := range w {
		if w[i] == nil {
			return nil, fmt.Errorf("%s: w[%d]: got nil, want weights", fn, i)
		}
		if err := w[i].check(fn); err != nil {
			return nil, fmt.Errorf("%w (w[%d])", err, i)
		}
		args := append([]op.Arg{{Name: "x", Node: x}}, w[i].args()...)
		if cfg.Biases != nil {
			args = append(args, op.Arg{Name: fmt.Sprintf("Biases[%d]", i), Node: cfg.Biases[i]})
		}
		p := &matMul{input: cfg.Input, noGrad: true, biased: cfg.Biases != nil, weights: w[i].Config, in: w[i].In, out: w[i].Out}
		if err := p.check(fn, args); err != nil {
			return nil, fmt.Errorf("%w (w[%d])", err, i)
		}
		var own G.Nodes
		for _, a := range args {
			own = append(own, a.Node)
		}
		p.dtype, p.rows = x.Dtype(), x.Shape().TotalSize()/p.in
		p.Base = op.NewBase(fn, p.attrs(), tensor.Shape{p.rows * p.out}, p.dtype, own...)
		o.of, attrs, in, size = append(o.of, p), append(attrs, p.attrs()), append(in, own[1:]...), size+p.rows*p.out
	}
	o.Base = op.NewBase(fn, attrs, tensor.Shape{size}, x.Dtype(), in...)
	return op.Apply(o, in...)
}

// matMuls has the inputs x, then for each product the others that it has.
type matMuls struct {
	op.Base
	input Input
	of    []*matMul
}

var _ G.SDOp = (*matMuls)(nil)

// each gives f every product with its inputs, and where its result begins.
func (o *matMuls) each(in []G.Value, f func(i int, p *matMul, in []G.Value, at int) error) error {
	x, rest, at := in[0], in[1:], 0
	for i, p := range o.of {
		n := p.Arity() - 1
		if err := f(i, p, append([]G.Value{x}, rest[:n]...), at); err != nil {
			return err
		}
		rest, at = rest[n:], at+p.rows*p.out
	}
	return nil
}

// Do computes the products.
func (o *matMuls) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.of[0].dtype == tensor.Float64 {
		return forwardEach[float64](o, in)
	}
	return forwardEach[float32](o, in)
}

func forwardEach[T kernel.Float](o *matMuls, in []G.Value) (G.Value, error) {
	var x kernel.Matrix[T]
	products := make([]kernel.QuantizedProduct[T], len(o.of))
	if err := o.each(in, func(i int, p *matMul, in []G.Value, _ int) error {
		a, err := read[T](p, in)
		x = kernel.RowMajor(a.x, p.rows, p.in)
		products[i].B, products[i].Epilogue = a.w, kernel.Epilogue[T]{Bias: a.bias}
		return err
	}); err != nil {
		return nil, err
	}
	out, y := op.NewUnset[T](o.OutShape())
	for i, p := range o.of {
		n := p.rows * p.out
		products[i].C = kernel.RowMajor(y[:n], p.rows, p.out)
		y = y[n:]
	}
	if o.input == InputINT8 {
		kernel.GemmDynamicEach(x, products)
	} else {
		kernel.GemmQuantizedEach(x, products)
	}
	return out, nil
}

// DiffWRT: nothing.
func (o *matMuls) DiffWRT(n int) []bool { return make([]bool, n) }

// SymDiff reports that there is no gradient.
func (o *matMuls) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return nil, fmt.Errorf("%s: not differentiable", o.Name())
}
