package quantize_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops/quantize"
)

// TestEmbedding: rows are the very numbers that Dequantize gives, for every format, and ids out of range are errors.
func TestEmbedding(t *testing.T) {
	const vocab, dim = 37, 70
	for _, cfg := range configs() {
		cfg.Transposed = true
		p := pack(t, dense(optest.Normal[float32](1, vocab*dim, 1), vocab, dim), cfg)
		table := unpack(t, p)
		for _, shape := range []tensor.Shape{{2, 150}, {5}} {
			g := G.NewGraph()
			w, err := p.Nodes(g, "w")
			require.NoError(t, err)
			ids := G.NewTensor(g, tensor.Int, shape.Dims(), G.WithName("ids"), G.WithShape(shape...))
			y, err := quantize.Embedding(w, ids)
			require.NoError(t, err)
			require.True(t, y.Shape().Eq(append(shape.Clone(), dim)), "%v", y.Shape())
			want := []float32{}
			values := optest.Ints(3, shape.TotalSize(), vocab)
			for _, id := range values {
				want = append(want, table[id*dim:(id+1)*dim]...)
			}
			vm := G.NewTapeMachine(g)
			require.NoError(t, G.Let(ids, tensor.New(tensor.WithShape(shape...), tensor.WithBacking(values))))
			require.NoError(t, vm.RunAll())
			require.Equal(t, want, y.Value().Data(), "%v", cfg)
			vm.Reset()
			values[1] = vocab
			require.ErrorContains(t, vm.RunAll(), "quantize.Embedding: ids: got 37 at element 1, want 0 to 36")
			require.NoError(t, vm.Close())
		}
	}
}

func TestEmbeddingErrors(t *testing.T) {
	p := pack(t, dense(optest.Normal[float32](1, 6*8, 1), 6, 8), quantize.Config{Scheme: quantize.INT8, Transposed: true})
	g := G.NewGraph()
	w, err := p.Nodes(g, "w")
	require.NoError(t, err)
	ids := G.NewVector(g, tensor.Int, G.WithName("ids"), G.WithShape(3))
	for name, c := range map[string]struct {
		w    *quantize.Weights
		ids  *G.Node
		want string
	}{
		"no weights":    {nil, ids, "w: got nil"},
		"no ids":        {w, nil, "ids"},
		"floats":        {w, G.NewVector(g, G.Float32, G.WithName("x"), G.WithShape(3)), "ids"},
		"rank":          {w, G.NewTensor(g, tensor.Int, 3, G.WithName("t"), G.WithShape(1, 1, 3)), "rank"},
		"another graph": {w, G.NewVector(G.NewGraph(), tensor.Int, G.WithName("ids"), G.WithShape(3)), "graph"},
	} {
		_, err := quantize.Embedding(c.w, c.ids)
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, "quantize.Embedding: ", name)
	}
	other := pack(t, dense(optest.Normal[float32](1, 6*8, 1), 8, 6), quantize.Config{Scheme: quantize.INT8})
	v, err := other.Nodes(g, "w")
	require.NoError(t, err)
	a, err := quantize.Embedding(w, ids)
	require.NoError(t, err)
	b, err := quantize.Embedding(v, ids)
	require.NoError(t, err)
	require.NotEqual(t, a.Hashcode(), b.Hashcode(), "a transposed matrix is another one")
}

func TestCheck(t *testing.T) {
	for _, cfg := range configs() {
		fresh := func() *quantize.Packed {
			return pack(t, dense(optest.Normal[float32](1, 70*20, 1), 70, 20), cfg)
		}
		require.NoError(t, fresh().Check(), "%v", cfg)
		broken := map[string]func(p *quantize.Packed){
			"In":     func(p *quantize.Packed) { p.In += 64 },
			"no In":  func(p *quantize.Packed) { p.In = 0 },
			"codes":  func(p *quantize.Packed) { p.Codes = nil },
			"dtype":  func(p *quantize.Packed) { p.Codes = dense(make([]float32, p.Codes.Size()), p.Codes.Shape()...) },
			"shape":  func(p *quantize.Packed) { p.Codes = flat(p.Codes) },
			"scheme": func(p *quantize.Packed) { p.Config.Scheme = 7 },
			"zeros":  func(p *quantize.Packed) { p.Config.Asymmetric = !p.Config.Asymmetric },
		}
		if cfg.Scheme.HasScales() {
			broken["scales"] = func(p *quantize.Packed) { p.Scales = nil }
			broken["a NaN"] = func(p *quantize.Packed) { nan := float32(0); p.Scales.Data().([]float32)[0] = nan / nan }
			broken["a scale of 0"] = func(p *quantize.Packed) { p.Scales.Data().([]float32)[0] = 0 }
		} else {
			broken["an infinity"] = func(p *quantize.Packed) { p.Codes.Data().([]uint16)[5] = 0x7f80 }
		}
		if cfg.Scheme == quantize.INT4 && cfg.Asymmetric {
			broken["a zero point"] = func(p *quantize.Packed) { p.Zeros.Data().([]uint8)[0] = 16 }
		}
		for name, breakIt := range broken {
			p := fresh()
			breakIt(p)
			require.ErrorContains(t, p.Check(), "quantize.Check: ", "%v: %s", cfg, name)
		}
	}
	require.Error(t, (*quantize.Packed)(nil).Check())
}

func flat(d *tensor.Dense) *tensor.Dense {
	return tensor.New(tensor.WithShape(d.Size()), tensor.WithBacking(d.Data()))
}
