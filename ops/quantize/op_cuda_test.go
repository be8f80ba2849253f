//go:build cuda

package quantize_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/ops"
	"stheno/ops/quantize"
)

// onCard runs the case's graph, forward and backward, on Gorgonia's machine with the node and its gradient on the card, and compares
// with Do and Backward. The two differ by roundings.
func (c matMulCase) onCard(t *testing.T, dt tensor.Dtype) {
	t.Run(fmt.Sprintf("%v/%v", c, dt), func(t *testing.T) {
		optest.Card(t)
		tol := 3e-6
		if dt == tensor.Float64 {
			tol = 1e-13
		}
		got, want := c.run(t, dt, c.build), c.byHand(t, dt)
		require.Len(t, got, len(want))
		for i := range want {
			optest.Close(t, fmt.Sprintf("value %d", i), got[i], want[i], tol*(1+largest(want[i])))
		}
		if dt == tensor.Float32 {
			c.checkViews(t, got)
		}
	})
}

// byHand calls the op's CPU methods: the value, then the gradients of Σ weights·y, as run gives them.
func (c matMulCase) byHand(t *testing.T, dt tensor.Dtype) [][]float64 {
	g := G.NewGraph()
	var in []*G.Node
	for _, i := range c.inputs {
		in = append(in, i.Node(g, dt))
	}
	y, err := c.build(in)
	require.NoError(t, err)
	_, onCard := y.Op().(G.CUDADoer)
	require.True(t, onCard, "%v is not on the card", y.Op())
	values := []G.Value{in[0].Value(), c.weights.Codes}
	if c.weights.Scales != nil {
		values = append(values, c.weights.Scales)
	}
	if c.weights.Zeros != nil {
		values = append(values, c.weights.Zeros)
	}
	if c.biased {
		values = append(values, in[1].Value())
	}
	if len(values) < y.Op().Arity() { // the side that is kept
		values = append(values, tensor.New(tensor.Of(dt), tensor.WithShape(y.Shape()...)))
	}
	out, err := y.Op().Do(values...)
	require.NoError(t, err)
	dIn := make([]*tensor.Dense, len(values))
	for i, want := range y.Op().(G.SDOp).DiffWRT(len(values)) {
		if want {
			dIn[i] = op.NewLike(values[i])
		}
	}
	weights := optest.Input{Name: "weights", Shape: y.Shape(), Data: optest.Normal[float64](99, y.Shape().TotalSize(), 1)}
	require.NoError(t, y.Op().(op.Backwarder).Backward(values, out, weights.Node(g, dt).Value(), dIn))
	results := [][]float64{optest.Values(t, out)}
	for _, d := range dIn {
		if d != nil {
			results = append(results, optest.Values(t, d))
		}
	}
	return results
}

func TestMatMulOnTheCard(t *testing.T) {
	var cases []matMulCase
	for i, weights := range configs() {
		act := ops.Activation(i % 5)
		cases = append(cases, newCase(t, weights, quantize.MatMulConfig{Activation: act}, i%2 == 0, 21, 5, 70),
			newCase(t, weights, quantize.MatMulConfig{}, true, 17, 1, 3, 33))
		if weights.Scheme.HasScales() {
			cases = append(cases, newCase(t, weights, quantize.MatMulConfig{Activation: act, Input: quantize.InputINT8}, i%2 == 1, 21, 1+4*(i%2), 70))
		}
	}
	static := quantize.MatMulConfig{Input: quantize.InputINT8, InputScale: 0.01}
	cases = append(cases, newCase(t, quantize.Config{Scheme: quantize.INT8}, static, true, 9, 2, 3, 40))
	for i, c := range cases {
		c.onCard(t, tensor.Float32)
		if i%3 == 0 {
			c.onCard(t, tensor.Float64)
		}
	}
}

// Rows of a quantized table on the card are those that Do gives, bit for bit, and ids out of range make NaN.
func TestEmbeddingOnTheCard(t *testing.T) {
	const vocab, dim = 37, 70
	for _, cfg := range []quantize.Config{{Scheme: quantize.BF16}, {Scheme: quantize.INT8}, {Scheme: quantize.INT4, Granularity: quantize.PerGroup, Asymmetric: true}} {
		optest.Card(t)
		cfg.Transposed = true
		p := pack(t, dense(optest.Normal[float32](1, vocab*dim, 1), vocab, dim), cfg)
		table := unpack(t, p)
		g := G.NewGraph()
		w, err := p.Nodes(g, "w")
		require.NoError(t, err)
		values := []int{3, 36, 0, 3, vocab, -1}
		ids := G.NewMatrix(g, tensor.Int, G.WithName("ids"), G.WithShape(2, 3), G.WithValue(tensor.New(tensor.WithShape(2, 3), tensor.WithBacking(values))))
		y, err := quantize.Embedding(w, ids)
		require.NoError(t, err)
		var got G.Value
		G.Read(y, &got)
		vm := G.NewTapeMachine(g)
		require.NoError(t, vm.RunAll())
		rows := got.Data().([]float32)
		for i, id := range values {
			if id < 0 || id >= vocab {
				require.NotEqual(t, rows[i*dim], rows[i*dim], "NaN")
				continue
			}
			require.Equal(t, table[id*dim:(id+1)*dim], rows[i*dim:(i+1)*dim])
		}
		require.NoError(t, vm.Close())
	}
}

// FakeQuantize on the card gives the bits that Do gives, and the gradients of Backward.
func TestFakeQuantizeOnTheCard(t *testing.T) {
	var cases []fakeCase
	shapes := [][]int{{70, 37}, {1, 1}, {33, 16}}
	for i, cfg := range configs() {
		cfg.Transposed = i%2 == 1
		fake := quantize.FakeQuantizeConfig{Weights: cfg}
		shape := shapes[i%len(shapes)]
		cases = append(cases, newFake(fake, nil, nil, shape...))
		if cfg.Scheme.HasScales() {
			fake.Clip = true
			cases = append(cases, newFake(fake, nil, nil, shape...))
		}
		if cfg.Scheme.HasScales() && !cfg.Asymmetric {
			fake.Clip = false
			p := pack(t, dense(optest.Normal[float32](1, shape[0]*shape[1], 1), shape...), cfg)
			scales := optest.Float64s(p.Scales.Data().([]float32))
			for i := range scales {
				scales[i] *= 0.6 // so that some numbers are clamped
			}
			cases = append(cases, newFake(fake, scales, p.Scales.Shape(), shape...))
		}
	}
	rows := quantize.FakeQuantizeConfig{Rows: true}
	cases = append(cases, newFake(rows, nil, nil, 2, 5, 33), newFake(rows, []float64{0.011}, []int{1}, 2, 5, 33))
	for i, c := range cases {
		for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
			t.Run(fmt.Sprintf("%d/%+v/%v", i, c.cfg, dt), func(t *testing.T) {
				optest.Card(t)
				g := G.NewGraph()
				var in []*G.Node
				var values []G.Value
				for _, i := range c.inputs {
					in = append(in, i.Node(g, dt))
					values = append(values, in[len(in)-1].Value())
				}
				y, err := c.build(in)
				require.NoError(t, err)
				_, onCard := y.Op().(G.CUDADoer)
				require.True(t, onCard, "%v is not on the card", y.Op())
				got, dOut := c.run(t, dt, "tape")
				want, err := y.Op().Do(values...)
				require.NoError(t, err)
				require.Equal(t, optest.Values(t, want), got[0])
				dIn := make([]*tensor.Dense, len(values))
				for i, v := range values {
					dIn[i] = op.NewLike(v)
				}
				weights := optest.Input{Name: "weights", Shape: y.Shape(), Data: dOut}
				require.NoError(t, y.Op().(op.Backwarder).Backward(values, want, weights.Node(g, dt).Value(), dIn))
				require.Equal(t, optest.Values(t, dIn[0]), got[1])
				if len(dIn) > 1 {
					optest.Close(t, "scales", got[2], optest.Values(t, dIn[1]), 1e-6*(1+largest(got[2])))
				}
			})
		}
	}
}

// Products of one input on the card, against those of nodes of their own there, and against Do.
func TestMatMulsOnTheCard(t *testing.T) {
	for i, c := range matMulsCases(t) {
		t.Run(c.String(), func(t *testing.T) {
			optest.Card(t)
			got, want := c.run(t, tensor.Float32)
			require.Equal(t, want, got)
			joint, _ := c.graph(t, tensor.Float32)
			_, onCard := joint.Op().(G.CUDADoer)
			require.True(t, onCard)
			if i%5 > 0 {
				return
			}
			values := []G.Value{c.x.Node(G.NewGraph(), tensor.Float32).Value()}
			for k, p := range c.weights {
				values = append(values, p.Codes)
				if p.Scales != nil {
					values = append(values, p.Scales)
				}
				if p.Zeros != nil {
					values = append(values, p.Zeros)
				}
				if c.biases != nil {
					values = append(values, c.biases[k].Node(G.NewGraph(), tensor.Float32).Value())
				}
			}
			byHand, err := joint.Op().Do(values...)
			require.NoError(t, err)
			exact := optest.Values(t, byHand)
			optest.Close(t, "Do", got, exact, 3e-6*(1+largest(exact)))
		})
	}
}
