package stheno

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/ops"
	"stheno/ops/kvcompress"
	"stheno/ops/quantize"
)

// TestRunsOnUsedMemory: training, sessions and calibration come out the same to the bit when the memory of each result is full of
// NaN as soon as it is handed back: nothing reads it from then on, and all of it is written before it is read again.
func TestRunsOnUsedMemory(t *testing.T) {
	for name, cfg := range flavoursFor(Fused) {
		t.Run(name, func(t *testing.T) {
			fresh := usedMemory(t, cfg)
			defer op.Poison()()
			require.Equal(t, fresh, usedMemory(t, cfg))
		})
	}
}

// TestNoGradientsOfAFailedRun: their memory was handed back before it, and nothing new is there.
func TestNoGradientsOfAFailedRun(t *testing.T) {
	m := noisy(t, flavours()["llama"], tensor.Float32)
	g, err := m.TrainingGraph(1, 4, Fused)
	require.NoError(t, err)
	defer g.Close()
	tokens := optest.Ints(5, 4, m.Config().Vocab)
	gradient := func() error { _, err := g.ValueGrads()[0].Grad(); return err }
	require.ErrorContains(t, gradient(), "want a run")
	_, err = g.Run(tokens, tokens)
	require.NoError(t, err)
	require.NoError(t, gradient())
	table := g.Params[0].Value().(*tensor.Dense) // the graph's own header
	shape := table.Shape().Clone()
	require.NoError(t, table.Reshape(shape[1], shape[0]))
	_, err = g.Run(tokens, tokens)
	require.ErrorContains(t, err, "got a value of shape")
	require.ErrorContains(t, gradient(), "want a run")
	require.NoError(t, table.Reshape(shape...))
	_, err = g.Run(tokens, tokens)
	require.NoError(t, err)
	require.NoError(t, gradient())
}

// usedMemory is numbers that come of everything that hands results back.
func usedMemory(t *testing.T, cfg Config) map[string]any {
	out := map[string]any{}
	m := noisy(t, cfg, tensor.Float32)
	tokens := optest.Ints(5, 200, cfg.Vocab)
	for name, codes := range map[string]QuantizeConfig{
		"train": {}, "train for codes": {Weights: INT4Dynamic, Output: true, Rounding: quantize.Clipped},
	} {
		trained := noisy(t, cfg, tensor.Float32)
		result, err := Train(t.Context(), trained, tokens, TrainConfig{
			Steps: 3, Batch: 2, Seq: 7, Accumulate: 2, Optimizer: ops.AdamWConfig{LR: 1e-2, Clip: 1}, Quantize: codes,
		})
		require.NoError(t, err)
		out[name+", loss"] = []float64{result.Loss, result.GradNorm}
		for _, p := range trained.Parameters() {
			out[name+", "+p.Name] = p.Value.Data()
		}
	}
	for name, kv := range map[string]kvcompress.Config{"session": {}, "compressed": {Ratio: 4, Recent: 1, GroupSize: 16}} {
		s, err := m.NewSession(SessionConfig{KV: kv})
		require.NoError(t, err)
		var logits [][]float32 // those of earlier tokens belong to the caller too
		for at, n := 0, 5; at < 8; at, n = at+n, 1 {
			got, err := s.Feed(tokens[at : at+n])
			require.NoError(t, err)
			logits = append(logits, got)
		}
		require.NoError(t, s.Close())
		out[name] = logits
	}
	rec, err := quantize.NewRecorder(quantize.RecorderConfig{Moments: true})
	require.NoError(t, err)
	require.NoError(t, m.Record(tokens, 7, rec))
	for _, layer := range rec.Layers() {
		s, err := rec.Stats(layer)
		require.NoError(t, err)
		out["stats of "+layer] = s
	}
	return out
}

// TestPrefillHoldsOneLayer: what a layer computes goes back before the next one needs memory, however many there are, also where its
// inputs are recorded.
func TestPrefillHoldsOneLayer(t *testing.T) {
	defer op.Poison()()
	held := func(layers int, rec *quantize.Recorder) (numbers int) {
		m, err := NewModel(Llama(64, layers, 64, 4, 2, 32), 1)
		require.NoError(t, err)
		g, err := m.inference(plan{batch: 1, seq: 32, recorder: rec}, Fused)
		require.NoError(t, err)
		defer g.Close()
		stop := g.results.Watch()
		defer stop()
		require.NoError(t, g.t.let(feed{tokens: optest.Ints(5, 32, 64)}))
		require.NoError(t, g.vm.RunAll())
		for _, n := range g.Graph.AllNodes() {
			if d, ok := n.Value().(*tensor.Dense); ok && n.Op() != nil {
				numbers += d.Size()
			}
		}
		return numbers
	}
	rec, err := quantize.NewRecorder(quantize.RecorderConfig{})
	require.NoError(t, err)
	one := held(1, nil)
	require.Less(t, held(5, nil)-one, one/4)
	require.Less(t, held(5, rec)-one, one/4)
}
