package flashattn

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// attendOp computes attention. Its inputs are q, k, v, or the vector of all three, then those of sinks, bias, cumulative lengths and step that attrs
// names, then the side that takes the row statistics. If attrs.Packed, the log-sum-exp follows the output in one vector.
type attendOp struct {
	op.Base
	attrs
	floats []tensor.Shape // of q, k, v or their vector, sinks and bias, as far as there are
}

var (
	_ op.Backwarder = (*attendOp)(nil)
	_ G.ADOp        = (*attendOp)(nil)
)

func (o *attendOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	var out G.Value
	if in[0].Dtype() == tensor.Float64 {
		out, err = do[float64](o, in)
	} else {
		out, err = do[float32](o, in)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name(), err)
	}
	return out, nil
}

func do[T kernel.Float](o *attendOp, in []G.Value) (G.Value, error) {
	if err := o.checkValues(in); err != nil {
		return nil, err
	}
	p, err := fromValues[T](o.attrs, in)
	if err != nil {
		return nil, err
	}
	out, mem := op.New[T](o.OutShape())
	if err := p.bind(mem, in); err != nil {
		return nil, err
	}
	p.forward()
	return out, nil
}

func (o *attendOp) DiffWRT(n int) []bool {
	wrt := make([]bool, n)
	diff := o.mains()
	if o.HasSinks {
		diff++
	}
	if o.HasBias {
		diff++
	}
	for i := range min(diff, n) {
		wrt[i] = true
	}
	return wrt
}

// checkValues reports values of other shapes than the nodes had: one can be reshaped or transposed after it was bound.
func (o *attendOp) checkValues(in []G.Value) error {
	for i, want := range o.floats {
		if in[i] == nil {
			return fmt.Errorf("input %d: got no value, want one of shape %v", i, want)
		}
		if got := in[i].Shape(); !got.Eq(want) {
			return fmt.Errorf("input %d: got a value of shape %v, want %v", i, got, want)
		}
	}
	return nil
}

// fromValues makes a problem of the op's inputs, without its outputs.
func fromValues[T kernel.Float](a attrs, in []G.Value) (*problem[T], error) {
	p := &problem[T]{attrs: a}
	main, err := heads[T](a, in)
	if err != nil {
		return nil, err
	}
	p.q, p.k, p.v = main[0], main[1], main[2]
	rest := in[a.mains():]
	next := func() (v G.Value) { v, rest = rest[0], rest[1:]; return v }
	if a.HasSinks {
		if p.sinks, err = op.Data[T](next()); err != nil {
			return nil, err
		}
	}
	if a.HasBias {
		v := next()
		if p.bias.data, err = op.Data[T](v); err != nil {
			return nil, err
		}
		p.bias.shape(v.Shape())
	}
	if a.HasCuQ {
		cuQ, err := op.Ints(next())
		if err != nil {
			return nil, err
		}
		cuKV := cuQ
		if a.HasCuKV {
			if cuKV, err = op.Ints(next()); err != nil {
				return nil, err
			}
		}
		if p.segs, err = packedSegments(cuQ, cuKV, p.q.Seq, p.k.Seq); err != nil {
			return nil, err
		}
	} else {
		p.segs = segments(p.q.Batch, p.q.Seq, p.k.Seq)
	}
	step := 0
	if a.HasStep {
		if step, err = op.Int(next()); err != nil {
			return nil, err
		}
	}
	p.prepare(step)
	return p, nil
}

// bind gives p the memory of its output and statistics: mem holds the output and, if packed, the log-sum-exp after it.
func (p *problem[T]) bind(mem []T, in []G.Value) error {
	n := p.q.Batch * p.q.Seq * p.q.Heads
	p.out = Contiguous(mem[:n*p.v.Dim], p.q.Batch, p.q.Seq, p.q.Heads, p.v.Dim)
	if p.Packed {
		p.lse = mem[n*p.v.Dim:][:n]
	}
	side, ok := in[len(in)-1].(*tensor.Dense)
	if !ok {
		return fmt.Errorf("got a side of type %T, want *tensor.Dense", in[len(in)-1])
	}
	stats := op.Memory[T](side)
	p.rowMax, p.rowSum = stats[:n], stats[n:]
	return nil
}
