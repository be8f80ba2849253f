package stheno

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops"
	"stheno/ops/quantize"
)

// fused composes the decoder of this module's nodes. Activations are (batch, seq, dim).
type fused struct {
	g     *G.ExprGraph
	m     *Model
	p     plan
	fails error

	tokens    *G.Node // (batch, seq) ids
	positions *G.Node // (batch, seq), with learned positions
	pos       *G.Node // the position of the first token, with rotary positions or caches
	targets   *G.Node // (batch, seq) ids
	step      *G.Node // the number of the run, with dropout
}

func newFused(g *G.ExprGraph, m *Model, p plan) *fused {
	t := &fused{g: g, m: m, p: p}
	t.tokens = t.ints("tokens")
	if m.cfg.Positions == Learned {
		t.positions = t.ints("positions")
	}
	if m.cfg.Positions == Rotary || p.caches != nil {
		t.pos = G.NewScalar(g, tensor.Int, G.WithName("position"))
	}
	if p.train {
		t.targets = t.ints("targets")
		if m.cfg.Dropout > 0 {
			t.step = G.NewScalar(g, tensor.Int, G.WithName("step"))
		}
	}
	return t
}

func (t *fused) ints(name string) *G.Node {
	return G.NewTensor(t.g, tensor.Int, 2, G.WithName(name), G.WithShape(t.p.batch, t.p.seq))
}

func (t *fused) err() error { return t.fails }

func (t *fused) do(f func() (*G.Node, error)) *G.Node {
	if t.fails != nil {
		return nil
	}
	n, err := f()
	t.fails = err
	return n
}

func (t *fused) embedTokens(table matrix) *G.Node {
	return t.do(func() (*G.Node, error) {
		if table.packed != nil {
			return quantize.Embedding(table.packed, t.tokens)
		}
		return ops.Embedding(table.full, t.tokens, ops.EmbeddingConfig{})
	})
}

func (t *fused) embedPositions(table *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return ops.Embedding(table, t.positions, ops.EmbeddingConfig{}) })
}

func (t *fused) add(x, y *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return ops.Add(x, y) })
}

func (t *fused) dropout(x *G.Node, site int) *G.Node {
	if t.step == nil {
		return x
	}
	return t.do(func() (*G.Node, error) {
		return ops.Dropout(x, t.step, ops.DropoutConfig{Rate: t.m.cfg.Dropout, Seed: uint64(site)})
	})
}

func (t *fused) norm(x, gamma, beta *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) {
		if t.m.cfg.Norm == RMSNorm {
			return ops.RMSNorm(x, gamma, ops.RMSNormConfig{Eps: t.m.cfg.NormEps})
		}
		return ops.LayerNorm(x, gamma, beta, ops.LayerNormConfig{Eps: t.m.cfg.NormEps})
	})
}

func (t *fused) linear(x *G.Node, a affine) *G.Node { return t.project(x, a, ops.LinearConfig{}) }

// feedForward computes the activation as fc's or, where a backward pass follows that would have fc keep two arrays, as the first thing
// of proj.
func (t *fused) feedForward(x *G.Node, fc, proj affine) *G.Node {
	act := activations[t.m.cfg.Activation]
	if t.p.train && act != ops.ActReLU && proj.w.input != quantize.InputINT8 {
		return t.project(t.linear(x, fc), proj, ops.LinearConfig{Input: act})
	}
	return t.linear(t.project(x, fc, ops.LinearConfig{Activation: act}), proj)
}

// head is x·tableᵀ.
func (t *fused) head(x *G.Node, table matrix) *G.Node {
	return t.project(x, affine{w: table}, ops.LinearConfig{TransposeWeight: true})
}

var activations = map[ActivationKind]ops.Activation{
	GELUTanh: ops.ActGELUTanh, GELU: ops.ActGELU, SiLU: ops.ActSiLU, ReLU: ops.ActReLU,
}

func (t *fused) project(x *G.Node, a affine, cfg ops.LinearConfig) *G.Node {
	return t.do(func() (*G.Node, error) {
		x, err := t.input(x, cfg.TransposeWeight, a)
		if err != nil {
			return nil, err
		}
		if w := a.w; w.packed != nil {
			return quantize.MatMul(x, w.packed, quantize.MatMulConfig{Input: w.input, Bias: a.b, Activation: cfg.Activation, NoGrad: true})
		}
		cfg.NoGrad = !t.p.train
		return ops.Linear(x, a.w.full, a.b, cfg)
	})
}

// input is what layers take that are multiplied together: x, tapped for each, and rounded where codes stand for it.
func (t *fused) input(x *G.Node, transposed bool, layers ...affine) (*G.Node, error) {
	for _, a := range layers {
		if t.p.recorder == nil {
			break
		}
		if err := t.p.recorder.Tap(a.w.layer(transposed), x); err != nil {
			return nil, err
		}
	}
	if w := layers[0].w; w.packed == nil && w.input == quantize.InputINT8 {
		return quantize.FakeQuantize(x, quantize.FakeQuantizeConfig{Rows: true})
	}
	return x, nil
}

// together reports whether layers that take one input can be one node: all are quantized or none is, and all take it in the same
// precision.
func together(layers ...affine) bool {
	first := layers[0]
	for _, a := range layers[1:] {
		if (a.w.packed == nil) != (first.w.packed == nil) || a.w.input != first.w.input {
			return false
		}
	}
	return true
}

// projectAll is the vector of all layers' results.
func (t *fused) projectAll(x *G.Node, layers ...affine) *G.Node {
	return t.do(func() (*G.Node, error) {
		in, err := t.input(x, false, layers...)
		if err != nil {
			return nil, err
		}
		var full, biases []*G.Node
		var packed []*quantize.Weights
		for _, a := range layers {
			full, packed = append(full, a.w.full), append(packed, a.w.packed)
			if a.b != nil {
				biases = append(biases, a.b)
			}
		}
		if first := layers[0].w; first.packed != nil {
			return quantize.MatMuls(in, packed, quantize.MatMulsConfig{Input: first.input, Biases: biases})
		}
		return ops.Linears(in, full, biases, ops.LinearsConfig{NoGrad: !t.p.train})
	})
}

func (t *fused) swiglu(gate, up *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return ops.SwiGLU(gate, up) })
}

func (t *fused) last(x *G.Node) *G.Node {
	if t.p.seq == 1 {
		return x
	}
	x = t.do(func() (*G.Node, error) { return G.Slice(x, nil, G.S(t.p.seq-1)) })
	return t.do(func() (*G.Node, error) { return ops.Reshape(x, t.p.batch, 1, t.m.cfg.Dim) })
}

func (t *fused) loss(logits *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) {
		return ops.CrossEntropy(logits, t.targets, ops.CrossEntropyConfig{})
	})
}

func (t *fused) let(in feed) error {
	p := t.p
	ids := func(n *G.Node, at func(i int) int) error {
		if n == nil {
			return nil
		}
		data := make([]int, p.rows())
		for i := range data {
			data[i] = at(i)
		}
		return G.Let(n, dense(data, []int{p.batch, p.seq}))
	}
	scalar := func(n *G.Node, x int) error {
		if n == nil {
			return nil
		}
		return G.Let(n, x)
	}
	for _, err := range []error{
		ids(t.tokens, func(i int) int { return in.tokens[i] }),
		ids(t.positions, func(i int) int { return in.pos + i%p.seq }),
		ids(t.targets, func(i int) int { return in.targets[i] }),
		scalar(t.pos, in.pos),
		scalar(t.step, in.step),
	} {
		if err != nil {
			return fmt.Errorf("fused nodes: %w", err)
		}
	}
	return nil
}
