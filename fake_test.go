package stheno

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops"
	"stheno/ops/kvcompress"
	"stheno/ops/quantize"
)

// TestTrainingSeesWhatWillBeStored: a graph that trains for codes has the logits of the model that Quantize makes of its weights.
func TestTrainingSeesWhatWillBeStored(t *testing.T) {
	const seq = 7
	for name, cfg := range flavoursFor(Fused) {
		for _, p := range packedPrecisions {
			for _, rounding := range []quantize.Method{quantize.Nearest, quantize.Clipped} {
				if briefly() && name != "gpt2" && name != "llama" {
					continue
				}
				t.Run(name+"/"+p.String()+"/"+rounding.String(), func(t *testing.T) {
					m := noisy(t, cfg, tensor.Float32)
					qc := QuantizeConfig{Weights: p, Output: true, Keep: []string{"h.0.attn.k_proj"}, Rounding: rounding}
					tokens, targets := optest.Ints(5, seq, cfg.Vocab), optest.Ints(6, seq, cfg.Vocab)
					g, err := m.QuantizedTrainingGraph(1, seq, qc)
					require.NoError(t, err)
					defer g.Close()
					_, err = g.Run(tokens, targets)
					require.NoError(t, err)
					got := optest.Values(t, g.Logits.Value())
					want, err := quantized(t, m, qc).Logits([][]int{tokens}, Fused)
					require.NoError(t, err)
					if p == INT8Dynamic || p == INT4Dynamic {
						// Inputs differ in their last bits, and one in some thousand of them then rounds to the other side.
						require.LessOrEqual(t, meanError(got, optest.Values(t, want)), 2e-3*spread(got))
						return
					}
					optest.Close(t, "logits", want.Data().([]float32), got, 1e-4)
				})
			}
		}
	}
}

func meanError(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += max(a[i]-b[i], b[i]-a[i])
	}
	return sum / float64(len(a))
}

// TestTrainingForCodes: a model learns through rounded weights and inputs, and stored in them knows what it has learnt. docs/notes
// has what it wins back on real text.
func TestTrainingForCodes(t *testing.T) {
	if testing.Short() {
		t.Skip("trains models, for minutes on an emulated processor")
	}
	m, err := NewModel(learnedModel(t).Config(), 1)
	require.NoError(t, err)
	codes := QuantizeConfig{Weights: INT4Dynamic, Output: true, Rounding: quantize.Clipped}
	result, err := Train(t.Context(), m, stream(20_000, 1), TrainConfig{
		Steps: 120, Batch: 4, Seq: 64, Optimizer: ops.AdamWConfig{LR: 4e-3, Clip: 1}, Quantize: codes,
	})
	require.NoError(t, err)
	text := stream(3000, 11)
	want, err := learnedModel(t).Evaluate(t.Context(), text, 96, Fused)
	require.NoError(t, err)
	got, err := quantized(t, m, codes).Evaluate(t.Context(), text, 96, Fused)
	require.NoError(t, err)
	t.Logf("bits a token: %.4f, without codes %.4f; loss of the last step %.4f nats", got, want, result.Loss)
	require.Less(t, got, want+0.02)
}

// TestRoundingsOfAModel: GPTQ and clipping, calibrated on other text, follow the model more closely than rounding to nearest.
func TestRoundingsOfAModel(t *testing.T) {
	if testing.Short() {
		t.Skip("trains models, for minutes on an emulated processor")
	}
	m := learnedModel(t)
	calibration := stream(2000, 13)
	y, err := m.newYardstick(t.Context(), "test", stream(2000, 11), 0)
	require.NoError(t, err)
	kl := func(c QuantizeConfig) float64 {
		c.Weights = INT4
		f, err := y.measure(t.Context(), quantized(t, m, c), kvcompress.Config{})
		require.NoError(t, err)
		return f.KL
	}
	nearest := kl(QuantizeConfig{})
	clipped := kl(QuantizeConfig{Rounding: quantize.Clipped, Calibration: calibration})
	gptq := kl(QuantizeConfig{Rounding: quantize.GPTQ, Calibration: calibration})
	t.Logf("KL of INT4: nearest %.2e, clipped %.2e, GPTQ %.2e", nearest, clipped, gptq)
	require.Less(t, gptq, 0.7*nearest)
	require.Less(t, clipped, nearest)

	p, err := m.Plan(t.Context(), PlanConfig{Text: calibration, Rounding: quantize.GPTQ})
	require.NoError(t, err)
	require.LessOrEqual(t, p.Measured.KL, DefaultMaxKL)

	rec, err := quantize.NewRecorder(quantize.RecorderConfig{})
	require.NoError(t, err)
	require.NoError(t, m.Record(calibration, 96, rec))
	require.Len(t, rec.Layers(), len(m.Layers()))
	s, err := rec.Stats("lm_head")
	require.NoError(t, err)
	require.Equal(t, 2000/96, int(s.Runs))
}

func TestRoundingErrors(t *testing.T) {
	m := untrained(t)
	text := stream(200, 13)
	for want, c := range map[string]QuantizeConfig{
		"Rounding: got Method(9)":                  {Weights: INT4, Rounding: 9},
		"Calibration: got no text with gptq":       {Weights: INT4, Rounding: quantize.GPTQ},
		"Calibration: got 200 tokens with nearest": {Weights: INT4, Calibration: text},
		"Calibration: stheno: tokens[0]: got id":   {Weights: INT4, Rounding: quantize.GPTQ, Calibration: []int{99}},
	} {
		_, err := m.Quantize(c)
		require.ErrorContains(t, err, want)
	}
	_, err := m.QuantizedTrainingGraph(1, 4, QuantizeConfig{Weights: INT4, Rounding: quantize.GPTQ, Calibration: text})
	require.ErrorContains(t, err, "stheno: QuantizeConfig: got Rounding gptq and 200 tokens of Calibration to train with")
	_, err = Train(t.Context(), m, text, TrainConfig{Steps: 1, Batch: 1, Seq: 4, Nodes: Plain, Quantize: QuantizeConfig{Weights: INT8}})
	require.ErrorContains(t, err, "got Plain nodes with layers to quantize")
	require.ErrorContains(t, m.Record(text, 97, nil), "got a nil Recorder")
	rec, err := quantize.NewRecorder(quantize.RecorderConfig{})
	require.NoError(t, err)
	require.ErrorContains(t, m.Record(text, 97, rec), "want 1 to MaxSeq = 96")
	require.ErrorContains(t, m.Record(text[:3], 4, rec), "got 3 tokens, want at least 4")
	require.ErrorContains(t, m.Record(nil, 0, rec), "want 1 to MaxSeq")
}
