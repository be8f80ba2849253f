package stheno

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// hidden is added to the scores of keys that a query must not see: exp of it is 0 in float32 and float64.
const hidden = -1e9

// plain composes the decoder of Gorgonia's own nodes, the way one would without this module. Activations are
// (batch·seq, dim). Node by node it takes care that no reshaped value is written to while its source is still needed:
// Gorgonia's Reshape shares memory.
type plain struct {
	g     *G.ExprGraph
	m     *Model
	p     plan
	fails error

	tokens    *G.Node // (batch·seq) ids
	positions *G.Node // (batch·seq) positions, with learned positions
	targets   *G.Node // (batch·seq) indices into the flattened log-probabilities
	mask      *G.Node // (batch·kvHeads, group·seq, seq): 0 or hidden, among the tokens of this run
	cosine    [2]*G.Node
	sine      [2]*G.Node // rotation tables for queries and for keys
	turn      *G.Node    // (headDim, headDim): x·turn is the quarter turn of each rotated pair
	rope      *ropeTable

	past *plainPast   // with plan.past
	kv   [][2]*G.Node // the keys and values made by this run, one pair a layer, (batch·kvHeads, seq, headDim)
}

// CheckPlain reports what keeps Plain nodes from composing the decoder, for training or for inference.
func (c Config) CheckPlain(train bool) error {
	switch {
	case c.Dropout > 0 && train:
		return fmt.Errorf("stheno: Plain nodes: got Dropout %v, want 0: Gorgonia's own has no seed", c.Dropout)
	case c.Activation == GELU:
		return fmt.Errorf("stheno: Plain nodes: got activation %v, want another: Gorgonia has no error function", c.Activation)
	case c.Sinks:
		return fmt.Errorf("stheno: Plain nodes: got Sinks, want none: Gorgonia's softmax takes no extra score")
	}
	return nil
}

func newPlain(g *G.ExprGraph, m *Model, p plan) (*plain, error) {
	cfg := m.cfg
	if err := cfg.CheckPlain(p.train); err != nil {
		return nil, err
	}
	t := &plain{g: g, m: m, p: p}
	t.tokens = t.ints("tokens", p.rows())
	if cfg.Positions == Learned {
		t.positions = t.ints("positions", p.rows())
	} else {
		rope, err := newRopeTable(m)
		if err != nil {
			return nil, err
		}
		t.rope = rope
		hd := cfg.HeadDim
		for i, heads := range []int{cfg.Heads, cfg.KVHeads} {
			t.cosine[i] = t.floats(fmt.Sprintf("cosine.%d", i), p.rows()*heads, hd)
			t.sine[i] = t.floats(fmt.Sprintf("sine.%d", i), p.rows()*heads, hd)
		}
		t.turn = t.constant("turn", rope.turn, hd, hd)
	}
	if p.train {
		t.targets = t.ints("targets", p.rows())
	}
	group := cfg.Heads / cfg.KVHeads
	t.mask = t.constant("mask", causalMask(p.batch*cfg.KVHeads, group, p.seq, cfg.Window), p.batch*cfg.KVHeads, group*p.seq, p.seq)
	t.kv = make([][2]*G.Node, cfg.Layers)
	if p.past != nil {
		t.past = newPlainPast(t, p.past)
	}
	return t, t.fails
}

// causalMask is (units, group·seq, seq): query s of every head sees keys max(0, s−window+1) to s.
func causalMask(units, group, seq, window int) []float64 {
	out := make([]float64, units*group*seq*seq)
	for r := range units * group {
		for s := range seq {
			row := out[(r*seq+s)*seq:][:seq]
			for j := range row {
				if j > s || window > 0 && j <= s-window {
					row[j] = hidden
				}
			}
		}
	}
	return out
}

func (t *plain) ints(name string, n int) *G.Node {
	return G.NewVector(t.g, tensor.Int, G.WithName(name), G.WithShape(n))
}

func (t *plain) floats(name string, shape ...int) *G.Node {
	return G.NewTensor(t.g, t.m.dtype, len(shape), G.WithName(name), G.WithShape(shape...))
}

// constant is an input that keeps its value.
func (t *plain) constant(name string, data []float64, shape ...int) *G.Node {
	return G.NewTensor(t.g, t.m.dtype, len(shape), G.WithName(name), G.WithShape(shape...), G.WithValue(t.value(data, shape...)))
}

func (t *plain) value(data []float64, shape ...int) *tensor.Dense {
	if t.m.dtype == tensor.Float64 {
		return dense(append([]float64(nil), data...), shape)
	}
	out := make([]float32, len(data))
	for i, x := range data {
		out[i] = float32(x)
	}
	return dense(out, shape)
}

func (t *plain) scalar(x float64) *G.Node {
	if t.m.dtype == tensor.Float64 {
		return G.NewConstant(x)
	}
	return G.NewConstant(float32(x))
}

func (t *plain) err() error { return t.fails }

// do applies f unless something failed before.
func (t *plain) do(f func() (*G.Node, error)) *G.Node {
	if t.fails != nil {
		return nil
	}
	n, err := f()
	t.fails = err
	return n
}

func (t *plain) reshape(x *G.Node, shape ...int) *G.Node {
	return t.do(func() (*G.Node, error) { return G.Reshape(x, shape) })
}

func (t *plain) mul(x, y *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return G.Mul(x, y) })
}

func (t *plain) prod(x, y *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return G.HadamardProd(x, y) })
}

func (t *plain) batched(x, y *G.Node, transposeY bool) *G.Node {
	return t.do(func() (*G.Node, error) { return G.BatchedMatMul(x, y, false, transposeY) })
}

func (t *plain) unary(f func(*G.Node) (*G.Node, error), x *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return f(x) })
}

func (t *plain) add(x, y *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return G.Add(x, y) })
}

func (t *plain) dropout(x *G.Node, _ int) *G.Node { return x }

func (t *plain) embedTokens(table matrix) *G.Node {
	return t.do(func() (*G.Node, error) { return G.ByIndices(table.full, t.tokens, 0) })
}

func (t *plain) embedPositions(table *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return G.ByIndices(table, t.positions, 0) })
}

func (t *plain) norm(x, gamma, beta *G.Node) *G.Node {
	cfg := t.m.cfg
	if cfg.Norm == LayerNorm {
		mean := t.do(func() (*G.Node, error) { return G.Mean(x, 1) })
		x0 := x
		x = t.do(func() (*G.Node, error) { return G.BroadcastSub(x0, mean, nil, []byte{1}) })
	}
	square := t.unary(G.Square, x)
	mean := t.do(func() (*G.Node, error) { return G.Mean(square, 1) })
	std := t.unary(G.Sqrt, t.add(mean, t.scalar(cfg.NormEps)))
	y := t.do(func() (*G.Node, error) { return G.BroadcastHadamardDiv(x, std, nil, []byte{1}) })
	y = t.do(func() (*G.Node, error) { return G.BroadcastHadamardProd(y, gamma, nil, []byte{0}) })
	return t.shift(y, beta)
}

// shift adds b to every row, if there is a b.
func (t *plain) shift(x, b *G.Node) *G.Node {
	if b == nil {
		return x
	}
	return t.do(func() (*G.Node, error) { return G.BroadcastAdd(x, b, nil, []byte{0}) })
}

func (t *plain) linear(x *G.Node, a affine) *G.Node { return t.shift(t.mul(x, a.w.full), a.b) }

func (t *plain) feedForward(x *G.Node, fc, proj affine) *G.Node {
	return t.linear(t.activation(t.linear(x, fc)), proj)
}

func (t *plain) activation(z *G.Node) *G.Node {
	switch t.m.cfg.Activation {
	case ReLU:
		return t.unary(G.Rectify, z)
	case SiLU:
		return t.prod(t.unary(G.Sigmoid, z), z)
	}
	// GELU by tanh: z/2·(1 + tanh(√(2/π)·(z + 0.044715·z³))).
	cube := t.mul(t.unary(G.Cube, z), t.scalar(0.044715))
	inner := t.mul(t.add(cube, z), t.scalar(math.Sqrt(2/math.Pi)))
	gate := t.add(t.unary(G.Tanh, inner), t.scalar(1))
	return t.prod(gate, t.mul(z, t.scalar(0.5)))
}

func (t *plain) swiglu(gate, up *G.Node) *G.Node {
	return t.prod(t.prod(t.unary(G.Sigmoid, gate), gate), up)
}

// split turns a projection (batch·seq, heads·headDim) into (batch·units, heads/units·seq, headDim), its vectors rotated
// where positions are rotary. Head h belongs to unit h/(heads/units), so the queries that share keys stand together.
func (t *plain) split(x *G.Node, heads, units, table int) *G.Node {
	cfg, p := t.m.cfg, t.p
	if t.rope != nil {
		rows := t.reshape(x, p.rows()*heads, cfg.HeadDim)
		turned := t.prod(t.mul(rows, t.turn), t.sine[table])
		x = t.add(turned, t.prod(rows, t.cosine[table]))
	}
	x = t.reshape(x, p.batch, p.seq, heads, cfg.HeadDim)
	x = t.do(func() (*G.Node, error) { return G.Transpose(x, 0, 2, 1, 3) })
	return t.reshape(x, p.batch*units, heads/units*p.seq, cfg.HeadDim)
}

func (t *plain) attention(layer int, x *G.Node, aq, ak, av affine, _ *G.Node) *G.Node {
	cfg, p := t.m.cfg, t.p
	q, k, v := t.linear(x, aq), t.linear(x, ak), t.linear(x, av)
	q = t.split(q, cfg.Heads, cfg.KVHeads, 0)
	k = t.split(k, cfg.KVHeads, cfg.KVHeads, 1)
	rope := t.rope
	t.rope = nil // values are not rotated
	v = t.split(v, cfg.KVHeads, cfg.KVHeads, 1)
	t.rope = rope
	t.kv[layer] = [2]*G.Node{k, v}

	var o *G.Node
	if t.past != nil {
		o = t.past.attend(t, layer, q, k, v)
	} else {
		o = t.batched(t.weights(t.add(t.scores(q, k), t.mask)), v, false)
	}
	o = t.reshape(o, p.batch, cfg.Heads, p.seq, cfg.HeadDim)
	o = t.do(func() (*G.Node, error) { return G.Transpose(o, 0, 2, 1, 3) })
	return t.reshape(o, p.rows(), cfg.Heads*cfg.HeadDim)
}

func (t *plain) scores(q, k *G.Node) *G.Node {
	cfg := t.m.cfg
	scale := 1 / math.Sqrt(float64(cfg.HeadDim))
	s := t.batched(q, k, true)
	if cfg.Softcap == 0 {
		return t.mul(s, t.scalar(scale))
	}
	return t.mul(t.unary(G.Tanh, t.mul(s, t.scalar(scale/cfg.Softcap))), t.scalar(cfg.Softcap))
}

func (t *plain) weights(scores *G.Node) *G.Node {
	return t.do(func() (*G.Node, error) { return G.SoftMax(scores, 2) })
}

func (t *plain) last(x *G.Node) *G.Node {
	p := t.p
	x = t.reshape(x, p.batch, p.seq, t.m.cfg.Dim)
	x = t.do(func() (*G.Node, error) { return G.Slice(x, nil, G.S(p.seq-1)) })
	return t.reshape(x, p.batch, t.m.cfg.Dim)
}

// head is x·tableᵀ; the batched product takes the transposition as a flag and copies nothing.
func (t *plain) head(x *G.Node, table matrix) *G.Node {
	rows := t.p.rows()
	if t.p.last {
		rows = t.p.batch
	}
	x = t.reshape(x, 1, rows, t.m.cfg.Dim)
	w := t.reshape(table.full, 1, t.m.cfg.Vocab, t.m.cfg.Dim)
	return t.reshape(t.batched(x, w, true), rows, t.m.cfg.Vocab)
}

func (t *plain) loss(logits *G.Node) *G.Node {
	logp := t.do(func() (*G.Node, error) { return G.LogSoftMax(logits, 1) })
	flat := t.reshape(logp, t.p.rows()*t.m.cfg.Vocab, 1) // of a vector, ByIndices' gradient is wrong
	picked := t.do(func() (*G.Node, error) { return G.ByIndices(flat, t.targets, 0) })
	mean := t.do(func() (*G.Node, error) { return G.Mean(picked) })
	return t.unary(G.Neg, mean)
}

func (t *plain) let(in feed) error {
	cfg, p := t.m.cfg, t.p
	set := func(n *G.Node, ids []int) error {
		return G.Let(n, dense(ids, []int{len(ids)}))
	}
	if err := set(t.tokens, append([]int(nil), in.tokens...)); err != nil {
		return err
	}
	if t.positions != nil {
		ids := make([]int, p.rows())
		for i := range ids {
			ids[i] = in.pos + i%p.seq
		}
		if err := set(t.positions, ids); err != nil {
			return err
		}
	}
	if t.targets != nil {
		ids := make([]int, p.rows())
		for i, id := range in.targets {
			ids[i] = i*cfg.Vocab + id
		}
		if err := set(t.targets, ids); err != nil {
			return err
		}
	}
	if t.rope == nil {
		return nil
	}
	for i, heads := range []int{cfg.Heads, cfg.KVHeads} {
		cosine, sine := t.rope.rows(in.pos, p.batch, p.seq, heads)
		if err := G.Let(t.cosine[i], t.value(cosine, p.rows()*heads, cfg.HeadDim)); err != nil {
			return err
		}
		if err := G.Let(t.sine[i], t.value(sine, p.rows()*heads, cfg.HeadDim)); err != nil {
			return err
		}
	}
	return nil
}
