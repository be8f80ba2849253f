//go:build cuda

package stheno

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
)

// A quantized decoder reads its tokens on the card, packed weights and all, to the logits that the CPU has.
func TestQuantizedPrefillOnTheCard(t *testing.T) {
	for _, precision := range []Precision{BF16, INT4, INT8Dynamic} {
		t.Run(precision.String(), func(t *testing.T) {
			optest.Card(t)
			cfg := cardConfigs()["llama"]
			m, err := NewModel(cfg, 3)
			require.NoError(t, err)
			q, err := m.Quantize(QuantizeConfig{Weights: precision, Output: true})
			require.NoError(t, err)
			g, err := q.PrefillGraph(1, 9, Fused)
			require.NoError(t, err)
			defer g.Close()
			p := PlacementOf(g.Graph)
			require.Empty(t, p.Fallbacks(), "%v", p)
			ids := cardIDs(cfg, 9, 1)
			got, err := g.Run(ids, 0)
			require.NoError(t, err)
			require.NoError(t, g.t.let(feed{tokens: ids}))
			want := optest.Values(t, onCPU(t, g.Graph)[g.Logits])
			tol := 1e-5
			if precision == INT8Dynamic {
				tol = 2e-2 // an input that rounds the other way moves a product by a step of 1/127
			}
			optest.Close(t, "logits", optest.Values(t, got), want, tol*magnitude(want))
		})
	}
}

// Training for codes on the card: every layer rounded before its product, with nothing on the CPU.
func TestTrainingForCodesOnTheCard(t *testing.T) {
	optest.Card(t)
	cfg := cardConfigs()["llama"]
	cfg.Dropout = 0
	m, err := NewModel(cfg, 3)
	require.NoError(t, err)
	g, err := m.QuantizedTrainingGraph(1, 9, QuantizeConfig{Weights: INT4})
	require.NoError(t, err)
	defer g.Close()
	p := PlacementOf(g.Graph)
	require.Empty(t, p.Fallbacks(), "%v", p)
	ids, targets := cardIDs(cfg, 9, 1), cardIDs(cfg, 9, 2)
	loss, err := g.Run(ids, targets)
	require.NoError(t, err)
	require.NoError(t, g.t.let(feed{tokens: ids, targets: targets}))
	values := onCPU(t, g.Graph)
	want, err := scalarOf(values[g.Loss])
	require.NoError(t, err)
	require.InDelta(t, want, loss, 1e-5*want)
	for i, n := range g.Grads {
		want := optest.Values(t, values[n])
		optest.Close(t, m.params[i].Name, optest.Values(t, n.Value()), want, 1e-5*(magnitude(want)+1e-3))
	}
}

// magnitude is the largest of x without its sign.
func magnitude(x []float64) (m float64) {
	for _, v := range x {
		m = math.Max(m, math.Abs(v))
	}
	return m
}
