package stheno

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/ops"
)

func TestShapesOfKnownModels(t *testing.T) {
	require.Equal(t, int64(124439808), GPT2Small().Params(), "GPT-2 small has 124,439,808 parameters")

	// Llama 2 7B: 6,738,415,616 parameters.
	llama := Llama(32000, 32, 4096, 32, 32, 4096)
	llama.Hidden = 11008
	require.Equal(t, int64(6738415616), llama.Params())
	require.Equal(t, 10944, Llama(32000, 32, 4096, 32, 32, 4096).Hidden, "8/3·4096 rounded up to 64")
}

func TestParametersMatchTheConfig(t *testing.T) {
	for name, cfg := range flavoursFor(Fused) {
		m, err := NewModel(cfg, 1)
		require.NoError(t, err, name)
		var n int64
		seen := map[string]bool{}
		for _, p := range m.Parameters() {
			n += int64(p.Value.Size())
			require.False(t, seen[p.Name], p.Name)
			seen[p.Name] = true
			v, err := m.Parameter(p.Name)
			require.NoError(t, err)
			require.Same(t, p.Value, v)
		}
		require.Equal(t, cfg.Params(), n, name)
		require.Equal(t, 4*n, m.Bytes(), name)
	}
}

func TestInitialWeights(t *testing.T) {
	cfg := GPT2(200, 8, 64, 4, 32)
	m, err := NewModel(cfg, 1)
	require.NoError(t, err)
	sigma := func(name string) float64 {
		v, err := m.Parameter(name)
		require.NoError(t, err)
		var s float64
		d := v.Data().([]float32)
		for _, x := range d {
			s += float64(x) * float64(x) / float64(len(d))
		}
		return math.Sqrt(s)
	}
	require.InEpsilon(t, 0.02, sigma("wte.weight"), 0.05)
	require.InEpsilon(t, 0.02, sigma("h.3.mlp.c_fc.weight"), 0.05)
	require.InEpsilon(t, 0.02/4, sigma("h.3.mlp.c_proj.weight"), 0.05, "√(2·8) smaller")
	require.InEpsilon(t, 0.02/4, sigma("h.3.attn.c_proj.weight"), 0.05)
	require.Equal(t, 1.0, sigma("ln_f.weight"))
	require.Equal(t, 0.0, sigma("h.0.attn.q_proj.bias"))

	again, err := NewModel(cfg, 1)
	require.NoError(t, err)
	require.Equal(t, m.Parameters()[0].Value.Data(), again.Parameters()[0].Value.Data())
	other, err := NewModel(cfg, 2)
	require.NoError(t, err)
	require.NotEqual(t, m.Parameters()[0].Value.Data(), other.Parameters()[0].Value.Data())
}

func TestConfigErrors(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"Config.Vocab: got 0, want 1":                       func(c *Config) { c.Vocab = 0 },
		"Config.Layers: got -1":                             func(c *Config) { c.Layers = -1 },
		"Config.Dim: got 0":                                 func(c *Config) { c.Dim = 0 },
		"Config.Heads: got 0":                               func(c *Config) { c.Heads = 0 },
		"Config.MaxSeq: got 0":                              func(c *Config) { c.MaxSeq = 0 },
		"Config.KVHeads: got 3 for 4 heads, want a divisor": func(c *Config) { c.KVHeads = 3 },
		"Config.KVHeads: got -1":                            func(c *Config) { c.KVHeads = -1 },
		"Config.Heads: got 5 for Dim 16":                    func(c *Config) { c.Heads, c.KVHeads, c.HeadDim = 5, 5, 0 },
		"Config.HeadDim: got 257":                           func(c *Config) { c.HeadDim = 257 },
		"Config.HeadDim: got -2":                            func(c *Config) { c.HeadDim = -2 },
		"Config.HeadDim: got 5 with Rotary":                 func(c *Config) { c.HeadDim = 5 },
		"Config.Hidden: got -1":                             func(c *Config) { c.Hidden = -1 },
		"Config.Norm: got NormKind(9)":                      func(c *Config) { c.Norm = 9 },
		"Config.Activation: got ActivationKind(-1)":         func(c *Config) { c.Activation = -1 },
		"Config.Positions: got PositionKind(2)":             func(c *Config) { c.Positions = 2 },
		"Config.NormEps: got NaN":                           func(c *Config) { c.NormEps = math.NaN() },
		"Config.NormEps: got -1":                            func(c *Config) { c.NormEps = -1 },
		"Config.Softcap: got NaN":                           func(c *Config) { c.Softcap = math.NaN() },
		"Config.Window: got -1":                             func(c *Config) { c.Window = -1 },
		"Config.Dropout: got 1":                             func(c *Config) { c.Dropout = 1 },
		"Config.Dropout: got NaN":                           func(c *Config) { c.Dropout = math.NaN() },
		"Config.RoPE: ops.RoPE: Base: got -1":               func(c *Config) { c.RoPE.Base = -1 },
		"got 3.6e+16 parameters, want at most":              func(c *Config) { c.Vocab, c.Dim, c.HeadDim = 1<<27, 1<<27, 4 },
	} {
		cfg := Llama(11, 2, 16, 4, 2, 16)
		change(&cfg)
		require.ErrorContains(t, cfg.Validate(), want)
		require.Zero(t, cfg.Params())
		_, err := NewModel(cfg, 1)
		require.Error(t, err)
	}
	require.ErrorContains(t, Config{}.Validate(), "Config.Vocab: got 0")
}

func TestConfigJSON(t *testing.T) {
	for name, cfg := range flavoursFor(Fused) {
		text, err := json.Marshal(cfg)
		require.NoError(t, err, name)
		var back Config
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, cfg, back, name)
	}
	scaled := Llama(11, 2, 16, 4, 2, 16)
	scaled.RoPE = ops.RoPEConfig{Base: 5e5, Scaling: ops.RoPEScaling{Kind: ops.RoPEScaleLinear, Factor: 2}}
	text, err := json.Marshal(scaled)
	require.NoError(t, err)
	require.Contains(t, string(text), `"norm":"rmsnorm"`)
	var back Config
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, scaled, back)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"norm":"batchnorm"}`), &back), `norm: got "batchnorm", want one of layernorm, rmsnorm`)
	_, err = json.Marshal(Config{Norm: 7})
	require.ErrorContains(t, err, "got NormKind(7), want 0 to 1")
}

func FuzzConfig(f *testing.F) {
	for _, cfg := range flavours() {
		text, err := json.Marshal(cfg)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add([]byte(`{"vocab":268435456,"layers":268435456,"dim":268435456,"heads":1,"max_seq":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var cfg Config
		if json.Unmarshal(text, &cfg) != nil {
			return
		}
		err := cfg.Validate()
		n := cfg.Params()
		if err != nil {
			require.Zero(t, n)
			return
		}
		require.Positive(t, n)
		if n > 1<<16 || cfg.MaxSeq > 1<<12 {
			return
		}
		m, err := NewModel(cfg, 1)
		require.NoError(t, err)
		_, err = m.Logits([][]int{{0}}, Fused)
		require.NoError(t, err)
	})
}
