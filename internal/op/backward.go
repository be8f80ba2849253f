package op

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
)

// Backwarder is an op with a gradient. Implement Backward on values, then let SymDiff and DoDiff of this package serve
// Gorgonia's TapeMachine and LispMachine.
type Backwarder interface {
	G.SDOp

	// Backward computes the vector–Jacobian product: given the inputs, the output and the gradient dOut of a scalar
	// with respect to the output, it writes the gradient with respect to input i into dIn[i], which is zeroed, unless the op
	// is a Filler, and has the shape and dtype of input i. Inputs whose gradient nobody wants have dIn[i] == nil.
	Backward(in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error
}

// Selective is a Backwarder whose gradient does not read all of its inputs, or not its output: a machine need not keep those
// until then. In Backward they are nil under a TapeMachine.
type Selective interface {
	Backwarder

	// BackwardReads reports whether Backward reads input i, or the output, where i is Output.
	BackwardReads(i int) bool
}

// Filler is an op that writes every number of its sides and, in Backward, of the gradients: they need not be zeroed before.
type Filler interface {
	Backwarder

	// Fills does nothing.
	Fills()
}

// Output stands for an op's result among its inputs.
const Output = -1

func backwardReads(o Backwarder, i int) bool {
	s, ok := o.(Selective)
	return !ok || s.BackwardReads(i)
}

// SymDiff builds the nodes of o's gradients, one per input, nil where o.DiffWRT is false. All are computed by a single
// call of Backward: the first is the result of the gradient op, the others are side values that it fills.
func SymDiff(o Backwarder, inputs G.Nodes, output, grad *G.Node) (G.Nodes, error) {
	wrt := o.DiffWRT(len(inputs))
	first := -1
	grads := make(G.Nodes, len(inputs))
	var args G.Nodes
	for i, n := range inputs {
		if backwardReads(o, i) {
			args = append(args, n)
		}
	}
	if backwardReads(o, Output) {
		args = append(args, output)
	}
	args = append(args, grad)
	for i, want := range wrt {
		switch {
		case !want:
		case first < 0:
			first = i
		default:
			side, err := SideFor(o, inputs[i], inputs[i].Shape(), inputs[i].Dtype())
			if err != nil {
				return nil, err
			}
			grads[i] = side
			args = append(args, side)
		}
	}
	if first < 0 {
		return nil, fmt.Errorf("%v: not differentiable with respect to any input", o)
	}
	g := &gradOp{
		Base: NewBase(o.String()+".Backward", o.Hashcode(), inputs[first].Shape(), inputs[first].Dtype(), args...),
		of:   o, first: first, n: len(inputs),
	}
	head, err := Apply(gradOpFor(g), args...)
	if err != nil {
		return nil, err
	}
	for i, side := range grads {
		if side == nil {
			continue
		}
		if grads[i], err = After(side, head); err != nil {
			return nil, err
		}
	}
	grads[first] = head
	return grads, nil
}

// gradOp runs Backward. Inputs: those of the forward op and its output, as far as they are read, the output's gradient, and the
// sides for the gradients after the first.
type gradOp struct {
	Base
	of       Backwarder
	first, n int
}

var _ G.SDOp = (*gradOp)(nil)

func (o *gradOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer Recover(o.name, &err)
	o.begins()
	args, err := o.split(in)
	if err != nil {
		return nil, err
	}
	dIn := make([]*tensor.Dense, o.n)
	for i, v := range args.dIn {
		if v == nil {
			continue
		}
		d, ok := v.(*tensor.Dense)
		if !ok {
			return nil, fmt.Errorf("%s: got a side of type %T, want *tensor.Dense", o.name, v)
		}
		dIn[i] = d
	}
	dIn[o.first] = newFor(o.of, o.OutDtype(), o.shape)
	if err = o.of.Backward(args.in, args.out, args.dOut, dIn); err != nil {
		return nil, err
	}
	return dIn[o.first], nil
}

// gradArgs is what Backward takes. In dIn are the sides.
type gradArgs struct {
	in, dIn   []G.Value
	out, dOut G.Value
}

// split tells the inputs apart.
func (o *gradOp) split(in []G.Value) (gradArgs, error) {
	if len(in) != len(o.in) {
		return gradArgs{}, fmt.Errorf("%s: got %d inputs, want %d", o.name, len(in), len(o.in))
	}
	args := gradArgs{in: make([]G.Value, o.n), dIn: make([]G.Value, o.n)}
	next := func() (v G.Value) {
		v, in = in[0], in[1:]
		return v
	}
	for i := range args.in {
		if backwardReads(o.of, i) {
			args.in[i] = next()
		}
	}
	if backwardReads(o.of, Output) {
		args.out = next()
	}
	args.dOut = next()
	for i, want := range o.of.DiffWRT(o.n) {
		if want && i != o.first {
			args.dIn[i] = next()
		}
	}
	return args, nil
}

func (o *gradOp) DiffWRT(n int) []bool { return make([]bool, n) }

func (o *gradOp) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return nil, fmt.Errorf("%s: second derivatives are not supported", o.name)
}

// DoDiff is the LispMachine's backward step: it runs Backward and adds the results to the gradients of the inputs.
func DoDiff(o Backwarder, inputs G.Nodes, output *G.Node) (err error) {
	defer Recover(o.String(), &err)
	in := make([]G.Value, len(inputs))
	for i, n := range inputs {
		in[i] = n.Value()
	}
	dOut, err := output.Grad()
	if err != nil {
		return fmt.Errorf("%v: gradient of the output: %w", o, err)
	}
	dIn := make([]*tensor.Dense, len(inputs))
	for i, want := range o.DiffWRT(len(inputs)) {
		if want {
			dIn[i] = NewLike(in[i])
		}
	}
	if err = o.Backward(in, output.Value(), dOut, dIn); err != nil {
		return err
	}
	for i, d := range dIn {
		if d == nil {
			continue
		}
		if err = accumulate(inputs[i], d); err != nil {
			return fmt.Errorf("%v: gradient of input %d: %w", o, i, err)
		}
	}
	return nil
}

func accumulate(n *G.Node, d *tensor.Dense) error {
	g, err := n.Grad()
	if err != nil {
		return err
	}
	if d.Dtype() == tensor.Float64 {
		return addInto[float64](g, d)
	}
	return addInto[float32](g, d)
}

func addInto[T kernel.Float](g G.Value, d *tensor.Dense) error {
	dst, ok := g.(*tensor.Dense)
	if !ok || !Contiguous(dst) {
		return fmt.Errorf("got a gradient of type %T, want a contiguous *tensor.Dense", g)
	}
	to, from := Memory[T](dst), Memory[T](d)
	if len(to) != len(from) {
		return fmt.Errorf("got a gradient of %d elements, want %d", len(to), len(from))
	}
	for i, x := range from {
		to[i] += x
	}
	return nil
}
