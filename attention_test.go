package stheno

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops"
	"stheno/ops/flashattn"
)

func TestWithAttention(t *testing.T) {
	m := noisy(t, flavours()["llama"], tensor.Float32)
	tokens := optest.Ints(5, 12, m.Config().Vocab)
	logits := func(m *Model) []float64 {
		g, err := m.PrefillGraph(1, 12, Fused)
		require.NoError(t, err)
		defer g.Close()
		out, err := g.Run(tokens, 0)
		require.NoError(t, err)
		return optest.Values(t, out)
	}
	exact := logits(m)
	for _, p := range []flashattn.Precision{flashattn.BFloat16, flashattn.Int8} {
		narrow, err := m.WithAttention(p)
		require.NoError(t, err)
		require.Equal(t, p, narrow.Attention())
		require.Equal(t, flashattn.Float32, m.Attention())
		got := logits(narrow)
		require.NotEqual(t, exact, got, "%v", p)
		// docs/numerics.md: up to 0.7 % of attention's output in the root mean square. Of two layers, and four times that for the largest
		// of the logits, it is 4 % of their size.
		size, _ := optest.MaxError(exact, make([]float64, len(exact)))
		optest.Close(t, p.String(), got, exact, 0.04*size)

		q, err := narrow.Quantize(QuantizeConfig{Weights: F16})
		require.NoError(t, err)
		require.Equal(t, p, q.Attention())

		before := append([]float32(nil), m.params[0].Value.Data().([]float32)...)
		result, err := Train(t.Context(), narrow, tokens, TrainConfig{Steps: 1, Batch: 1, Seq: 8, Optimizer: ops.AdamWConfig{LR: 1e-3}})
		require.NoError(t, err)
		require.Positive(t, result.Loss)
		require.NotEqual(t, before, m.params[0].Value.Data(), "the weights are m's")
		exact = logits(m)

		_, err = narrow.PrefillGraph(1, 4, Plain)
		require.ErrorContains(t, err, "got Plain nodes with attention in "+p.String()+", want Fused")
	}
	_, err := m.WithAttention(9)
	require.ErrorContains(t, err, "WithAttention: got Precision(9), want float32, bf16 or int8")
}
