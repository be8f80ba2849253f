package kvcompress_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

const (
	batch, heads, kvHeads, dim, valueDim = 2, 4, 2, 5, 3
)

// sequence is q, k and v of n tokens in the layout of a graph, for every batch element.
type sequence struct {
	n       int
	q, k, v []float32
}

func newSequence(n int) sequence {
	return sequence{
		n: n,
		q: optest.Normal[float32](1, batch*n*heads*dim, 1),
		k: optest.Normal[float32](2, batch*n*kvHeads*dim, 1),
		v: optest.Normal[float32](3, batch*n*kvHeads*valueDim, 1),
	}
}

// part is tokens [lo, hi) of every batch element of x, whose rows have width numbers.
func (s sequence) part(x []float32, lo, hi, width int) []float32 {
	var out []float32
	for b := range batch {
		out = append(out, x[(b*s.n+lo)*width:(b*s.n+hi)*width]...)
	}
	return out
}

// whole is flashattn over the whole sequence at once.
func (s sequence) whole(t testing.TB, cfg flashattn.Config, sinks []float32) []float32 {
	out := make([]float32, batch*s.n*heads*valueDim)
	cfg.Causal = true
	require.NoError(t, flashattn.Forward(
		flashattn.Contiguous(out, batch, s.n, heads, valueDim),
		flashattn.Contiguous(s.q, batch, s.n, heads, dim),
		flashattn.Contiguous(s.k, batch, s.n, kvHeads, dim),
		flashattn.Contiguous(s.v, batch, s.n, kvHeads, valueDim),
		cfg, flashattn.Operands[float32]{Sinks: sinks}))
	return out
}

func newCache(t testing.TB, capacity int) *kvcompress.Plain {
	c, err := kvcompress.NewPlain(kvcompress.Shape{Batch: batch, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, Capacity: capacity})
	require.NoError(t, err)
	return c
}

// node is a graph with one Attend of seq tokens.
type node struct {
	q, k, v, pos, out *G.Node
	vm                G.VM
	seq               int
}

func newNode(t testing.TB, seq int, c kvcompress.Cache, cfg flashattn.Config, sinks []float32) *node {
	g := G.NewGraph()
	input := func(name string, heads, dim int) *G.Node {
		return G.NewTensor(g, tensor.Float32, 4, G.WithName(name), G.WithShape(batch, seq, heads, dim))
	}
	n := &node{q: input("q", heads, dim), k: input("k", kvHeads, dim), v: input("v", kvHeads, valueDim), seq: seq}
	n.pos = G.NewScalar(g, tensor.Int, G.WithName("pos"))
	if sinks != nil {
		cfg.Sinks = G.NewVector(g, tensor.Float32, G.WithName("sinks"), G.WithValue(tensor.New(tensor.WithShape(heads), tensor.WithBacking(sinks))))
	}
	var err error
	n.out, err = kvcompress.Attend(n.q, n.k, n.v, n.pos, c, cfg)
	require.NoError(t, err)
	n.vm = G.NewTapeMachine(g)
	return n
}

func (n *node) run(t testing.TB, s sequence, lo, pos int) ([]float32, error) {
	let := func(node *G.Node, x []float32) {
		require.NoError(t, G.Let(node, tensor.New(tensor.WithShape(node.Shape()...), tensor.WithBacking(x))))
	}
	let(n.q, s.part(s.q, lo, lo+n.seq, heads*dim))
	let(n.k, s.part(s.k, lo, lo+n.seq, kvHeads*dim))
	let(n.v, s.part(s.v, lo, lo+n.seq, kvHeads*valueDim))
	require.NoError(t, G.Let(n.pos, pos))
	defer n.vm.Reset()
	if err := n.vm.RunAll(); err != nil {
		return nil, err
	}
	return n.out.Value().Data().([]float32), nil
}

func TestAttendInPiecesEqualsTheWhole(t *testing.T) {
	const total = 70
	s := newSequence(total)
	sinks := []float32{0.5, -1, 2, 0}
	for name, cfg := range map[string]flashattn.Config{
		"plain":   {},
		"window":  {Window: flashattn.Sliding(9)},
		"softcap": {Softcap: 1.5, Scale: 0.7},
		"alibi":   {ALiBi: true},
		"sinks":   {},
	} {
		t.Run(name, func(t *testing.T) {
			var sk []float32
			if name == "sinks" {
				sk = sinks
			}
			want := s.whole(t, cfg, sk)
			c := newCache(t, total)
			one := newNode(t, 1, c, cfg, sk)
			defer one.vm.Close()
			for at := 0; at < total; {
				n := one
				if at == 0 || at == 40 { // a prefill, and a longer piece on top of what is cached
					n = newNode(t, 17, c, cfg, sk)
					defer n.vm.Close()
				}
				got, err := n.run(t, s, at, at)
				require.NoError(t, err)
				w := s.part(want, at, at+n.seq, heads*valueDim)
				optest.Close(t, fmt.Sprint("tokens from ", at), got, optest.Float64s(w), 2e-6)
				at += n.seq
				require.Equal(t, at, c.Len())
			}
		})
	}
}

func TestAttendFailsWhole(t *testing.T) {
	s := newSequence(6)
	c := newCache(t, 5)
	three, one := newNode(t, 3, c, flashattn.Config{}, nil), newNode(t, 1, c, flashattn.Config{}, nil)
	defer three.vm.Close()
	defer one.vm.Close()
	_, err := three.run(t, s, 0, 1)
	require.ErrorContains(t, err, "pos: got 1, want 0, the number of tokens cached")
	require.Zero(t, c.Len())
	_, err = three.run(t, s, 0, 0)
	require.NoError(t, err)
	_, err = three.run(t, s, 3, 3)
	require.ErrorContains(t, err, "got 3 tokens on top of 3, want at most 5 in all")
	require.Equal(t, 3, c.Len())
	got, err := one.run(t, s, 3, 3)
	require.NoError(t, err)
	optest.Close(t, "after errors", got, optest.Float64s(s.part(s.whole(t, flashattn.Config{}, nil), 3, 4, heads*valueDim)), 2e-6)
}

func TestPlainCache(t *testing.T) {
	s := newSequence(4)
	c := newCache(t, 6)
	require.Equal(t, int64(4*batch*kvHeads*6*(dim+valueDim)), c.Bytes())
	require.Equal(t, 6, c.Shape().Capacity)
	require.NoError(t, c.Append(s.k, s.v, 4))
	require.ErrorContains(t, c.Append(s.k, s.v, 3), "got 3 tokens on top of 4, want at most 6 in all")
	require.ErrorContains(t, c.Append(s.k, s.v, 2), "k: got 80 elements, want 40")
	require.ErrorContains(t, c.Append(s.k[:40], s.v, 2), "v: got 48 elements, want 24")
	require.ErrorContains(t, c.Append(nil, nil, 0), "got 0 tokens")
	require.Equal(t, 4, c.Len())
	require.ErrorContains(t, c.Truncate(5), "got 5 tokens, want 0 to 4")
	require.ErrorContains(t, c.Truncate(-1), "got -1")
	require.NoError(t, c.Truncate(3))
	require.Equal(t, 3, c.Len())

	out := make([]float32, batch*heads*valueDim)
	q := make([]float32, batch*heads*dim)
	for want, err := range map[string]error{
		"got queries of 4 tokens, want 1 to 3": c.Attend(out, q, 4, heads, flashattn.Config{}, nil),
		"got 3 heads, want a multiple of 2":    c.Attend(out, q, 1, 3, flashattn.Config{}, nil),
		"q: got 40 elements, want 80":          c.Attend(out, q, 2, heads, flashattn.Config{}, nil),
		"out: got 1 elements, want 24":         c.Attend(out[:1], q, 1, heads, flashattn.Config{}, nil),
		"sinks: got 1 elements, want 4":        c.Attend(out, q, 1, heads, flashattn.Config{}, q[:1]),
	} {
		require.ErrorContains(t, err, want)
	}
	require.NoError(t, c.Attend(out, q, 1, heads, flashattn.Config{}, nil))
	c.Reset()
	require.Zero(t, c.Len())

	for want, shape := range map[string]kvcompress.Shape{
		"Shape.Batch: got 0":     {},
		"Shape.KVHeads: got -1":  {Batch: 1, KVHeads: -1},
		"Shape.HeadDim: got 0":   {Batch: 1, KVHeads: 1},
		"Shape.ValueDim: got -1": {Batch: 1, KVHeads: 1, HeadDim: 1, ValueDim: -1},
		"Shape.Capacity: got 0":  {Batch: 1, KVHeads: 1, HeadDim: 1},
	} {
		_, err := kvcompress.NewPlain(shape)
		require.ErrorContains(t, err, want)
	}
}

func TestAttendErrors(t *testing.T) {
	g := G.NewGraph()
	f32 := func(name string, shape ...int) *G.Node {
		return G.NewTensor(g, tensor.Float32, len(shape), G.WithName(name), G.WithShape(shape...))
	}
	q, k, v := f32("q", batch, 1, heads, dim), f32("k", batch, 1, kvHeads, dim), f32("v", batch, 1, kvHeads, valueDim)
	pos := G.NewScalar(g, tensor.Int, G.WithName("pos"))
	c := newCache(t, 3)
	type args struct {
		q, k, v, pos *G.Node
		cache        kvcompress.Cache
		cfg          flashattn.Config
	}
	for want, change := range map[string]func(*args){
		"cache: got nil":               func(a *args) { a.cache = nil },
		"cache: got nil, want a Cache": func(a *args) { a.cache = (*kvcompress.Plain)(nil) },
		"q: got a nil node":            func(a *args) { a.q = nil },
		"nodes of two graphs": func(a *args) {
			a.k = G.NewTensor(G.NewGraph(), tensor.Float32, 4, G.WithName("k"), G.WithShape(k.Shape()...))
		},
		"q: got dtype float64, want float32": func(a *args) { a.q = G.NewTensor(g, tensor.Float64, 4, G.WithName("d"), G.WithShape(q.Shape()...)) },
		"pos: got dtype float32":             func(a *args) { a.pos = f32("p") },
		"pos: got shape (3), want (2)":       func(a *args) { a.pos = G.NewVector(g, tensor.Int, G.WithName("ps"), G.WithShape(3)) },
		"q: got shape (2, 4, 5) of rank 3":   func(a *args) { a.q = f32("q3", batch, heads, dim) },
		"got 4 tokens, want 1 to the cap":    func(a *args) { a.q = f32("q4", batch, 4, heads, dim) },
		"got 3 heads, want a multiple of 2":  func(a *args) { a.q = f32("h3", batch, 1, 3, dim) },
		"k: got shape (2, 2, 2, 5), want":    func(a *args) { a.k = f32("k2", batch, 2, kvHeads, dim) },
		"v: got shape (2, 1, 2, 5), want":    func(a *args) { a.v = k },
		"Config.Dropout: got 0.5, want 0":    func(a *args) { a.cfg.Dropout = 0.5 },
		"Config.Bias: got a node":            func(a *args) { a.cfg.Bias = q },
		"Config.Step: got a node":            func(a *args) { a.cfg.Step = pos },
		"Config.CuSeqlensQ and":              func(a *args) { a.cfg.CuSeqlensQ = pos },
		"Config.Sinks: got shape (5), want":  func(a *args) { a.cfg.Sinks = f32("s", 5) },
	} {
		a := args{q, k, v, pos, c, flashattn.Config{}}
		change(&a)
		_, err := kvcompress.Attend(a.q, a.k, a.v, a.pos, a.cache, a.cfg)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "kvcompress.Attend: ")
	}
	a, err := kvcompress.Attend(q, k, v, pos, c, flashattn.Config{})
	require.NoError(t, err)
	b, err := kvcompress.Attend(q, k, v, pos, c, flashattn.Config{})
	require.NoError(t, err)
	require.NotEqual(t, a.Hashcode(), b.Hashcode(), "each node appends")
}

// TestAllocs: a warm step allocates a number of objects that does not grow with what is cached.
// Sizes whose product wraps around made an empty cache that took its first tokens for room.
func TestShapeThatOverflowsIsRefused(t *testing.T) {
	for _, s := range []kvcompress.Shape{
		{Batch: 1, KVHeads: 64, HeadDim: 64, Capacity: 1 << 60},
		{Batch: 1 << 31, KVHeads: 1 << 31, HeadDim: 1, ValueDim: 8, Capacity: 1},
		{Batch: 1, KVHeads: 1, HeadDim: 1, Capacity: math.MaxInt},
	} {
		_, err := kvcompress.NewPlain(s)
		require.ErrorContains(t, err, "kvcompress: Shape: got ")
	}
	c := newCache(t, 4)
	shape := c.Shape()
	k := make([]float32, shape.Batch*shape.KVHeads*shape.HeadDim)
	v := make([]float32, shape.Batch*shape.KVHeads*shape.ValueDim)
	require.NoError(t, c.Append(k, v, 1))
	require.ErrorContains(t, c.Append(k, v, math.MaxInt), "want at most 4 in all")
}

func TestAllocs(t *testing.T) {
	allocs := func(filled int) float64 {
		s := newSequence(filled + 1)
		c := newCache(t, filled+1)
		if filled > 0 {
			p := newNode(t, filled, c, flashattn.Config{}, nil)
			_, err := p.run(t, s, 0, 0)
			require.NoError(t, err)
		}
		n := newNode(t, 1, c, flashattn.Config{}, nil)
		step := func() {
			_, err := n.run(t, s, filled, filled)
			require.NoError(t, err)
			require.NoError(t, c.Truncate(filled))
		}
		step()
		return testing.AllocsPerRun(20, step)
	}
	require.InDelta(t, allocs(1), allocs(700), 8)
}

func ExampleAttend() {
	cache, _ := kvcompress.NewPlain(kvcompress.Shape{Batch: 1, KVHeads: 1, HeadDim: 2, Capacity: 8})
	g := G.NewGraph()
	q := G.NewTensor(g, tensor.Float32, 4, G.WithName("q"), G.WithShape(1, 1, 1, 2))
	k := G.NewTensor(g, tensor.Float32, 4, G.WithName("k"), G.WithShape(1, 1, 1, 2))
	v := G.NewTensor(g, tensor.Float32, 4, G.WithName("v"), G.WithShape(1, 1, 1, 2))
	pos := G.NewScalar(g, tensor.Int, G.WithName("pos"))
	out, err := kvcompress.Attend(q, k, v, pos, cache, flashattn.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	for i := range 3 {
		let := func(n *G.Node, x ...float32) {
			G.Let(n, tensor.New(tensor.WithShape(1, 1, 1, 2), tensor.WithBacking(x)))
		}
		let(q, 0, 0) // all keys are alike to it: the output is the mean of the values
		let(k, 1, 0)
		let(v, float32(i), 6)
		G.Let(pos, i)
		if err := vm.RunAll(); err != nil {
			fmt.Println(err)
		}
		fmt.Println(cache.Len(), out.Value().Data())
		vm.Reset()
	}
	// Output:
	// 1 [0 6]
	// 2 [0.5 6]
	// 3 [1 6]
}

// Prompts of different lengths in one graph, then token after token at positions of their own.
func TestAttendSomeNode(t *testing.T) {
	for name, cfg := range map[string]kvcompress.Config{"plain": {}, "int8": {Ratio: 4, Recent: 16, GroupSize: 16}} {
		shape := kvcompress.Shape{Batch: batch, KVHeads: kvHeads, HeadDim: dim, ValueDim: valueDim, Capacity: 60}
		cache, err := kvcompress.New(shape, cfg)
		require.NoError(t, err)
		want, err := kvcompress.New(shape, cfg)
		require.NoError(t, err)
		s := newSequence(50)
		run := func(seq int, counts, pos []int) ([]float32, error) {
			g := G.NewGraph()
			input := func(name string, x []float32, heads, dim int) *G.Node {
				v := tensor.New(tensor.WithShape(batch, seq, heads, dim), tensor.WithBacking(x))
				return G.NewTensor(g, tensor.Float32, 4, G.WithName(name), G.WithShape(v.Shape()...), G.WithValue(v))
			}
			ints := func(name string, x []int) *G.Node {
				return G.NewVector(g, tensor.Int, G.WithName(name), G.WithShape(len(x)), G.WithValue(tensor.New(tensor.WithShape(len(x)), tensor.WithBacking(x))))
			}
			out, err := kvcompress.AttendSome(input("q", s.part(s.q, 0, seq, heads*dim), heads, dim), input("k", s.part(s.k, 0, seq, kvHeads*dim), kvHeads, dim),
				input("v", s.part(s.v, 0, seq, kvHeads*valueDim), kvHeads, valueDim), ints("pos", pos), ints("counts", counts), cache, flashattn.Config{})
			require.NoError(t, err)
			vm := G.NewTapeMachine(g)
			defer vm.Close()
			if err := vm.RunAll(); err != nil {
				return nil, err
			}
			return out.Value().Data().([]float32), nil
		}
		for _, step := range []struct {
			seq         int
			counts, pos []int
		}{{40, []int{40, 13}, []int{0, 0}}, {1, []int{1, 1}, []int{40, 13}}, {1, []int{0, 1}, []int{41, 14}}} {
			got, err := run(step.seq, step.counts, step.pos)
			require.NoError(t, err, name)
			r := want.(kvcompress.Ragged)
			out := make([]float32, len(got))
			require.NoError(t, r.AppendSome(s.part(s.k, 0, step.seq, kvHeads*dim), s.part(s.v, 0, step.seq, kvHeads*valueDim), step.seq, step.counts))
			require.NoError(t, r.AttendSome(out, s.part(s.q, 0, step.seq, heads*dim), step.seq, heads, step.counts, flashattn.Config{}, nil))
			require.Equal(t, out, got, name)
		}
		for want, bad := range map[string][2][]int{
			"pos: got 14, want 15, the number of tokens cached": {{1, 1}, {41, 14}},
			"counts: got 2 for sequence 0, want 0 to 1":         {{2, 1}, {41, 15}},
		} {
			_, err := run(1, bad[0], bad[1])
			require.ErrorContains(t, err, want)
			r := cache.(kvcompress.Ragged)
			require.Equal(t, []int{41, 15}, []int{r.LenOf(0), r.LenOf(1)})
		}
	}
}

func ExampleCompress() {
	const tokens, heads, dim = 1000, 2, 64
	x := make([]float32, tokens*heads*dim)
	for i := range x {
		x[i] = float32(i%17) - 8
	}
	shape := kvcompress.Shape{Batch: 1, KVHeads: heads, HeadDim: dim}
	c, err := kvcompress.Compress(x, x, tokens, shape, kvcompress.Config{Ratio: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	k, _ := c.Decompress()
	worst := 0.0
	for i := range k {
		worst = math.Max(worst, math.Abs(float64(k[i]-x[i])))
	}
	s, _ := kvcompress.MemorySavings(4096, kvcompress.Shape{Batch: 1, KVHeads: heads, HeadDim: dim}, c.Config())
	fmt.Printf("%d tokens, off by %.3f at most; at 4096 tokens %.1f times smaller\n", c.Len(), worst, s.Ratio)
	// Output:
	// 1000 tokens, off by 0.028 at most; at 4096 tokens 3.6 times smaller
}
