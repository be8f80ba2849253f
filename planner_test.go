package stheno

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/ops/kvcompress"
)

func TestPlanKeepsToItsBudget(t *testing.T) {
	if testing.Short() {
		t.Skip("trains models, for minutes on an emulated processor")
	}
	m := learnedModel(t)
	text := stream(600, 9)
	cfg := PlanConfig{Text: text, Keep: []string{}}
	int8 := quantized(t, m, QuantizeConfig{Weights: INT8, Output: true})
	int4 := quantized(t, m, QuantizeConfig{Weights: INT4, Output: true})
	y, err := m.newYardstick(t.Context(), "test", text, 0)
	require.NoError(t, err)

	t.Run("bytes", func(t *testing.T) {
		last := 1e9
		for _, share := range []float64{0, 0.3, 0.6, 1, 1.5} {
			cfg.Budget = Budget{Bytes: int4.Bytes() + int64(share*float64(int8.Bytes()-int4.Bytes()))}
			p, err := m.Plan(t.Context(), cfg)
			require.NoError(t, err)
			require.LessOrEqual(t, p.MeasuredBytes, cfg.Budget.Bytes)
			require.Equal(t, p.PredictedBytes, p.MeasuredBytes)
			require.Equal(t, p.Model().Bytes(), p.MeasuredBytes)
			require.Less(t, p.PredictedKL, last)
			require.InEpsilon(t, p.Measured.KL, p.PredictedKL, 1, "predicted within a factor of 2")
			last = p.PredictedKL
			again, err := m.Plan(t.Context(), cfg)
			require.NoError(t, err)
			require.Equal(t, p.Layers, again.Layers, "the same plan each time")
			f, err := y.measure(t.Context(), quantized(t, m, QuantizeConfig{Layers: p.Precisions()}), kvcompress.Config{})
			require.NoError(t, err)
			require.Equal(t, p.Measured, f)
		}
	})
	t.Run("loss", func(t *testing.T) {
		last := m.Bytes()
		for _, limit := range []float64{1e-7, 1e-4, 1e-3, 1e-1} {
			cfg.Budget = Budget{MaxKL: limit}
			p, err := m.Plan(t.Context(), cfg)
			require.NoError(t, err)
			require.LessOrEqual(t, p.Measured.KL, limit)
			require.LessOrEqual(t, p.MeasuredBytes, last)
			last = p.MeasuredBytes
		}
		require.Less(t, last, int8.Bytes())
	})
	t.Run("both", func(t *testing.T) {
		cfg.Budget = Budget{Bytes: int8.Bytes(), MaxKL: 0.1}
		p, err := m.Plan(t.Context(), cfg)
		require.NoError(t, err)
		require.LessOrEqual(t, p.MeasuredBytes, int8.Bytes())
		cfg.Budget.MaxKL = 1e-12
		_, err = m.Plan(t.Context(), cfg)
		require.ErrorContains(t, err, "got a mean KL of")
	})
	t.Run("neither", func(t *testing.T) {
		p, err := m.Plan(t.Context(), PlanConfig{Text: text})
		require.NoError(t, err)
		require.LessOrEqual(t, p.Measured.KL, DefaultMaxKL)
		head := p.Layers[len(p.Layers)-1]
		require.Equal(t, F32, head.Taken.Precision, "the output projection stays")
		require.Contains(t, p.String(), "predicted: ")
		require.Equal(t, 1+len(p.Layers), strings.Count(p.HTML(), "<tr>"))
	})
}

// TestStepsAlongTheHullAreBest: no choice of layers takes as few bytes as a plan does, with less KL.
func TestStepsAlongTheHullAreBest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		layers := make([]PlannedLayer, 4)
		total := int64(0)
		for i := range layers {
			c := []Choice{{F32, 1000, 0}}
			for _, p := range []Precision{F16, INT8, INT4} {
				c = append(c, Choice{p, int64(r.IntN(1000)), r.Float64()})
			}
			layers[i].Choices = c
			total += 1000
		}
		p := &PlanResult{Budget: Budget{Bytes: int64(1 + r.IntN(4000))}, Layers: layers}
		if err := p.take(total, 0); err != nil {
			require.ErrorContains(t, err, "Budget.Bytes")
			continue
		}
		require.LessOrEqual(t, p.PredictedBytes, p.Budget.Bytes)
		best := 1e9
		for n := range 256 {
			bytes, kl := int64(0), 0.0
			for i := range layers {
				c := layers[i].Choices[n>>(2*i)&3]
				bytes, kl = bytes+c.Bytes, kl+c.KL
			}
			if bytes <= p.PredictedBytes {
				best = min(best, kl)
			}
		}
		require.InDelta(t, best, p.PredictedKL, 1e-9)
	}
}

func TestPlanErrors(t *testing.T) {
	m := untrained(t)
	text := stream(12, 9)
	for want, cfg := range map[string]PlanConfig{
		"Text: got 0 tokens":                  {},
		"Seq: got -1":                         {Text: text, Seq: -1},
		"Budget.Bytes: got -1":                {Text: text, Budget: Budget{Bytes: -1}},
		"Budget.Bytes: got 10, want at least": {Text: text, Budget: Budget{Bytes: 10}},
		"Budget.MaxKL: got -1":                {Text: text, Budget: Budget{MaxKL: -1}},
		"Candidates: got precision auto":      {Text: text, Candidates: []Precision{Auto}},
		`Keep: got "x"`:                       {Text: text, Keep: []string{"x"}},
		"enough":                              {Text: text, OnLayer: func(PlannedLayer) error { return errors.New("enough") }},
	} {
		_, err := m.Plan(t.Context(), cfg)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "stheno")
	}
	_, err := quantized(t, m, QuantizeConfig{Weights: INT8}).Plan(t.Context(), PlanConfig{Text: text})
	require.ErrorContains(t, err, "got a quantized model")
}
