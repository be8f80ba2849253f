package stheno

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
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

func (t *fused) linear(x *G.Node, w matrix, b *G.Node) *G.Node {
	return t.project(x, w, b, ops.ActNone, false)
}

func (t *fused) project(x *G.Node, w matrix, b *G.Node, act ops.Activation, transposed bool) *G.Node {
	return t.do(func() (*G.Node, error) {
		if t.p.recorder != nil {
			if err := t.p.recorder.Tap(w.layer(transposed), x); err != nil {
				return nil, err
			}
		}
		if w.packed == nil && w.input == quantize.InputINT8 {
			var err error
			if x, err = quantize.FakeQuantize(x, quantize.FakeQuantizeConfig{Rows: true}); err != nil {
				return nil, err
			}
		}
		if w.packed != nil {
			return quantize.MatMul(x, w.packed, quantize.MatMulConfig{Input: w.input, Bias: b, Activation: act, NoGrad: true})
		}
		return ops.Linear(x, w.full, b, ops.LinearConfig{Activation: act, TransposeWeight: transposed, NoGrad: !t.p.train})
	})
}

var activations = map[ActivationKind]ops.Activation{
	GELUTanh: ops.ActGELUTanh, GELU: ops.ActGELU, SiLU: ops.ActSiLU, ReLU: ops.ActReLU,
}

func (t *fused) activated(x *G.Node, w matrix, b *G.Node) *G.Node {
	return t.project(x, w, b, activations[t.m.cfg.Activation], false)
}

func (t *fused) swiglu(gate, up *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return ops.SwiGLU(gate, up) })
}

// split is (batch, seq, heads·headDim) → (batch, seq, heads, headDim).
func (t *fused) split(x *G.Node, heads int) *G.Node {
	return t.do(func() (*G.Node, error) { return ops.Reshape(x, t.p.batch, t.p.seq, heads, t.m.cfg.HeadDim) })
}

func (t *fused) rotate(x *G.Node) *G.Node {
	if t.m.cfg.Positions != Rotary {
		return x
	}
	return t.do(func() (*G.Node, error) { return ops.RoPE(x, t.pos, t.m.cfg.RoPE) })
}

func (t *fused) attention(layer int, q, k, v, sinks *G.Node) *G.Node {
	cfg := t.m.cfg
	q, k = t.rotate(t.split(q, cfg.Heads)), t.rotate(t.split(k, cfg.KVHeads))
	v = t.split(v, cfg.KVHeads)
	ac := flashattn.Config{Causal: true, Softcap: cfg.Softcap, Sinks: sinks}
	if cfg.Window > 0 {
		ac.Window = flashattn.Sliding(cfg.Window)
	}
	o := t.do(func() (*G.Node, error) {
		if t.p.caches != nil {
			return kvcompress.Attend(q, k, v, t.pos, t.p.caches[layer], ac)
		}
		return flashattn.Attend(q, k, v, ac)
	})
	return t.do(func() (*G.Node, error) { return ops.Reshape(o, t.p.batch, t.p.seq, cfg.Heads*cfg.HeadDim) })
}

func (t *fused) last(x *G.Node) *G.Node {
	if t.p.seq == 1 {
		return x
	}
	x = t.do(func() (*G.Node, error) { return G.Slice(x, nil, G.S(t.p.seq-1)) })
	return t.do(func() (*G.Node, error) { return ops.Reshape(x, t.p.batch, 1, t.m.cfg.Dim) })
}

func (t *fused) head(x *G.Node, table matrix) *G.Node {
	return t.project(x, table, nil, ops.ActNone, true)
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
