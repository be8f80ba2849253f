package main

import (
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/ops"
	"stheno/ops/flashattn"
	"stheno/ops/grounding"
)

const (
	hidden = 256
	width  = 128 // dimension of the space in which words and patches meet
	heads  = 4
	heat   = 0.1
)

// model is the graph for a batch of scenes with as many phrases each. In go what patches see and the numbers of the words;
// out come logits (scenes, phrases·longest, patches), one for each word and patch.
//
//	patches   a network sees 40 × 40 pixels around each; then they attend to each other
//	words     attend to each other within their phrase, and look at the patches a first time: what a word finds there, and
//	          where, is pooled; then they attend to each other again, so that "left of" can know where the landmark is,
//	          and look a last time
//
// first are the logits of the first look, which are taught as well.
type model struct {
	sight, ids    *G.Node // (scenes, patches, features) floats and (scenes·phrases, longest) numbers
	mask          *G.Node // (scenes, phrases·longest): 0 for padding
	first, logits *G.Node
	params        G.Nodes
}

// builder makes nodes until the first error.
type builder struct {
	g     *G.ExprGraph
	p     map[string]*G.Node
	zeros *G.Node // a number for each word, all the same
	err   error
}

func (b *builder) do(f func() (*G.Node, error)) *G.Node {
	if b.err != nil {
		return nil
	}
	var n *G.Node
	n, b.err = f()
	return n
}

func (b *builder) linear(name string, x *G.Node, act ops.Activation) *G.Node {
	cfg := ops.LinearConfig{Activation: act, NoInputGrad: x != nil && x.IsVar()}
	return b.do(func() (*G.Node, error) { return ops.Linear(x, b.p[name+".w"], b.p[name+".b"], cfg) })
}

func (b *builder) norm(name string, x *G.Node) *G.Node {
	return b.do(func() (*G.Node, error) {
		return ops.LayerNorm(x, b.p[name+".gamma"], b.p[name+".beta"], ops.LayerNormConfig{})
	})
}

func (b *builder) add(x, y *G.Node) *G.Node {
	return b.do(func() (*G.Node, error) { return ops.Add(x, y) })
}

func (b *builder) reshape(x *G.Node, shape ...int) *G.Node {
	return b.do(func() (*G.Node, error) { return ops.Reshape(x, shape...) })
}

// numbers is an input of integers that are always the same: 0, 1, … n−1 in each row.
func (b *builder) numbers(name string, rows, n int) *G.Node {
	data := make([]int, rows*n)
	for i := range data {
		data[i] = i % n
	}
	v := tensor.New(tensor.WithShape(rows, n), tensor.WithBacking(data))
	return G.NewMatrix(b.g, tensor.Int, G.WithName(name), G.WithShape(rows, n), G.WithValue(v))
}

func (b *builder) lookUp(table string, ids *G.Node) *G.Node {
	return b.do(func() (*G.Node, error) { return ops.Embedding(b.p[table], ids, ops.EmbeddingConfig{}) })
}

// block is a layer of a transformer: rows (batch, n, width) attend to each other, then each is changed by itself.
func (b *builder) block(name string, x *G.Node, batch, n int) *G.Node {
	y := b.norm(name+".norm1", x)
	part := func(weight string) []*G.Node {
		return []*G.Node{b.p[name+".q"+weight], b.p[name+".k"+weight], b.p[name+".v"+weight]}
	}
	qkv := b.do(func() (*G.Node, error) { return ops.Linears(y, part(".w"), part(".b"), ops.LinearsConfig{}) })
	size := ops.QKV{Batch: batch, Seq: n, Heads: heads, KVHeads: heads, HeadDim: width / heads}
	y = b.do(func() (*G.Node, error) { return flashattn.AttendQKV(qkv, size, flashattn.Config{}) })
	x = b.add(x, b.linear(name+".out", y, ops.ActNone))
	y = b.linear(name+".up", b.norm(name+".norm2", x), ops.ActGELU)
	return b.add(x, b.linear(name+".down", y, ops.ActNone))
}

// look scores words against patches; each patch has a bias of its own.
func (b *builder) look(name string, tokens, patches *G.Node, cfg grounding.Config) *G.Node {
	s := b.do(func() (*G.Node, error) { return grounding.Ground(tokens, patches, b.p[name+".w"], cfg) })
	return b.add(s, b.lookUp(name+".bias", b.zeros))
}

func newModel(w weights, scenes, phrases int) (*model, error) {
	b := &builder{g: G.NewGraph(), p: map[string]*G.Node{}}
	n := phrases * longest
	m := &model{
		sight: G.NewTensor(b.g, tensor.Float32, 3, G.WithShape(scenes, patches, features), G.WithName("sight")),
		ids:   G.NewMatrix(b.g, tensor.Int, G.WithShape(scenes*phrases, longest), G.WithName("ids")),
		mask:  G.NewMatrix(b.g, tensor.Int, G.WithShape(scenes, n), G.WithName("mask")),
	}
	for _, s := range specs {
		b.p[s.name] = G.NewTensor(b.g, tensor.Float32, len(s.shape), G.WithShape(s.shape...), G.WithName(s.name), G.WithValue(w[s.name]))
		m.params = append(m.params, b.p[s.name])
	}
	b.zeros = G.NewMatrix(b.g, tensor.Int, G.WithName("zeros"), G.WithShape(scenes, n), G.WithValue(tensor.New(tensor.Of(tensor.Int), tensor.WithShape(scenes, n))))
	y := b.linear("mix", b.linear("see", m.sight, ops.ActGELU), ops.ActGELU)
	y = b.add(b.linear("vision", y, ops.ActNone), b.lookUp("places", b.numbers("patch", scenes, patches)))
	y = b.block("picture", y, scenes, patches)

	t := b.add(b.lookUp("words", m.ids), b.lookUp("order", b.numbers("place", scenes*phrases, longest)))
	t = b.reshape(b.block("caption", t, scenes*phrases, longest), scenes, n, width)
	cfg := grounding.Config{Temperature: heat, TokenMask: m.mask}
	m.first = b.look("first", t, y, cfg)
	seen := b.do(func() (*G.Node, error) { return grounding.Pool(t, y, b.p["first.w"], y, cfg) })
	t = b.reshape(b.add(t, b.linear("seen", seen, ops.ActNone)), scenes*phrases, longest, width)
	t = b.reshape(b.block("again", t, scenes*phrases, longest), scenes, n, width)
	m.logits = b.look("last", t, y, cfg)
	return m, b.err
}

// probabilities turns logits into values between 0 and 1.
func probabilities(logits []float32) []float64 {
	p := make([]float64, len(logits))
	for i, z := range logits {
		p[i] = 1 / (1 + math.Exp(-float64(z)))
	}
	return p
}
