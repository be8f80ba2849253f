package main

import (
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno"
	"stheno/ops"
	"stheno/ops/quantize"
)

// TestTrainsForCodes: the model that was trained for its codes is completed with and saved, the model before is what -save
// wrote, and the table has a row for each way.
func TestTrainsForCodes(t *testing.T) {
	data, dir := writeText(t), t.TempDir()
	full, codes := filepath.Join(dir, "w.safetensors"), filepath.Join(dir, "q.safetensors")
	code, stdout, stderr := start(t, t.Context(), with("-data", data, "-steps", "3", "-out", "", "-compare=false", "-save", full,
		"-weights", "int4", "-qat", "4", "-qat-rate", "0.01", "-save-quantized", codes)...)
	require.Zero(t, code, stderr)
	for _, want := range []string{
		"further     4 steps of 2 × 32 bytes through weights in int4 (nearest)\n",
		"further     4 steps of 2 × 32 bytes in float32, to compare with\n",
		"quantized   weights int4, nearest, 4 more steps for them: ",
		"\nfloat32, the model before ", "\nfloat32, 4 more steps ", "\ntrained for int4, 4 steps: nearest ",
	} {
		require.Contains(t, stdout, want)
	}
	for how, n := range map[string]int{"nearest": 2, "clipped": 1, "gptq": 2} {
		require.Equal(t, n, strings.Count(stdout, "\n  rounded: "+how+" "), how)
	}
	require.Regexp(t, `(wins back -?\d+ % of what rounding to nearest loses|too little to say)`, stdout)

	before, err := stheno.Load(full)
	require.NoError(t, err)
	rounded, err := before.Quantize(stheno.QuantizeConfig{Weights: stheno.INT4})
	require.NoError(t, err)
	trained, err := stheno.Load(codes)
	require.NoError(t, err)
	const layer = "h.0.attn.q_proj"
	a, err := rounded.Packed(layer)
	require.NoError(t, err)
	b, err := trained.Packed(layer)
	require.NoError(t, err)
	require.NotNil(t, b)
	require.NotEqual(t, a.Codes.Data(), b.Codes.Data(), "the codes are those of the model before")

	code, again, stderr := start(t, t.Context(), "-data", data, "-load", full, "-batch", "2", "-tokens", "8", "-prompt", "func ", "-prompt", "x",
		"-out", "", "-compare=false", "-weights", "int4", "-qat", "4", "-qat-rate", "0.01")
	require.Zero(t, code, stderr)
	_, want, _ := strings.Cut(stdout, "\nWeights in int4")
	_, got, _ := strings.Cut(again, "\nWeights in int4")
	require.NotEmpty(t, got)
	require.Equal(t, want, got, "after -load the further steps are the same")
}

// TestRoundingAlone: without -qat there is the table of roundings of the model as it is.
func TestRoundingAlone(t *testing.T) {
	code, stdout, stderr := start(t, t.Context(), with("-data", writeText(t), "-steps", "2", "-out", "", "-compare=false",
		"-weights", "int8-dynamic", "-rounding", "gptq")...)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "quantized   weights int8-dynamic, gptq: ")
	require.Contains(t, stdout, "\n  rounded: gptq ")
	require.NotContains(t, stdout, "more steps")
	require.NotContains(t, stdout, "wins back")
}

// TestFurtherStepsAreTheSame: both copies see the same sequences at the same rates, which fall to zero, and the model stays.
func TestFurtherStepsAreTheSame(t *testing.T) {
	j := job{opt: options{batch: 2, seq: 8, seed: 5, rate: 1, qat: 40, qatRate: 0.25, weights: stheno.INT4}}
	a := j.trainingOn(stheno.QuantizeConfig{Weights: stheno.INT4})
	b := j.trainingOn(stheno.QuantizeConfig{})
	require.NotEqual(t, a.Quantize, b.Quantize)
	a.Quantize = b.Quantize
	require.Equal(t, a, b)
	require.NotEqual(t, j.training(40).Seed, a.Seed)
	require.Equal(t, 40, a.Steps)
	require.Equal(t, 0.25, a.Optimizer.LR)
	require.Zero(t, a.Optimizer.Schedule.At(41))
	require.Less(t, a.Optimizer.Schedule.At(40), 0.03)

	j = job{opt: options{batch: 1, seq: 8, qat: 2, qatRate: 0.1, weights: stheno.INT4}, out: &bytes.Buffer{}, log: &bytes.Buffer{}}
	j.text.training = bytes.Repeat([]byte("0123456789"), 10)
	var err error
	j.model, err = stheno.NewModel(stheno.Llama(vocab, 1, 16, 2, 1, 8), 3)
	require.NoError(t, err)
	same, err := stheno.NewModel(j.model.Config(), 3)
	require.NoError(t, err)
	require.NoError(t, j.trainForCodes(t.Context()))
	for _, p := range j.model.Parameters() {
		q, err := same.Parameter(p.Name)
		require.NoError(t, err)
		require.Equal(t, q.Data(), p.Value.Data(), p.Name)
	}
	require.NotEqual(t, j.further.inFull.Parameters()[0].Value.Data(), same.Parameters()[0].Value.Data())
	require.NotEqual(t, j.further.inFull.Parameters()[0].Value.Data(), j.further.forCodes.Parameters()[0].Value.Data())
	require.Equal(t, ops.ScheduleLinear, a.Optimizer.Schedule.Kind)
}

// easyRoundings are losses of 4 % and 1 % beside a model that the steps have made better by 3 %.
func easyRoundings() roundings {
	const before = 3
	full := before + bitsOf(-3)
	t := roundings{weights: stheno.INT4, steps: 400, before: before, full: full, nearest: full + bitsOf(4), trained: full + bitsOf(1)}
	t.rows = []roundingRow{
		{"float32, the model before", before, 0}, {"  rounded: nearest", before + bitsOf(4), 0},
		{"float32, 400 more steps", full, full}, {"trained for int4", t.trained, full},
	}
	return t
}

func TestWinBack(t *testing.T) {
	r := easyRoundings()
	require.InDelta(t, 4, lost(r.nearest, r.full), 1e-9)
	text := r.wonBack()
	require.Equal(t, `Training for int4 wins back 75 % of what rounding to nearest loses: 1.00 % instead of 4.00 % against float32, all after 400 more steps.
Against the model before them it is -2.03 % instead of +0.88 %; of both the steps alone are -3.00 %.`, text) // 0.97·1.01 − 1, 0.97·1.04 − 1

	worse := r
	worse.trained = worse.full + bitsOf(6)
	require.Contains(t, worse.wonBack(), "wins back -50 % of")
	none := r
	none.nearest = none.full
	require.Contains(t, none.wonBack(), "loses 0.000 %: too little to say")

	var out bytes.Buffer
	r.print(&out, 65536)
	for _, want := range []string{
		"65.5 kB held out", "float32, the model before                             3.0000\n",
		"  rounded: nearest                                    3.0566         +4.00 %\n",
		"float32, 400 more steps                               2.9561         -3.00 %\n",
		"trained for int4                                      2.9704         -2.03 %           +1.00 %\n",
	} {
		require.Contains(t, out.String(), want)
	}
}

func TestInterruptDuringTrainingForCodes(t *testing.T) {
	threads := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(threads)
	save := filepath.Join(t.TempDir(), "w.safetensors")
	ctx, cancel := context.WithCancel(t.Context())
	var stdout bytes.Buffer
	stderr := &cancelOn{word: "of 4000:", cancel: cancel}
	code := run(ctx, with("-data", writeText(t), "-steps", "2", "-out", "", "-save", save, "-weights", "int4", "-qat", "4000"), &stdout, stderr)
	require.Equal(t, exitInterrupted, code, stderr.buf.String())
	require.Contains(t, stdout.String(), "quantized   weights int4, nearest: ", "what is left is the model before, rounded")
	require.Contains(t, stdout.String(), "\nfunc ")
	require.NotContains(t, stdout.String(), "wins back")
	_, err := stheno.Load(save)
	require.NoError(t, err)
}

func TestCodesMistakes(t *testing.T) {
	full, short := filepath.Join(t.TempDir(), "w.safetensors"), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(short, "a.txt"), []byte("short"), 0o666))
	m, err := stheno.NewModel(stheno.GPT2(vocab, 1, 16, 2, 32), 1)
	require.NoError(t, err)
	require.NoError(t, m.Save(full))
	m, err = m.Quantize(stheno.QuantizeConfig{Weights: stheno.INT4, Rounding: quantize.Clipped})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "q.safetensors")
	require.NoError(t, m.Save(path))
	for want, args := range map[string][]string{
		"-qat: got it without -weights, want it with -weights int8, int8-dynamic, int4 or int4-dynamic": with("-qat", "5"),
		"-qat: got it with -weights f32, want it with":                                                  with("-weights", "f32", "-qat", "5"),
		"-qat: got it with -weights f16, want it with":                                                  with("-weights", "f16", "-qat", "5"),
		"-qat: got it with -weights auto, want it with":                                                 with("-weights", "auto", "-qat", "5"),
		"-qat: got -1, want 1 to":                                                                       with("-weights", "int4", "-qat", "-1"),
		"-qat: got 0, want 1 to":                                                                        with("-weights", "int4", "-qat", "0"),
		`"many"`:                                                                                        with("-weights", "int4", "-qat", "many"),
		"-rounding: got it without -weights":                                                            with("-rounding", "gptq"),
		"-rounding: got it with -weights bf16":                                                          with("-weights", "bf16", "-rounding", "clipped"),
		`-rounding: got "fixed", want nearest, clipped or gptq`:                                         with("-weights", "int4", "-rounding", "fixed"),
		"-rounding: got gptq with -qat, want nearest or clipped":                                        with("-weights", "int4", "-rounding", "gptq", "-qat", "5"),
		"-qat-rate: got 0.001 without -qat":                                                             with("-weights", "int4", "-qat-rate", "0.001"),
		"-qat-rate: got NaN, want a positive number":                                                    with("-weights", "int4", "-qat", "5", "-qat-rate", "NaN"),
		"-qat-rate: got +Inf, want a positive number":                                                   with("-weights", "int4", "-qat", "5", "-qat-rate", "Inf"),
		"-qat: got 1073741825, want 1 to":                                                               with("-weights", "int4", "-qat", "1073741825"),
		"got 5 bytes of text, want at least":                                                            {"-load", full, "-data", short, "-prompt", "x", "-weights", "int4", "-qat", "2"},
		"got a quantized model with -steps, -minutes or -weights, want one in full precision":           {"-load", path, "-data", writeText(t), "-weights", "int4", "-qat", "2"},
	} {
		code, stdout, stderr := start(t, t.Context(), args...)
		require.NotZero(t, code, want)
		require.Empty(t, stdout)
		require.Contains(t, stderr, want)
		require.True(t, strings.HasPrefix(stderr, "gotext: "), stderr)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}

// bitsOf is the change of bits per byte that changes the perplexity by so many %.
func bitsOf(percent float64) float64 { return math.Log2(1 + percent/100) }
