package flashattn

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// SymDiff serves the TapeMachine.
func (o *attendOp) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff serves the LispMachine.
func (o *attendOp) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward computes the gradients from the inputs, the output and the row statistics.
func (o *attendOp) Backward(in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	if in[0].Dtype() == tensor.Float64 {
		return backward[float64](o, in, out, dOut, dIn)
	}
	return backward[float32](o, in, out, dOut, dIn)
}

func backward[T kernel.Float](o *attendOp, in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	if err := o.checkValues(in); err != nil {
		return fmt.Errorf("%s.Backward: %w", o.Name(), err)
	}
	p, err := fromValues[T](o.attrs, in)
	if err != nil {
		return err
	}
	mem, err := op.Data[T](out)
	if err != nil {
		return err
	}
	if err = p.bind(mem, in); err != nil {
		return err
	}
	d, err := op.Data[T](dOut)
	if err != nil {
		return err
	}
	g := gradients[T]{dOut: p.out}
	n := p.q.Batch * p.q.Seq * p.q.Heads
	g.dOut.Data = d[:n*p.v.Dim]
	if o.Packed {
		g.dLSE = d[n*p.v.Dim:][:n]
	}
	d3 := gradientsOf(o.attrs, [3]Heads[T]{p.q, p.k, p.v}, dIn)
	g.dQ, g.dK, g.dV = d3[0], d3[1], d3[2]
	rest := dIn[o.mains():]
	if o.HasSinks {
		if rest[0] != nil {
			g.dSinks = op.Memory[T](rest[0])
		}
		rest = rest[1:]
	}
	if o.HasBias && rest[0] != nil {
		g.dBias = p.bias
		g.dBias.data = op.Memory[T](rest[0])
	}
	p.backward(&g)
	return nil
}
