//go:build cuda

package stheno

import (
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
)

// A model and what was quantized from it share weights: both move them, and neither takes them from under the other's graphs.
func TestModelsThatShareWeightsOnTheCard(t *testing.T) {
	optest.Card(t)
	cfg := cardConfigs()["llama"]
	m, err := NewModel(cfg, 3)
	require.NoError(t, err)
	q, err := m.Quantize(QuantizeConfig{Weights: INT8})
	require.NoError(t, err)
	memory := map[string]*float32{}
	for _, p := range m.params {
		memory[p.Name] = &p.Value.Data().([]float32)[0]
	}
	ids := cardIDs(cfg, 7, 1)
	logits := func(x *Model) []float64 {
		g, err := x.PrefillGraph(1, 7, Fused)
		require.NoError(t, err)
		d, err := g.Run(ids, 0)
		require.NoError(t, err)
		require.NoError(t, g.Close())
		return optest.Values(t, d)
	}
	full, packed := logits(m), logits(q)

	require.NoError(t, m.ToCard())
	require.False(t, q.OnCard(), "its codes are not there")
	require.Equal(t, packed, logits(q))
	require.NoError(t, q.ToCard())
	require.True(t, q.OnCard())
	g, err := q.PrefillGraph(1, 7, Fused)
	require.NoError(t, err)
	require.Equal(t, q.Bytes(), PlacementOf(g.Graph).Resident)
	require.ErrorContains(t, m.FromCard(), "got 1 open graphs")
	require.NoError(t, g.Close())
	require.NoError(t, m.FromCard())
	require.False(t, q.OnCard())
	require.Equal(t, packed, logits(q))
	require.NoError(t, q.FromCard())

	require.NoError(t, q.ToCard())
	require.False(t, m.OnCard(), "weights that q has as codes are not there")
	require.NoError(t, m.FromCard())
	require.NoError(t, q.FromCard())
	require.Equal(t, full, logits(m))
	require.Equal(t, packed, logits(q))
	for _, p := range m.params {
		require.Same(t, memory[p.Name], &p.Value.Data().([]float32)[0], p.Name)
	}
}
