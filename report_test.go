package stheno

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// learned is a small model that has learnt a stream with some noise in it, and a text of that stream that it has not seen.
var learned = sync.OnceValues(func() (*Model, error) {
	m, err := NewModel(Llama(16, 2, 64, 2, 1, 96), 1)
	if err != nil {
		return nil, err
	}
	_, err = Train(context.Background(), m, stream(20_000, 1), TrainConfig{
		Steps: 120, Batch: 4, Seq: 64, Optimizer: ops.AdamWConfig{LR: 4e-3, Clip: 1},
	})
	return m, err
})

// stream is tokens that mostly follow from the one before them.
func stream(n int, seed uint64) []int {
	out, noise := []int{0}, optest.Ints(seed, n, 64)
	for k := 1; k < n; k++ {
		next := (5*out[k-1] + 3) % 16
		if noise[k] < 16 {
			next = noise[k]
		}
		out = append(out, next)
	}
	return out
}

// briefly reports whether to leave out what takes an emulated card minutes: with -short, under the tag cuda.
func briefly() bool { return G.CUDA && testing.Short() }

// untrained is the model of learned before it has learnt, which is enough to be refused.
func untrained(t testing.TB) *Model {
	m, err := NewModel(Llama(16, 2, 64, 2, 1, 96), 1)
	require.NoError(t, err)
	return m
}

func learnedModel(t testing.TB) *Model {
	if briefly() {
		t.Skip("wants a model that has been trained, which takes an emulated card minutes")
	}
	m, err := learned()
	require.NoError(t, err)
	return m
}

func TestDivergence(t *testing.T) {
	p, q := optest.Normal[float32](1, 50, 2), optest.Normal[float32](2, 50, 2)
	softmax := func(x []float32) []float64 {
		out := make([]float64, len(x))
		sum := 0.0
		for i, v := range x {
			out[i] = math.Exp(float64(v))
			sum += out[i]
		}
		for i := range out {
			out[i] /= sum
		}
		return out
	}
	want := 0.0
	for i, w := range softmax(p) {
		want += w * math.Log(w/softmax(q)[i])
	}
	got, _ := divergence(p, q)
	require.InDelta(t, want, got, 1e-12)
	got, agree := divergence(p, p)
	require.Zero(t, got)
	require.True(t, agree)
	for i := range q {
		q[i] += 1e4 // softmax does not see it, and exp would overflow
	}
	got, _ = divergence(p, q)
	require.InDelta(t, want, got, 1e-2, "rounding of logits of 1e4 in float32")
	q[3] = float32(math.NaN())
	got, _ = divergence(p, q)
	require.True(t, math.IsNaN(got))
}

// TestCachesAreMeasuredTokenByToken: with room for all tokens in Recent a cache changes nothing, and every kind of walk sees each
// token once.
func TestCachesAreMeasuredTokenByToken(t *testing.T) {
	m := learnedModel(t)
	text := stream(1000, 7)
	y, err := m.newYardstick(t.Context(), "test", text, 90)
	require.NoError(t, err)
	own, err := y.measure(t.Context(), m, kvcompress.Config{})
	require.NoError(t, err)
	require.Equal(t, 999, own.Tokens)
	require.Zero(t, own.KL)
	require.Equal(t, 1.0, own.Top1)
	bits, err := m.Evaluate(t.Context(), text, 90, Fused)
	require.NoError(t, err)
	require.InDelta(t, bits, own.Bits, 1e-6)

	exact, err := y.measure(t.Context(), m, kvcompress.Config{Ratio: 8, Recent: 96})
	require.NoError(t, err)
	require.InDelta(t, 0, exact.KL, 1e-9)
	require.InDelta(t, own.Bits, exact.Bits, 1e-5)
	coded, err := y.measure(t.Context(), m, kvcompress.Config{Ratio: 8, Recent: 16, GroupSize: 16})
	require.NoError(t, err)
	require.Greater(t, coded.KL, 20*math.Abs(exact.KL))
	require.Less(t, coded.KL, 0.1)
}

func TestReport(t *testing.T) {
	m := learnedModel(t)
	text := stream(1500, 7)
	variants, err := Variants(16)
	require.NoError(t, err)
	var seen []string
	r, err := Report(t.Context(), m, ReportConfig{
		Text: text, Seq: 96, Variants: variants,
		Measure: func(v Variant, q *Model) (Measured, error) {
			s, err := q.NewSession(SessionConfig{Capacity: 96, KV: v.KV})
			require.NoError(t, err)
			defer s.Close()
			_, err = s.Feed(text[:96])
			return Measured{Prefill: 1, Generate: 2, CacheBytes: s.CacheBytes(), PeakBytes: 3}, err
		},
		OnRow: func(row Row) error { seen = append(seen, row.Name); return nil },
	})
	require.NoError(t, err)
	require.Len(t, r.Rows, 1+len(variants))
	require.Len(t, seen, len(r.Rows))
	rows := map[string]Row{}
	for _, row := range r.Rows {
		rows[row.Name] = row
	}
	own := rows["as it is"]
	require.Equal(t, m.Bytes(), own.WeightBytes)
	require.Zero(t, own.Loss)
	require.Equal(t, int64(1), own.LargestBatch)
	require.Equal(t, int64(96), own.LongestSequence)
	require.Less(t, own.Bits, 3.5, "the model has learnt something")

	require.Less(t, rows["weights f16"].KL, rows["weights int8"].KL)
	require.Less(t, rows["weights int8"].KL, rows["weights int4"].KL)
	require.Less(t, rows["cache f16"].KL, rows["cache int8"].KL)
	require.Less(t, rows["cache int8"].KL, rows["cache int4"].KL)
	require.Less(t, math.Abs(rows["weights int8"].Loss), 0.01)
	for _, name := range []string{"attention bf16", "attention int8"} {
		require.Positive(t, rows[name].KL, name)
		require.Less(t, rows[name].KL, 0.01, name)
	}
	for _, name := range []string{"weights f16", "weights int8", "weights int4"} {
		q := rows[name]
		require.Less(t, q.WeightBytes, own.WeightBytes, name)
		require.Equal(t, own.CacheBytes, q.CacheBytes, name)
		require.Greater(t, q.LongestSequence, own.LongestSequence, name)
		require.Greater(t, q.Top1, 0.8, name)
		require.Equal(t, (own.WeightBytes+own.CacheBytes-q.WeightBytes)/q.CacheBytes, q.LargestBatch, name)
	}
	for _, name := range []string{"cache f16", "cache int8", "cache int4"} {
		q := rows[name]
		require.Equal(t, own.WeightBytes, q.WeightBytes, name)
		require.Less(t, q.CacheBytes, own.CacheBytes, name)
		s, err := m.cacheBytes(int(q.LongestSequence), variants[6].KV)
		require.NoError(t, err)
		if name == "cache f16" {
			require.LessOrEqual(t, s, own.CacheBytes)
			s, err = m.cacheBytes(int(q.LongestSequence)+1, variants[6].KV)
			require.NoError(t, err)
			require.Greater(t, s, own.CacheBytes)
		}
	}

	data, err := r.JSON()
	require.NoError(t, err)
	var back ReportResult
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, *r, back)
	require.Equal(t, 2+len(r.Rows), strings.Count(r.Markdown(), "\n| ")+strings.Count(r.Markdown(), "\n|-")+1)
	require.Equal(t, 1+len(r.Rows), strings.Count(r.HTML(), "<tr>"))
	require.Contains(t, r.Markdown(), "| 14 int8-dynamic, 1 f32 |")
	require.Equal(t, 2+len(r.Rows), strings.Count(r.String(), "\n"))
	r.Rows[1].Name = "a|<b>"
	require.Contains(t, r.Markdown(), `a\|<b>`)
	require.Contains(t, r.HTML(), "a|&lt;b&gt;")
}

func TestReportMeasures(t *testing.T) {
	if testing.Short() {
		t.Skip("times a model for some seconds")
	}
	m := learnedModel(t)
	r, err := Report(t.Context(), m, ReportConfig{Text: stream(300, 7), Variants: []Variant{{Name: "int8", Quantize: QuantizeConfig{Weights: INT8}}}})
	require.NoError(t, err)
	for _, row := range r.Rows {
		require.Positive(t, row.Prefill)
		require.Positive(t, row.Generate)
		require.Positive(t, row.CacheBytes)
		require.GreaterOrEqual(t, row.PeakBytes, int64(0))
	}
}

// A cache with a budget does not grow with the sequence: the table says so in words.
func TestReportOfACacheWithABudget(t *testing.T) {
	m := learnedModel(t)
	r, err := Report(t.Context(), m, ReportConfig{
		Text: stream(300, 7), Seq: 96, Variants: []Variant{{Name: "budget", KV: kvcompress.Config{Budget: 16, SinkTokens: 4}}},
		Measure: func(Variant, *Model) (Measured, error) { return Measured{}, nil },
	})
	require.NoError(t, err)
	require.EqualValues(t, math.MaxInt32, r.Rows[1].LongestSequence)
	require.Contains(t, r.Markdown(), " any |")
	require.NotContains(t, r.Markdown(), "2147483647")
	require.Positive(t, r.Rows[1].KL)
}

func TestReportErrors(t *testing.T) {
	m := untrained(t)
	other := noisy(t, flavours()["gpt2"], tensor.Float32)
	text := stream(100, 7)
	fail := errors.New("enough")
	for want, cfg := range map[string]ReportConfig{
		"Text: got 1 tokens":                          {Text: []int{1}},
		"Seq: got 97":                                 {Text: text, Seq: 97},
		"tokens[1]: got id 16":                        {Text: []int{1, 16, 2}},
		"Variants[0]: got a Model":                    {Text: text, Variants: []Variant{{Model: other}}},
		"x: stheno: QuantizeConfig.Keep":              {Text: text, Variants: []Variant{{Name: "x", Quantize: QuantizeConfig{Weights: INT8, Keep: []string{"no"}}}}, Measure: quickly},
		"enough":                                      {Text: text, Measure: func(Variant, *Model) (Measured, error) { return Measured{}, fail }},
		"Variants[0]: got attention in bf16 and a KV": {Text: text, Variants: []Variant{{Attention: flashattn.BFloat16, KV: kvcompress.Config{Ratio: 4}}}},
		"OnRow: enough":                               {Text: text, Measure: quickly, OnRow: func(Row) error { return fail }},
		"x: kvcompress: Config.Ratio: got":            {Text: text, Measure: quickly, Variants: []Variant{{Name: "x", KV: kvcompress.Config{Ratio: 5}}}},
	} {
		_, err := Report(t.Context(), m, cfg)
		require.ErrorContains(t, err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Report(ctx, m, ReportConfig{Text: text})
	require.ErrorIs(t, err, context.Canceled)
}

func quickly(Variant, *Model) (Measured, error) { return Measured{Prefill: 1, Generate: 1}, nil }
