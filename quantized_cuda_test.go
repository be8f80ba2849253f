//go:build cuda

package stheno

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
	"stheno/ops/kvcompress"
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
			require.NoError(t, q.ToCard())
			g, err := q.PrefillGraph(1, 9, Fused)
			require.NoError(t, err)
			p := PlacementOf(g.Graph)
			require.Empty(t, p.Fallbacks(), "%v", p)
			require.Equal(t, q.Bytes(), p.Resident)
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
			require.NoError(t, g.Close())

			require.NoError(t, q.FromCard())
			g, err = q.PrefillGraph(1, 9, Fused)
			require.NoError(t, err)
			defer g.Close()
			require.Zero(t, PlacementOf(g.Graph).Resident)
			again, err := g.Run(ids, 0)
			require.NoError(t, err)
			require.Equal(t, optest.Values(t, got), optest.Values(t, again))
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

// A quantized decoder over compressed caches that lie on the card: the graph of the next token runs there whole, and gives what the same
// decoder gives over the same caches in memory of the host.
func TestDecodingOverACacheOnTheCard(t *testing.T) {
	optest.Card(t)
	cfg := GPT2(19, 2, 16, 2, 60)
	m, err := NewModel(cfg, 3)
	require.NoError(t, err)
	q, err := m.Quantize(QuantizeConfig{Weights: INT8})
	require.NoError(t, err)
	kv := kvcompress.Config{Ratio: 4, Recent: 16, GroupSize: 16}
	there, err := q.NewCaches(1, 60, kv)
	require.NoError(t, err)
	here, err := q.NewCaches(1, 60, kv)
	require.NoError(t, err)
	for _, c := range there {
		require.NoError(t, c.(*kvcompress.Compressed).ToCard())
	}
	for at, seq := range []int{40, 1, 1} {
		g, err := q.DecodeGraph(seq, there)
		require.NoError(t, err)
		p := PlacementOf(g.Graph)
		for _, n := range p.Fallbacks() { // Gorgonia's slice, which takes the last of several tokens
			require.True(t, seq > 1 && strings.HasPrefix(n.Name, "T["), "%v", p)
		}
		readBack := 0 // the position, by attention in each block
		for _, c := range p.ToHost {
			if c.Bytes == 8 {
				readBack++
			}
		}
		require.Equal(t, cfg.Layers, readBack, "%v", p.ToHost)
		ids := cardIDs(cfg, seq, at)
		got, err := g.Run(ids, there[0].Len())
		require.NoError(t, err)
		first := optest.Values(t, got)
		require.NoError(t, g.Close())

		g, err = q.DecodeGraph(seq, here)
		require.NoError(t, err)
		require.NoError(t, g.t.let(feed{tokens: ids, pos: here[0].Len()}))
		want := optest.Values(t, onCPU(t, g.Graph)[g.Logits])
		require.NoError(t, g.Close())
		require.Equal(t, here[0].Len(), there[0].Len())
		// A key that rounds to another code moves a score by a step of its scale.
		optest.Close(t, "logits", first, want, 1e-3*magnitude(want))
	}
	for _, c := range there {
		require.NoError(t, c.(*kvcompress.Compressed).FromCard())
	}
}
