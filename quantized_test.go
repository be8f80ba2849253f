package stheno

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/ops/quantize"
)

var packedPrecisions = []Precision{F16, BF16, INT8, INT8Dynamic, INT4, INT4Dynamic}

func quantized(t testing.TB, m *Model, cfg QuantizeConfig) *Model {
	t.Helper()
	q, err := m.Quantize(cfg)
	require.NoError(t, err)
	return q
}

// dequantized is a reference decoder of the numbers that q's codes stand for.
func dequantized(t testing.TB, q *Model) *reference {
	r := newReference(t, q)
	for _, l := range q.Config().layers() {
		p, err := q.Packed(l.name)
		require.NoError(t, err)
		if p != nil {
			w, err := p.Dequantize()
			require.NoError(t, err)
			r.w[l.weight] = optest.Values(t, w)
		}
	}
	return r
}

// TestQuantizedLogits holds prefill and sessions of quantized models to the reference decoder of the very numbers that the codes
// stand for. Inputs rounded to 8 bits err on top of that, by no more than a few percent of the logits' spread.
func TestQuantizedLogits(t *testing.T) {
	const seq = 7
	for name, cfg := range flavoursFor(Fused) {
		for _, p := range packedPrecisions {
			t.Run(name+"/"+p.String(), func(t *testing.T) {
				q := quantized(t, noisy(t, cfg, tensor.Float32), QuantizeConfig{Weights: p, Output: true})
				tokens := optest.Ints(5, seq, cfg.Vocab)
				want := dequantized(t, q).logits(tokens)
				tol := 1e-4
				if p == INT8Dynamic || p == INT4Dynamic {
					tol = 0.05 * spread(want)
				}
				got, err := q.Logits([][]int{tokens}, Fused)
				require.NoError(t, err)
				optest.Close(t, "prefill", got.Data().([]float32), want, tol)
				s, err := q.NewSession(SessionConfig{Capacity: seq})
				require.NoError(t, err)
				defer s.Close()
				for at, n := 0, 3; at < seq; at, n = at+n, 1 {
					got, err := s.Feed(tokens[at : at+n])
					require.NoError(t, err)
					optest.Close(t, "session", got, want[(at+n-1)*cfg.Vocab:(at+n)*cfg.Vocab], tol)
				}
				bits, err := q.Evaluate(context.Background(), tokens, seq, Fused)
				require.NoError(t, err)
				require.Positive(t, bits)
				_, _, err = q.Generate(context.Background(), tokens[:3], GenerateConfig{MaxTokens: 3})
				require.NoError(t, err)
			})
		}
	}
}

// TestQuantizedLogitsOnUsedMemory: results that are made in memory with anything in it are written whole.
func TestQuantizedLogitsOnUsedMemory(t *testing.T) {
	defer op.Poison()()
	const seq = 7
	for name, cfg := range flavoursFor(Fused) {
		for _, p := range packedPrecisions {
			q := quantized(t, noisy(t, cfg, tensor.Float32), QuantizeConfig{Weights: p, Output: true})
			g, err := q.PrefillGraph(1, seq, Fused)
			require.NoError(t, err)
			tokens := optest.Ints(5, seq, cfg.Vocab)
			first, err := g.Run(tokens, 0)
			require.NoError(t, err)
			second, err := g.Run(tokens, 0)
			require.NoError(t, err)
			require.Equal(t, first.Data(), second.Data(), "%s, %v", name, p)
			require.NoError(t, g.Close())
		}
	}
}

func spread(x []float64) float64 {
	lo, hi := x[0], x[0]
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	return hi - lo
}

// TestQuantizedModelHoldsOneCopy: the bytes reported are those that are held, and dropping the original frees its weights.
func TestQuantizedModelHoldsOneCopy(t *testing.T) {
	cfg := GPT2(300, 2, 256, 4, 64)
	wide := float64(cfg.Params())
	blocks := 2 * (4*256*256 + 2*256*1024)
	table := 300 * 256
	for p, perWeight := range map[Precision]float64{F16: 2, BF16: 2, INT8: 1, INT8Dynamic: 1, INT4: 0.5 + 4./32} {
		for _, output := range []bool{false, true} {
			m, err := NewModel(cfg, 1)
			require.NoError(t, err)
			runtime.GC()
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			q := quantized(t, m, QuantizeConfig{Weights: p, Output: output})
			m = nil
			runtime.GC()
			runtime.GC()
			runtime.ReadMemStats(&after)

			packed := float64(blocks)
			scales := 0.
			if p == INT8 || p == INT8Dynamic {
				scales = 4 * 2 * (4*256 + 1024 + 256)
			}
			if output {
				packed += float64(table)
				if scales > 0 {
					scales += 4 * 300
				}
			}
			want := 4*(wide-packed) + perWeight*packed + scales
			slack := 0.0
			if output { // 300 outputs fill 19 panels of 16
				slack = 4 * 256 * perWeight
			}
			require.InDelta(t, want, float64(q.Bytes()), slack, "%v, output %v", p, output)
			freed := float64(before.HeapAlloc) - float64(after.HeapAlloc)
			require.InDelta(t, 4*wide-want, freed, 0.02*4*wide, "%v, output %v: freed by dropping the original", p, output)
			runtime.KeepAlive(q)
		}
	}
}

func TestQuantizeChoosesLayers(t *testing.T) {
	m := noisy(t, flavours()["llama"], tensor.Float32)
	precisions := func(cfg QuantizeConfig) string {
		var out []string
		for _, l := range quantized(t, m, cfg).Layers() {
			if l.Precision != F32 {
				out = append(out, l.Name+"="+l.Precision.String())
			}
		}
		return strings.Join(out, " ")
	}
	require.Empty(t, precisions(QuantizeConfig{}))
	all := precisions(QuantizeConfig{Weights: INT8})
	require.Equal(t, 14, strings.Count(all, "=int8"), "seven layers in each of two blocks")
	require.NotContains(t, all, "lm_head")
	require.Equal(t, all+" lm_head=int8", precisions(QuantizeConfig{Weights: INT8, Output: true}))
	require.Equal(t, "h.0.mlp.c_gate=int4 h.0.mlp.c_fc=int4 h.0.mlp.c_proj=int4",
		precisions(QuantizeConfig{Weights: INT4, Keep: []string{"h.1.*", "*.attn.*"}}))
	require.Equal(t, "h.1.attn.v_proj=f16 lm_head=int8",
		precisions(QuantizeConfig{Keep: []string{"lm_head"}, Layers: map[string]Precision{"lm_head": INT8, "h.1.attn.v_proj": F16}}))

	q := quantized(t, m, QuantizeConfig{Weights: INT8})
	require.True(t, q.Quantized())
	require.False(t, m.Quantized())
	_, err := q.Parameter("h.0.attn.q_proj.weight")
	require.ErrorContains(t, err, "stored as int8")
	_, err = q.Parameter("h.0.ln_1.weight")
	require.NoError(t, err)
	p, err := q.Packed("lm_head")
	require.NoError(t, err)
	require.Nil(t, p)
}

func TestQuantizeErrors(t *testing.T) {
	m := noisy(t, flavours()["gpt2"], tensor.Float32)
	q := quantized(t, m, QuantizeConfig{Weights: INT8})
	for name, c := range map[string]struct {
		m    *Model
		cfg  QuantizeConfig
		want string
	}{
		"unknown precision": {m, QuantizeConfig{Weights: 99}, "Weights: got Precision(99)"},
		"auto":              {m, QuantizeConfig{Weights: Auto}, "Plan"},
		"bad pattern":       {m, QuantizeConfig{Weights: INT8, Keep: []string{"["}}, `Keep: got "["`},
		"no such layers":    {m, QuantizeConfig{Weights: INT8, Keep: []string{"h.9.*"}}, `got "h.9.*", which is no layer`},
		"no such layer":     {m, QuantizeConfig{Layers: map[string]Precision{"wte": INT8}}, `got "wte", which is no layer`},
		"layer's precision": {m, QuantizeConfig{Layers: map[string]Precision{"lm_head": Auto}}, "lm_head: got precision auto"},
		"twice":             {q, QuantizeConfig{Weights: INT8}, "got a quantized model"},
		"float64":           {noisy(t, flavours()["gpt2"], tensor.Float64), QuantizeConfig{Weights: INT8}, "want float32"},
	} {
		_, err := c.m.Quantize(c.cfg)
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, "stheno: ", name)
	}
	big := noisy(t, flavours()["gpt2"], tensor.Float32)
	w, err := big.Parameter("h.1.mlp.c_fc.weight")
	require.NoError(t, err)
	w.Data().([]float32)[3] = 1e6
	_, err = big.Quantize(QuantizeConfig{Weights: F16})
	require.ErrorContains(t, err, "h.1.mlp.c_fc: quantize.Quantize: w[0, 3]: got 1e+06")

	_, err = q.TrainingGraph(1, 4, Fused)
	require.ErrorContains(t, err, "got a quantized model to train")
	_, err = Train(context.Background(), q, cycle(100), TrainConfig{Steps: 1, Batch: 1, Seq: 4})
	require.ErrorContains(t, err, "got a quantized model to train")
	_, err = q.PrefillGraph(1, 4, Plain)
	require.ErrorContains(t, err, "Plain nodes for a quantized model")
	_, err = q.NewSession(SessionConfig{Nodes: Plain})
	require.ErrorContains(t, err, "Plain nodes for a quantized model")
	_, err = q.Packed("none")
	require.ErrorContains(t, err, `got layer "none"`)
}

func TestQuantizedSaveAndLoad(t *testing.T) {
	for name, cfg := range flavoursFor(Fused) {
		for _, p := range packedPrecisions {
			q := quantized(t, noisy(t, cfg, tensor.Float32), QuantizeConfig{Weights: p, Output: name != "gpt2", Keep: []string{"h.0.attn.v_proj"}})
			path := filepath.Join(t.TempDir(), "q.safetensors")
			require.NoError(t, q.Save(path))
			back, err := Load(path)
			require.NoError(t, err, "%s, %v", name, p)
			require.Equal(t, q.Layers(), back.Layers())
			require.Equal(t, q.Bytes(), back.Bytes())
			tokens := [][]int{optest.Ints(5, 7, cfg.Vocab)}
			want, err := q.Logits(tokens, Fused)
			require.NoError(t, err)
			got, err := back.Logits(tokens, Fused)
			require.NoError(t, err)
			require.Equal(t, want.Data(), got.Data())
		}
	}
}

func savedQuantized(t testing.TB) []byte {
	m := noisy(t, flavours()["gpt2"], tensor.Float32)
	path := filepath.Join(t.TempDir(), "q.safetensors")
	require.NoError(t, quantized(t, m, QuantizeConfig{Weights: INT4, Output: true}).Save(path))
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	return file
}

func TestLoadQuantizedErrors(t *testing.T) {
	good := savedQuantized(t)
	text, data := header(t, good)
	edit := func(old, new string) []byte {
		require.Contains(t, text, old)
		return withHeader(strings.Replace(text, old, new, 1), data)
	}
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"a bit":             {flipBit(t, good, "h.1.mlp.c_fc.weight.codes"), "h.1.mlp.c_fc: damaged: got a checksum of"},
		"a scale":           {flipBit(t, good, "wte.weight.scales"), "lm_head: "},
		"truncated":         {good[:len(good)-9], "truncated"},
		"another precision": {edit(`int4`, `int8`), "want"},
		"no precision":      {edit(`int4`, `int3`), `got "int3"`},
		"full precision":    {edit(`int4`, `f32`), "got precision f32"},
		"no granularity":    {edit(`per-group`, `per-grape`), `got granularity "per-grape"`},
		"groups":            {edit(`\"group_size\":32`, `\"group_size\":33`), "got 33"},
		"a layer":           {edit(`\"h.1.mlp.c_fc.weight\"`, `\"h.9.mlp.c_fc.weight\"`), "no layer of the model"},
		"no codes":          {edit(`"h.1.mlp.c_fc.weight.codes"`, `"h.1.mlp.c_fc.weight.modes"`), `got no tensor "h.1.mlp.c_fc.weight.codes"`},
		"no metadata":       {edit(`stheno.quantized`, `stheno.quantised`), "for the model of its metadata"},
		"a vast model":      {edit(`\"layers\":2`, `\"layers\":99999999`), "for the model of its metadata"},
		"another model":     {edit(`\"layers\":2`, `\"layers\":1`), "no layer of the model"},
		"an unknown field":  {edit(`\"crc32c\"`, `\"crc64\"`), "unknown field"},
		"another shape":     {edit(`"shape":[1,2,64]`, `"shape":[2,1,64]`), "got shape"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "q.safetensors")
			require.NoError(t, os.WriteFile(path, c.file, 0o600))
			_, err := Load(path)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

// flipBit changes the lowest bit of the first byte of a tensor.
func flipBit(t testing.TB, file []byte, name string) []byte {
	t.Helper()
	text, data := header(t, file)
	_, rest, ok := strings.Cut(text, fmt.Sprintf("%q:", name))
	require.True(t, ok)
	_, rest, ok = strings.Cut(rest, `"data_offsets":[`)
	require.True(t, ok)
	var at int
	_, err := fmt.Sscanf(rest, "%d", &at)
	require.NoError(t, err)
	out := bytes.Clone(file)
	out[len(file)-len(data)+at] ^= 1
	return out
}

func TestPrecisionNames(t *testing.T) {
	for p := F32; p <= Auto; p++ {
		got, err := ParsePrecision(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
	}
	_, err := ParsePrecision("int7")
	require.ErrorContains(t, err, `got "int7", want one of f32, f16`)
	for _, p := range packedPrecisions {
		how, _, err := p.packing()
		require.NoError(t, err)
		require.Contains(t, []quantize.Scheme{quantize.FP16, quantize.BF16, quantize.INT8, quantize.INT4}, how.Scheme)
	}
}
