//go:build !cuda

package stheno

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPlacementWithoutTheTag(t *testing.T) {
	m, err := NewModel(Llama(17, 1, 16, 2, 1, 8), 1)
	require.NoError(t, err)
	g, err := m.TrainingGraph(1, 5, Fused)
	require.NoError(t, err)
	defer g.Close()
	p := PlacementOf(g.Graph)
	require.NotEmpty(t, p.Nodes)
	require.Len(t, p.Fallbacks(), len(p.Nodes))
	require.Empty(t, p.ToCard)
	require.Empty(t, p.ToHost)
	require.Zero(t, p.Resident)
	require.Contains(t, p.String(), "flashattn.Attend.Backward")
}

func TestToCardWithoutTheTag(t *testing.T) {
	m, err := NewModel(Llama(17, 1, 16, 2, 1, 8), 1)
	require.NoError(t, err)
	require.EqualError(t, m.ToCard(), "stheno: Model.ToCard: got a build without the tag cuda, want one with it")
	require.False(t, m.OnCard())
	require.NoError(t, m.FromCard(), "there is nothing to move")
}
