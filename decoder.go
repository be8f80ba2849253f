package stheno

import (
	"fmt"

	G "gorgonia.org/gorgonia"

	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
	"stheno/ops/quantize"
)

// plan says which graph of a model to build.
type plan struct {
	batch, seq int
	train      bool                 // targets, dropout and a loss
	fake       map[string]Precision // layers that round their weights, and inputs, to what codes can stand for
	clip       bool                 // with fake: scales as Clipped chooses them
	recorder   *quantize.Recorder   // taps the inputs of all layers
	caches     []kvcompress.Cache   // one a layer: attention reaches back into them
	past       *plainCache          // with Plain nodes and a seq of 1: the same as inputs of the graph
	last       bool                 // logits of the last position only
}

func (p plan) rows() int { return p.batch * p.seq }

// toolkit makes the nodes of one graph out of one set of nodes. Activations are whatever shape suits the set; the
// decoder only passes them on. The first failure sticks: later calls do nothing and err reports it.
type toolkit interface {
	embedTokens(table matrix) *G.Node
	embedPositions(table *G.Node) *G.Node
	add(x, y *G.Node) *G.Node
	dropout(x *G.Node, site int) *G.Node
	norm(x, gamma, beta *G.Node) *G.Node
	linear(x *G.Node, a affine) *G.Node
	feedForward(x *G.Node, fc, proj affine) *G.Node // proj of the activation of fc
	swiglu(gate, up *G.Node) *G.Node                // silu(gate)⊙up
	// attention projects x to queries, keys and values, splits them into heads, rotates, attends, and joins the heads again.
	attention(layer int, x *G.Node, q, k, v affine, sinks *G.Node) *G.Node
	last(x *G.Node) *G.Node               // the last position of each sequence
	head(x *G.Node, table matrix) *G.Node // x·tableᵀ
	loss(logits *G.Node) *G.Node

	let(in feed) error // binds the values of one run
	err() error
}

// affine is x·w + b, without b where that is nil.
type affine struct {
	w matrix
	b *G.Node
}

// feed is what one run of a graph takes: batch·seq tokens, as many targets in training, the position of the first token
// and, where there is dropout, the number of the run.
type feed struct {
	tokens, targets []int
	pos, step       int
}

// graph is a decoder's graph, built and not yet compiled.
type graph struct {
	g       *G.ExprGraph
	t       toolkit
	params  G.Nodes // in the order of Model.Parameters
	logits  *G.Node
	loss    *G.Node // with plan.train
	plan    plan
	cfg     Config
	tokenIn *G.Node
}

func (m *Model) graph(p plan, nodes Nodes) (*graph, error) {
	if err := m.checkPlan(p, nodes); err != nil {
		return nil, err
	}
	g := G.NewGraph()
	w, err := m.bind(g, nodes)
	if err != nil {
		return nil, err
	}
	if err := w.fake(m.cfg, p); err != nil {
		return nil, err
	}
	out := &graph{g: g, params: w.params, plan: p, cfg: m.cfg}
	switch nodes {
	case Fused:
		f := newFused(g, m, p)
		out.t, out.tokenIn = f, f.tokens
	case Plain:
		f, err := newPlain(g, m, p)
		if err != nil {
			return nil, err
		}
		out.t, out.tokenIn = f, f.tokens
	}
	out.logits = decode(out.t, m.cfg, p, w)
	if p.train {
		out.loss = out.t.loss(out.logits)
	}
	if err := out.t.err(); err != nil {
		return nil, fmt.Errorf("stheno: building a graph of %s nodes: %w", nodes, err)
	}
	return out, nil
}

func (m *Model) checkPlan(p plan, nodes Nodes) error {
	switch {
	case !knownKind(nodesNames, int(nodes)):
		return fmt.Errorf("stheno: got nodes %d, want Fused or Plain", nodes)
	case m.Quantized() && nodes == Plain:
		return fmt.Errorf("stheno: got Plain nodes for a quantized model, want Fused: Gorgonia has no nodes for packed weights")
	case nodes == Plain && len(p.fake) > 0:
		return fmt.Errorf("stheno: got Plain nodes with layers to quantize, want Fused")
	case nodes == Plain && m.attention != flashattn.Float32:
		return fmt.Errorf("stheno: got Plain nodes with attention in %v, want Fused", m.attention)
	case m.Quantized() && p.train:
		return fmt.Errorf("stheno: got a quantized model to train, want one in full precision")
	case p.batch < 1:
		return fmt.Errorf("stheno: got a batch of %d, want at least 1", p.batch)
	case p.seq < 1 || p.seq > m.cfg.MaxSeq:
		return fmt.Errorf("stheno: got sequences of %d tokens, want 1 to MaxSeq = %d", p.seq, m.cfg.MaxSeq)
	case p.caches != nil && len(p.caches) != m.cfg.Layers:
		return fmt.Errorf("stheno: got %d caches, want %d, one a layer", len(p.caches), m.cfg.Layers)
	}
	return nil
}

// decode builds the decoder of the package comment and returns its logits.
func decode(t toolkit, cfg Config, p plan, w *weights) *G.Node {
	linear := func(x *G.Node, name string) *G.Node { return t.linear(x, w.affine(name)) }
	norm := func(x *G.Node, name string) *G.Node {
		return t.norm(x, w.vector(name+".weight"), w.vector(name+".bias"))
	}

	h := t.embedTokens(w.matrix("wte.weight"))
	if cfg.Positions == Learned {
		h = t.add(h, t.embedPositions(w.vector("wpe.weight")))
	}
	h = t.dropout(h, 0)
	for l := range cfg.Layers {
		block := fmt.Sprintf("h.%d.", l)
		a := norm(h, block+"ln_1")
		q, k, v := w.affine(block+"attn.q_proj"), w.affine(block+"attn.k_proj"), w.affine(block+"attn.v_proj")
		o := linear(t.attention(l, a, q, k, v, w.vector(block+"attn.sinks")), block+"attn.c_proj")
		h = t.add(h, t.dropout(o, 1+2*l))

		a = norm(h, block+"ln_2")
		var f *G.Node
		if cfg.Activation == SwiGLU {
			f = linear(t.swiglu(linear(a, block+"mlp.c_gate"), linear(a, block+"mlp.c_fc")), block+"mlp.c_proj")
		} else {
			f = t.feedForward(a, w.affine(block+"mlp.c_fc"), w.affine(block+"mlp.c_proj"))
		}
		h = t.add(h, t.dropout(f, 2+2*l))
	}
	if p.last {
		h = t.last(h)
	}
	h = norm(h, "ln_f")
	if cfg.TiedEmbeddings {
		return t.head(h, w.matrix("wte.weight"))
	}
	return t.head(h, w.matrix("lm_head.weight"))
}
