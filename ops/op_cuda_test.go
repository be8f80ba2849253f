//go:build cuda

package ops_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/ops"
)

// onCard runs the case's graph, forward and backward, on Gorgonia's machine with the node and its gradient on the card, and compares
// with Do and Backward. The two differ by roundings.
func (c nodeCase) onCard(t *testing.T, dt tensor.Dtype) {
	t.Run(fmt.Sprintf("%s/%v", c.name, dt), func(t *testing.T) {
		optest.Card(t)
		got := c.run(t, dt, c.build)
		want := c.byHand(t, dt)
		require.Len(t, got, len(want))
		for i := range want {
			tol := 2e-6
			if dt == tensor.Float64 {
				tol = 1e-13
			}
			optest.Close(t, fmt.Sprintf("value %d", i), got[i], want[i], tol*(1+absMax(want[i])))
		}
		c.checkViews(t)
	})
}

// byHand calls the op's CPU methods: the value, then the gradients of Σ weights·y, as run gives them.
func (c nodeCase) byHand(t *testing.T, dt tensor.Dtype) [][]float64 {
	g := G.NewGraph()
	var in []*G.Node
	var values []G.Value
	for _, i := range c.inputs {
		n := i.Node(g, dt)
		in, values = append(in, n), append(values, n.Value())
	}
	y, err := c.build(in)
	require.NoError(t, err)
	_, onCard := y.Op().(G.CUDADoer)
	require.True(t, onCard, "%v is not on the card", y.Op())
	for len(values) < y.Op().Arity() {
		values = append(values, tensor.New(tensor.Of(dt), tensor.WithShape(y.Shape()...))) // the side that Linear keeps
	}
	out, err := y.Op().Do(values...)
	require.NoError(t, err)
	weights := optest.Input{Name: "weights", Shape: y.Shape(), Data: optest.Normal[float64](99, y.Shape().TotalSize(), 1)}
	dIn := make([]*tensor.Dense, len(values))
	for i, want := range y.Op().(G.SDOp).DiffWRT(len(values)) {
		if want {
			dIn[i] = op.NewLike(values[i])
		}
	}
	require.NoError(t, y.Op().(op.Backwarder).Backward(values, out, weights.Node(g, dt).Value(), dIn))
	results := [][]float64{optest.Values(t, out)}
	for i, d := range dIn {
		if d != nil && i < len(c.inputs) && !c.inputs[i].Const {
			results = append(results, optest.Values(t, d))
		}
	}
	return results
}

func TestNodesOnTheCard(t *testing.T) {
	var cases []nodeCase
	for _, shape := range [][]int{{2, 1}, {5, 8}, {2, 3, 59}, {70, 129}} {
		cases = append(cases, rmsNormCase(true, 0, shape...), rmsNormCase(false, 0.1, shape...))
	}
	for _, a := range []ops.Activation{ops.ActReLU, ops.ActGELU, ops.ActGELUTanh, ops.ActSiLU} {
		cases = append(cases, activationCase(a, 3, 97), activationCase(a, 1, 1))
	}
	for _, shape := range [][]int{{3, 97}, {2, 1}, {2, 3, 11}} {
		cases = append(cases, swiGLUCase(shape...), addCase(shape...),
			layerNormCase(true, true, 0, shape...), layerNormCase(true, false, 0.1, shape...), layerNormCase(false, true, 0, shape...),
			layerNormCase(false, false, 0, shape...))
	}
	for _, a := range []ops.Activation{ops.ActNone, ops.ActReLU, ops.ActGELU, ops.ActSiLU} {
		cases = append(cases, linearCase(ops.LinearConfig{Activation: a}, true, 7, 2, 5, 11),
			linearCase(ops.LinearConfig{Activation: a, TransposeWeight: true}, false, 66, 70, 3),
			linearCase(ops.LinearConfig{Input: a, Activation: ops.ActReLU}, true, 7, 5, 11))
		data := linearCase(ops.LinearConfig{Activation: a, NoInputGrad: true}, true, 7, 5, 11)
		data.inputs[0].Const = true
		cases = append(cases, data)
	}
	for _, interleaved := range []bool{false, true} {
		cfg := ops.RoPEConfig{Interleaved: interleaved}
		cases = append(cases, ropeCase(cfg, []int{3}, 2, 5, 3, 8), ropeCase(cfg, []int{0, 70000}, 2, 3, 2, 6))
		cfg.Dim = 4
		cases = append(cases, ropeCase(cfg, []int{7}, 1, 4, 2, 11), ropeQKVCase(ops.QKV{2, 3, 4, 2, 6}, cfg, 5))
	}
	for _, biased := range []bool{false, true} {
		cases = append(cases, linearsCase(biased, []int{66, 7, 7}, 2, 35, 11), linearsCase(biased, []int{8, 4}, 1, 5))
	}
	cases = append(cases, reshapeCase([]int{2, 3, 5}, 6, 5), dropoutCase(0.3, 5, 30), dropoutCase(0.9, 3, 7, 11))
	for _, c := range cases {
		c.onCard(t, tensor.Float32)
		c.onCard(t, tensor.Float64)
	}
}

// The loss and its gradient on the card, against Do and Backward.
func TestCrossEntropyOnTheCard(t *testing.T) {
	optest.Card(t)
	targets := optest.Input{Name: "targets", Shape: []int{2, 3}, Ints: []int{4, 0, 58, -1, 7, 7}}
	logits := optest.Seeded("logits", 1, 2, 3, 59)
	for _, cfg := range []ops.CrossEntropyConfig{
		{Ignore: true, IgnoreIndex: -1},
		{Ignore: true, IgnoreIndex: -1, LabelSmoothing: 0.1, ZLoss: 1e-2, Reduction: ops.ReduceSum},
	} {
		for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
			g := G.NewGraph()
			z, tg := logits.Node(g, dt), targets.Node(g, dt)
			values := []G.Value{z.Value(), tg.Value(), tensor.New(tensor.Of(dt), tensor.WithShape(6, 2))}
			loss, err := ops.CrossEntropy(z, tg, cfg)
			require.NoError(t, err)
			grads, err := G.Grad(loss, z)
			require.NoError(t, err)
			want, err := loss.Op().Do(values...)
			require.NoError(t, err)
			d := op.NewLike(z.Value())
			var one G.Value = G.NewF32(1)
			tol := 2e-6
			if dt == tensor.Float64 {
				one, tol = G.NewF64(1), 1e-13
			}
			require.NoError(t, loss.Op().(op.Backwarder).Backward(values, want, one, []*tensor.Dense{d, nil, nil}))
			var gotLoss, gotGrad G.Value
			G.Read(loss, &gotLoss)
			G.Read(grads[0], &gotGrad)
			vm := G.NewTapeMachine(g)
			require.NoError(t, vm.RunAll())
			optest.Close(t, "loss", optest.Values(t, gotLoss), optest.Values(t, want), 20*tol)
			optest.Close(t, "gradient", optest.Values(t, gotGrad), optest.Values(t, d), tol)
			require.NoError(t, vm.Close())
		}
	}
}

// More operations than the sixty that gorgonia.org/cu's queue takes.
func TestLongChainsOnTheCard(t *testing.T) {
	optest.Card(t)
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 3, 8).Node(g, tensor.Float32)
	y := x
	for range 100 {
		var err error
		y, err = ops.RMSNorm(y, nil, ops.RMSNormConfig{})
		require.NoError(t, err)
		y, err = ops.Add(y, x)
		require.NoError(t, err)
	}
	var got G.Value
	G.Read(y, &got)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	var first []float64
	for range 3 {
		require.NoError(t, vm.RunAll())
		if first == nil {
			first = optest.Values(t, got)
		}
		require.Equal(t, first, optest.Values(t, got))
		vm.Reset()
	}
}

// Rows of a table and the gradient of their weighted sum on the card: sums in the order of the ids, so that they have the bits of Do's.
func TestEmbeddingOnTheCard(t *testing.T) {
	optest.Card(t)
	for _, x := range []struct {
		cfg        ops.EmbeddingConfig
		vocab, dim int
		ids        []int
		shape      []int
	}{
		{ops.EmbeddingConfig{}, 5, 3, []int{4, 0, 0, 2, 4, 4}, []int{2, 3}},
		{ops.EmbeddingConfig{Padding: true, PaddingID: 2}, 4, 131, []int{2, 1, 2, 0, 1}, []int{5}},
		{ops.EmbeddingConfig{}, 1, 1, []int{0}, []int{1}},
	} {
		for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
			c := embeddingCase(x.cfg, x.vocab, x.dim, x.ids, x.shape...)
			_, nodes := c.graph(t, dt, c.build)
			for _, n := range nodes {
				_, onCard := n.Op().(G.CUDADoer)
				require.True(t, onCard, "%v is not on the card", n.Op())
			}
			got := c.run(t, dt, c.build)
			table, weights := optest.Values(t, c.inputs[0].Node(G.NewGraph(), dt).Value()), optest.Normal[float64](99, len(x.ids)*x.dim, 1)
			require.Equal(t, refEmbedding(table, x.dim, x.ids), got[0])
			want := make([]float64, len(table))
			for i, id := range x.ids {
				for j := range x.dim {
					if x.cfg.Padding && id == x.cfg.PaddingID {
						continue
					}
					at := id*x.dim + j
					if dt == tensor.Float32 {
						want[at] = float64(float32(want[at]) + float32(weights[i*x.dim+j]))
					} else {
						want[at] += weights[i*x.dim+j]
					}
				}
			}
			require.Equal(t, want, got[1])
			c.checkViews(t)
		}
	}
}
