package ops

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// DropoutConfig configures Dropout.
type DropoutConfig struct {
	// Rate is the probability that an element is dropped, 0 ≤ Rate < 1.
	Rate float64

	// Seed chooses the sequence of masks. Dropouts of one size with one seed draw the same masks, so give each layer its
	// own.
	Seed uint64
}

// Dropout zeroes each element with probability Rate and scales the others so that the expectation stays:
//
//	y[i] = x[i]·keep[i]/(1 − Rate)    keep[i] ∈ {0, 1}
//
// keep[i] is a function of Seed, the value of step and i alone: change step between runs (gorgonia.Let) to draw a new mask,
// set it back to draw an old one again. The backward pass draws the mask anew instead of keeping it.
//
// x has rank 1 or more, the result has x's shape; step is a scalar node of an integer dtype. With Rate 0 the result is x
// itself, and step may be nil.
//
// Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014, section 10 (scaling
// at training time).
func Dropout(x, step *G.Node, cfg DropoutConfig) (*G.Node, error) {
	const fn = "ops.Dropout"
	if err := checkElementwise(fn, op.Arg{Name: "x", Node: x}); err != nil {
		return nil, err
	}
	if !(cfg.Rate >= 0 && cfg.Rate < 1) {
		return nil, fmt.Errorf("%s: Rate: got %v, want 0 ≤ Rate < 1", fn, cfg.Rate)
	}
	if cfg.Rate == 0 {
		return x, nil
	}
	s := op.Arg{Name: "step", Node: step}
	if err := op.CheckArgs(fn, op.Arg{Name: "x", Node: x}, s); err != nil {
		return nil, err
	}
	if err := op.CheckInteger(fn, s); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, s, 0); err != nil {
		return nil, err
	}
	return op.Apply(&dropout{op.NewBase(fn, cfg, x.Shape(), x.Dtype(), x, step), x.Dtype(), cfg}, x, step)
}

// dropout has the inputs x and step.
type dropout struct {
	op.Base
	dtype tensor.Dtype
	cfg   DropoutConfig
}

var _ op.Selective = (*dropout)(nil)

func (o *dropout) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return dropoutForward[float64](o, in)
	}
	return dropoutForward[float32](o, in)
}

// DiffWRT: x, not step.
func (o *dropout) DiffWRT(int) []bool { return []bool{true, false} }

// BackwardReads: the step.
func (o *dropout) BackwardReads(i int) bool { return i == 1 }

// SymDiff builds the gradient for a TapeMachine.
func (o *dropout) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *dropout) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: dx = dOut·keep/(1 − Rate), the op itself applied to dOut.
func (o *dropout) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return dropoutApply(o, "gradient", op.Memory[float64](dIn[0]), dOut, in[1])
	}
	return dropoutApply(o, "gradient", op.Memory[float32](dIn[0]), dOut, in[1])
}

func dropoutForward[T kernel.Float](o *dropout, in []G.Value) (G.Value, error) {
	out, y := op.NewUnset[T](o.OutShape())
	if err := dropoutApply(o, "x", y, in[0], in[1]); err != nil {
		return nil, err
	}
	return out, nil
}

func dropoutApply[T kernel.Float](o *dropout, name string, dst []T, src, step G.Value) error {
	x, err := op.Elements[T](o.Name(), name, src, len(dst))
	if err != nil {
		return err
	}
	s, err := op.Int(step)
	if err != nil {
		return fmt.Errorf("%s: step: %w", o.Name(), err)
	}
	seed := dropoutKey(o.cfg.Seed, uint64(s))
	overElements(len(x), func(lo, hi int) {
		kernel.DropoutRow(dst[lo:hi], x[lo:hi], seed, uint64(lo), 1-o.cfg.Rate)
	})
	return nil
}

// dropoutKey is the generator's key for one step: output number step of SplitMix64 started at seed, so that steps of one
// seed never share a key (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014, figure 16).
func dropoutKey(seed, step uint64) uint64 {
	z := seed + (step+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
