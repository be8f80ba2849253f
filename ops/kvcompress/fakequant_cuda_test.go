//go:build cuda

package kvcompress_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops/kvcompress"
)

// On the card, too, FakeQuantizeKV gives the bits that a cache stands for, and hands gradients on as they are.
func TestFakeQuantizeKVOnTheCard(t *testing.T) {
	m := model{2, 2, 2, 16, 20}
	const n = 90
	for name, cfg := range schemes {
		optest.Card(t)
		_, k, v := m.tokens(1, n)
		c, err := kvcompress.Compress(k, v, n, m.shape(n), cfg)
		require.NoError(t, err)
		wantK, wantV := c.Decompress()
		for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
			g := G.NewGraph()
			nk := optest.Input{Name: "k", Shape: []int{m.batch, n, m.kvHeads, m.dk}, Data: optest.Float64s(k)}.Node(g, dt)
			nv := optest.Input{Name: "v", Shape: []int{m.batch, n, m.kvHeads, m.dv}, Data: optest.Float64s(v)}.Node(g, dt)
			fk, fv, err := kvcompress.FakeQuantizeKV(nk, nv, cfg)
			require.NoError(t, err)
			_, there := fk.Op().(G.CUDADoer)
			require.True(t, there || cfg.Ratio == 1, "%s: %v is not on the card", name, fk.Op())
			var gotK, gotV G.Value
			G.Read(fk, &gotK)
			G.Read(fv, &gotV)
			vm := G.NewTapeMachine(g)
			require.NoError(t, vm.RunAll())
			require.Equal(t, optest.Float64s(wantK), optest.Values(t, gotK), name)
			require.Equal(t, optest.Float64s(wantV), optest.Values(t, gotV), name)
			require.NoError(t, vm.Close())
		}
		for i, grads := range fakeGradients(t, m, n, k, v, cfg)["tape"] {
			for j, x := range grads {
				require.Equal(t, float64(j%5), x, "%s, gradient %d", name, i)
			}
		}
	}
}

// What FP16 cannot hold makes NaN of itself, and of numbers that share a scale with it nothing that is not finite.
func TestFakeQuantizeKVOfLargeNumbersOnTheCard(t *testing.T) {
	optest.Card(t)
	const n, d = 40, 4
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 1, n, 1, d)
	x.Data[2*d+1], x.Data[(n-1)*d] = 1e6, math.NaN()
	node := x.Node(g, tensor.Float32)
	_, fv, err := kvcompress.FakeQuantizeKV(node, node, kvcompress.Config{Ratio: 4, GroupSize: 16, Recent: 16})
	require.NoError(t, err)
	var got G.Value
	G.Read(fv, &got)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	for i, v := range optest.Values(t, got) {
		require.Equal(t, i == 2*d+1 || i == (n-1)*d, math.IsNaN(v), "element %d is %v", i, v)
	}
}
