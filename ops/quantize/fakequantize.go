package quantize

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// FakeQuantizeConfig configures FakeQuantize. The zero value rounds a matrix of weights to FP16.
type FakeQuantizeConfig struct {
	// Weights is the format of x as a matrix of weights.
	Weights Config

	// Clip takes the scales of INT8 and INT4 weights that Rounding's Clipped takes, instead of Nearest's.
	Clip bool

	// Rows says that x is the input of a layer instead: each row, along the last dimension, is rounded to 8 bits as MatMul does
	// with InputINT8. Weights and Clip are not used then.
	Rows bool

	// Scale makes the scales parameters that are learned (LSQ, Esser et al. 2020, arXiv 1902.08153): positive numbers of x's dtype,
	// for symmetric weights of the shape that Packed.Scales has, for Rows a vector of one. Good values to start from are the
	// Scales that QuantizeWith finds with Clipped, and what Stats.Scale gives. Nil takes the scales of x itself.
	Scale *G.Node
}

// FakeQuantize rounds x to what codes can stand for, so that a model learns to live with its codes (quantization-aware training):
//
//	x̂ = s·(clamp(round(x/s) + z) − z)
//
// with the codec of Quantize: a float32 matrix x̂ has the bits of Quantize(x, cfg.Weights).Dequantize(), with Clip those of
// QuantizeWith's Clipped, with Scale those of Fixed and these scales. x has rank 2 as weights, 1 or more as Rows; x̂ has its
// shape and dtype.
//
// Rounding is taken for the identity in the gradient (the straight-through estimator, Bengio et al., arXiv 1308.3432), and clamping
// for what it is: dx is dOut where x is within the codes' range, with half a step to spare, and 0 beyond. Without Clip and Scale
// the range reaches the largest number, and dx = dOut everywhere. With Scale, Q the largest code and v = x/s,
//
//	dx = dOut where −Q < v < Q, 0 elsewhere
//	ds = 1/√(N·Q) · Σ dOut · (round(v) − v  where −Q < v < Q,  −Q where v ≤ −Q,  Q where v ≥ Q)
//
// over the N numbers that share the scale, of Rows over all with N the length of a row (Esser et al., §2.1 and 2.2).
//
// A weight that Quantize would refuse, or a scale that is not a positive number, is an error when the node runs.
func FakeQuantize(x *G.Node, cfg FakeQuantizeConfig) (*G.Node, error) {
	const fn = "quantize.FakeQuantize"
	args := []op.Arg{{Name: "x", Node: x}}
	if cfg.Scale != nil {
		args = append(args, op.Arg{Name: "Scale", Node: cfg.Scale})
	}
	if err := op.CheckArgs(fn, args...); err != nil {
		return nil, err
	}
	if err := op.CheckFloat(fn, args...); err != nil {
		return nil, err
	}
	o := &fakeQuantize{dtype: x.Dtype(), rows: cfg.Rows, clip: cfg.Clip, learned: cfg.Scale != nil}
	var err error
	if o.scales, err = o.check(fn, args[0], cfg); err != nil {
		return nil, err
	}
	in := G.Nodes{x}
	if o.learned {
		if err := op.CheckRank(fn, args[1], o.scales.Dims()); err != nil {
			return nil, err
		}
		if err := op.CheckShape(fn, args[1], o.scales...); err != nil {
			return nil, err
		}
		in = append(in, cfg.Scale)
	}
	attrs := struct {
		Weights                         Config
		Transposed, Rows, Clip, Learned bool // Config prints without the first
	}{o.cfg, o.cfg.Transposed, o.rows, o.clip, o.learned}
	o.Base = op.NewBase(fn, attrs, x.Shape(), x.Dtype(), in...)
	return op.Apply(fakeOpFor(o), in...)
}

// check reports what does not fit together, fills o.cfg in and returns the shape of the scales.
func (o *fakeQuantize) check(fn string, x op.Arg, cfg FakeQuantizeConfig) (tensor.Shape, error) {
	shape := x.Node.Shape()
	if shape.Dims() < 1 || shape.TotalSize() < 1 {
		return nil, fmt.Errorf("%s: x: got shape %v, want rank 1 or more, and every dimension at least 1", fn, shape)
	}
	if cfg.Rows {
		if cfg.Weights != (Config{}) || cfg.Clip {
			return nil, fmt.Errorf("%s: Rows: got Weights %v and Clip %v besides, want neither", fn, cfg.Weights, cfg.Clip)
		}
		o.cfg = Config{Scheme: INT8, Granularity: PerTensor}
		return tensor.Shape{1}, nil
	}
	if err := op.CheckRank(fn, x, 2); err != nil {
		return nil, err
	}
	var err error
	if o.cfg, err = cfg.Weights.normal(fn); err != nil {
		return nil, err
	}
	in, out := shape[0], shape[1]
	if o.cfg.Transposed {
		in, out = out, in
	}
	if in > kernel.MaxQuantizedRows {
		return nil, fmt.Errorf("%s: x: got %d inputs, want at most %d", fn, in, kernel.MaxQuantizedRows)
	}
	switch {
	case (cfg.Clip || o.learned) && !o.cfg.Scheme.HasScales():
		return nil, fmt.Errorf("%s: got Clip %v and Scale %v with %v, want neither: it has no scales", fn, cfg.Clip, o.learned, o.cfg.Scheme)
	case cfg.Clip && o.learned:
		return nil, fmt.Errorf("%s: got Clip and a Scale, want one of them", fn)
	case o.learned && o.cfg.Asymmetric:
		return nil, fmt.Errorf("%s: Scale: got one with Asymmetric, want symmetric weights", fn)
	}
	return layoutOf(o.cfg, in, out).scales, nil
}

// fakeQuantize has the inputs x and, if it learns them, the scales.
type fakeQuantize struct {
	op.Base
	cfg                 Config
	rows, clip, learned bool
	dtype               tensor.Dtype
	scales              tensor.Shape
}

var _ op.Backwarder = (*fakeQuantize)(nil)

// Do rounds x.
func (o *fakeQuantize) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return fakeForward[float64](o, in)
	}
	return fakeForward[float32](o, in)
}

// DiffWRT: x and the scales.
func (o *fakeQuantize) DiffWRT(n int) []bool {
	wrt := make([]bool, n)
	for i := range wrt {
		wrt[i] = true
	}
	return wrt
}

// SymDiff builds the gradient for a TapeMachine.
func (o *fakeQuantize) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *fakeQuantize) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward is as FakeQuantize says.
func (o *fakeQuantize) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return fakeBackward[float64](o, in, dOut, dIn)
	}
	return fakeBackward[float32](o, in, dOut, dIn)
}
