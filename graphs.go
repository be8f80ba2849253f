package stheno

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/ops/kvcompress"
)

// TrainingGraph is a decoder with its loss and the gradients of all weights, compiled on a TapeMachine.
type TrainingGraph struct {
	Graph  *G.ExprGraph
	Tokens *G.Node // the input ids; with Fused nodes (batch, seq)
	Logits *G.Node
	Loss   *G.Node // mean cross-entropy in nats
	Params G.Nodes // in the order of Model.Parameters
	Grads  G.Nodes // the gradients of Params

	// Step is the number of the next run, by which dropout draws. Run counts it up.
	Step int

	vm      G.VM
	t       toolkit
	p       plan
	m       *Model
	results *op.Recycler
	done    bool // the last run, so that the gradients are there
	closed  bool
}

// TrainingGraph builds and compiles the graph of one training step over batch sequences of seq tokens.
func (m *Model) TrainingGraph(batch, seq int, nodes Nodes) (*TrainingGraph, error) {
	return m.training(plan{batch: batch, seq: seq, train: true}, nodes)
}

// QuantizedTrainingGraph is TrainingGraph with the layers that cfg names rounded, in the forward pass, to what their codes will
// stand for once Quantize has stored them as cfg says; the logits are those of that model, within rounding. The gradients take
// rounding for the identity (quantize.FakeQuantize).
func (m *Model) QuantizedTrainingGraph(batch, seq int, cfg QuantizeConfig) (*TrainingGraph, error) {
	p := plan{batch: batch, seq: seq, train: true}
	if err := p.fakes(m, cfg); err != nil {
		return nil, err
	}
	return m.training(p, Fused)
}

func (m *Model) training(p plan, nodes Nodes) (*TrainingGraph, error) {
	g, err := m.graph(p, nodes)
	if err != nil {
		return nil, err
	}
	out := &TrainingGraph{
		Graph: g.g, Tokens: g.tokenIn, Logits: g.logits, Loss: g.loss, Params: g.params,
		t: g.t, p: g.plan, m: m,
	}
	if out.Grads, err = G.Grad(g.loss, g.params...); err != nil {
		return nil, fmt.Errorf("stheno: gradients of %s nodes: %w", nodes, err)
	}
	if err := op.Keep(append(G.Nodes{g.loss, g.logits}, out.Grads...)...); err != nil {
		return nil, err
	}
	if out.vm, err = m.compile(g.g); err != nil {
		return nil, err
	}
	out.results = op.NewRecycler(g.g, append(G.Nodes{g.loss, g.logits}, out.Grads...), nil)
	return out, nil
}

// Run computes loss and gradients. tokens and targets are batch·seq ids, sequence after sequence; targets[i] is the token
// that should follow tokens[i]. The gradients are those of this run alone: nothing accumulates from run to run. Loss,
// logits and gradients are valid until the next Run, which uses their memory again; the values of other nodes may not be.
func (t *TrainingGraph) Run(tokens, targets []int) (loss float64, err error) {
	if err := t.m.checkTokens("tokens", tokens, t.p.rows()); err != nil {
		return 0, err
	}
	if err := t.m.checkTokens("targets", targets, t.p.rows()); err != nil {
		return 0, err
	}
	t.done = false
	t.results.Release()
	in := feed{tokens: tokens, targets: targets, step: t.Step}
	t.Step++
	if err := run(t.vm, t.t, in, t.results); err != nil {
		return 0, err
	}
	t.done = true
	return scalarOf(t.Loss.Value())
}

// ValueGrads pairs each weight with its gradient from the last run, for a gorgonia.Solver. The solver writes the model's
// weights. After a run that failed there are no gradients, and asking for one is an error.
func (t *TrainingGraph) ValueGrads() []G.ValueGrad {
	out := make([]G.ValueGrad, len(t.Params))
	for i, p := range t.m.params {
		g := &paramGrad{name: p.Name, value: p.Value}
		if t.done {
			g.grad = t.Grads[i].Value()
		}
		out[i] = g
	}
	return out
}

// Close frees the machine.
func (t *TrainingGraph) Close() error { return t.m.closeGraph(t.vm, &t.closed) }

// paramGrad is a weight and its gradient as a gorgonia.ValueGrad.
type paramGrad struct {
	name        string
	value, grad G.Value
}

var _ G.ValueGrad = (*paramGrad)(nil)

func (p *paramGrad) Name() string   { return p.name }
func (p *paramGrad) Value() G.Value { return p.value }

func (p *paramGrad) Grad() (G.Value, error) {
	if p.grad == nil {
		return nil, fmt.Errorf("stheno: %s: got no gradient, want a run of the graph that succeeds first", p.name)
	}
	return p.grad, nil
}

// InferenceGraph is a decoder without a loss, compiled on a TapeMachine.
type InferenceGraph struct {
	Graph  *G.ExprGraph
	Tokens *G.Node
	Logits *G.Node
	Caches []kvcompress.Cache // one a layer, nil without

	vm      G.VM
	t       toolkit
	p       plan
	m       *Model
	results *op.Recycler
	closed  bool
}

// PrefillGraph builds and compiles a graph that computes the logits of every position of batch sequences of seq tokens,
// without a cache.
func (m *Model) PrefillGraph(batch, seq int, nodes Nodes) (*InferenceGraph, error) {
	return m.inference(plan{batch: batch, seq: seq}, nodes)
}

// DecodeGraph builds and compiles a graph of Fused nodes that takes the next seq tokens of each of the caches' sequences,
// usually one, appends their keys and values to the caches and computes the logits of the last. The same graph serves one
// token after another: the position is an input of it. caches are those of NewCaches.
func (m *Model) DecodeGraph(seq int, caches []kvcompress.Cache) (*InferenceGraph, error) {
	if len(caches) == 0 || caches[0] == nil {
		return nil, fmt.Errorf("stheno: DecodeGraph: got no caches, want %d, one a layer", m.cfg.Layers)
	}
	return m.inference(plan{batch: caches[0].Shape().Batch, seq: seq, caches: caches, last: true}, Fused)
}

func (m *Model) inference(p plan, nodes Nodes) (*InferenceGraph, error) {
	g, err := m.graph(p, nodes)
	if err != nil {
		return nil, err
	}
	if t, ok := g.t.(*plain); ok { // its keys and values are read after a run
		read := G.Nodes{g.logits}
		for _, pair := range t.kv {
			read = append(read, pair[:]...)
		}
		if err := op.Keep(read...); err != nil {
			return nil, err
		}
	}
	vm, err := m.compile(g.g)
	if err != nil {
		return nil, err
	}
	return &InferenceGraph{Graph: g.g, Tokens: g.tokenIn, Logits: g.logits, Caches: p.caches,
		vm: vm, t: g.t, p: p, m: m,
		results: op.NewRecycler(g.g, nil, G.Nodes{g.logits})}, nil
}

// Run computes the logits of batch·seq ids, sequence after sequence, of which the first stands at position pos (0 without
// caches; with caches the number of tokens in them). The result is (batch·seq, vocab), or (batch, vocab) for a DecodeGraph,
// and belongs to the caller; the values of other nodes are not to be read.
func (g *InferenceGraph) Run(tokens []int, pos int) (*tensor.Dense, error) {
	if err := g.m.checkTokens("tokens", tokens, g.p.rows()); err != nil {
		return nil, err
	}
	if pos < 0 || pos+g.p.seq > g.m.cfg.MaxSeq {
		return nil, fmt.Errorf("stheno: got %d tokens at position %d, want both within MaxSeq = %d", g.p.seq, pos, g.m.cfg.MaxSeq)
	}
	defer g.results.Release()
	if err := run(g.vm, g.t, feed{tokens: tokens, pos: pos}, g.results); err != nil {
		return nil, err
	}
	d, ok := g.Logits.Value().(*tensor.Dense)
	if !ok {
		return nil, fmt.Errorf("stheno: got logits of type %T, want *tensor.Dense", g.Logits.Value())
	}
	rows, data := d.Size()/g.m.cfg.Vocab, d.Data()
	if d.IsManuallyManaged() { // the card's, where the next run writes
		data = copied(data)
	}
	return dense(data, []int{rows, g.m.cfg.Vocab}), nil
}

// Close frees the machine.
func (g *InferenceGraph) Close() error { return g.m.closeGraph(g.vm, &g.closed) }

// compile makes a machine, which closeGraph frees. Gorgonia panics on graphs that it cannot compile.
func (m *Model) compile(g *G.ExprGraph) (vm G.VM, err error) {
	m.home.open.Add(1)
	defer func() {
		if r := recover(); r != nil {
			m.home.open.Add(-1)
			if cause, ok := r.(error); ok {
				err = fmt.Errorf("stheno: compiling a graph of %d nodes: %w", len(g.AllNodes()), cause)
			} else {
				err = fmt.Errorf("stheno: compiling a graph of %d nodes: %v", len(g.AllNodes()), r)
			}
		}
	}()
	return G.NewTapeMachine(g), nil
}

// closeGraph frees a machine that compile made.
func (m *Model) closeGraph(vm G.VM, closed *bool) error {
	if !*closed {
		*closed = true
		m.home.open.Add(-1)
	}
	return vm.Close()
}

// run binds the inputs and executes the graph from its start, also after a run that failed.
func run(vm G.VM, t toolkit, in feed, results *op.Recycler) error {
	if err := t.let(in); err != nil {
		return fmt.Errorf("stheno: binding inputs: %w", err)
	}
	defer vm.Reset()
	defer results.Watch()()
	if err := vm.RunAll(); err != nil {
		return fmt.Errorf("stheno: running the graph: %w", err)
	}
	return nil
}

func (m *Model) checkTokens(what string, ids []int, n int) error {
	if len(ids) != n {
		return fmt.Errorf("stheno: got %d %s, want %d", len(ids), what, n)
	}
	for i, id := range ids {
		if id < 0 || id >= m.cfg.Vocab {
			return fmt.Errorf("stheno: %s[%d]: got id %d, want 0 to %d", what, i, id, m.cfg.Vocab-1)
		}
	}
	return nil
}

func scalarOf(v G.Value) (float64, error) {
	if v == nil {
		return 0, fmt.Errorf("stheno: got no value, want a scalar")
	}
	switch x := v.Data().(type) {
	case float32:
		return float64(x), nil
	case float64:
		return x, nil
	}
	return 0, fmt.Errorf("stheno: got a value of type %T, want a scalar", v.Data())
}
