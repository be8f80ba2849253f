package stheno

import (
	"fmt"
	"math"

	"stheno/ops"
)

// Config is the shape of a decoder. Zero fields below "defaults" are filled by WithDefaults; NewModel does it.
type Config struct {
	Vocab  int `json:"vocab"`   // number of token ids
	Layers int `json:"layers"`  // number of blocks
	Dim    int `json:"dim"`     // width of the residual stream
	Heads  int `json:"heads"`   // query heads
	MaxSeq int `json:"max_seq"` // longest sequence, in tokens

	// Defaults.
	KVHeads    int            `json:"kv_heads"`   // key and value heads, dividing Heads; 0: Heads
	HeadDim    int            `json:"head_dim"`   // width of a head; 0: Dim/Heads
	Hidden     int            `json:"hidden"`     // width of the feed-forward block; 0: 4·Dim, with SwiGLU 8/3·Dim rounded up to 64
	Norm       NormKind       `json:"norm"`       // zero: LayerNorm
	NormEps    float64        `json:"norm_eps"`   // 0: 1e-5
	Activation ActivationKind `json:"activation"` // zero: GELUTanh
	Positions  PositionKind   `json:"positions"`  // zero: Learned
	RoPE       ops.RoPEConfig `json:"rope"`       // with Rotary positions

	// Off when zero.
	Bias           bool    `json:"bias"`            // biases in Linear, and β in LayerNorm
	TiedEmbeddings bool    `json:"tied_embeddings"` // the output projection is the token table
	Window         int     `json:"window"`          // a token sees itself and the Window−1 tokens before it; 0: all
	Softcap        float64 `json:"softcap"`         // c·tanh(score/c) before the softmax
	Sinks          bool    `json:"sinks"`           // a learned score for each head that takes weight and gives nothing
	Dropout        float64 `json:"dropout"`         // rate in training: embeddings, attention output, feed-forward output
}

// GPT2 is a decoder of GPT-2's architecture (Radford et al. 2019): LayerNorm, GELU, learned positions, biases, tied
// embeddings.
func GPT2(vocab, layers, dim, heads, maxSeq int) Config {
	return Config{
		Vocab: vocab, Layers: layers, Dim: dim, Heads: heads, MaxSeq: maxSeq,
		Norm: LayerNorm, Activation: GELUTanh, Positions: Learned, Bias: true, TiedEmbeddings: true,
	}.WithDefaults()
}

// Llama is a decoder of Llama's architecture (Touvron et al. 2023): RMSNorm, SwiGLU, rotary positions, grouped queries,
// no biases, separate output projection.
func Llama(vocab, layers, dim, heads, kvHeads, maxSeq int) Config {
	return Config{
		Vocab: vocab, Layers: layers, Dim: dim, Heads: heads, KVHeads: kvHeads, MaxSeq: maxSeq,
		Norm: RMSNorm, Activation: SwiGLU, Positions: Rotary,
	}.WithDefaults()
}

// GPT2Small is the shape of GPT-2 with 124 million parameters.
func GPT2Small() Config { return GPT2(50257, 12, 768, 12, 1024) }

// WithDefaults fills zero fields that have a default. Fields that are out of range stay as they are, for Validate to name.
func (c Config) WithDefaults() Config {
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	if c.HeadDim == 0 && c.Heads > 0 && c.Dim%c.Heads == 0 {
		c.HeadDim = c.Dim / c.Heads
	}
	if c.Hidden == 0 && c.Dim > 0 && c.Dim <= maxSize {
		c.Hidden = 4 * c.Dim
		if c.Activation == SwiGLU {
			c.Hidden = (8*c.Dim/3 + 63) / 64 * 64
		}
	}
	if c.NormEps == 0 {
		c.NormEps = 1e-5
	}
	return c
}

// Limits that keep every product of sizes inside an int64.
const (
	maxSize    = 1 << 28 // of one dimension
	maxHeadDim = 256     // of the attention kernels
	maxParams  = 1 << 40
)

// Validate reports the first field that makes no model, defaults filled in.
func (c Config) Validate() error {
	c = c.WithDefaults()
	for _, f := range []struct {
		name string
		got  int
	}{
		{"Vocab", c.Vocab}, {"Layers", c.Layers}, {"Dim", c.Dim}, {"Heads", c.Heads}, {"MaxSeq", c.MaxSeq}, {"KVHeads", c.KVHeads},
	} {
		if f.got < 1 || f.got > maxSize {
			return fmt.Errorf("stheno: Config.%s: got %d, want 1 to %d", f.name, f.got, maxSize)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("stheno: Config.KVHeads: got %d for %d heads, want a divisor", c.KVHeads, c.Heads)
	case c.HeadDim == 0:
		return fmt.Errorf("stheno: Config.Heads: got %d for Dim %d, want a divisor, or HeadDim set", c.Heads, c.Dim)
	case c.HeadDim < 0 || c.HeadDim > maxHeadDim:
		return fmt.Errorf("stheno: Config.HeadDim: got %d, want 1 to %d", c.HeadDim, maxHeadDim)
	case c.Hidden < 1 || c.Hidden > maxSize:
		return fmt.Errorf("stheno: Config.Hidden: got %d, want 1 to %d", c.Hidden, maxSize)
	case !knownKind(normNames, int(c.Norm)):
		return fmt.Errorf("stheno: Config.Norm: got %v, want LayerNorm or RMSNorm", c.Norm)
	case !knownKind(activationNames, int(c.Activation)):
		return fmt.Errorf("stheno: Config.Activation: got %v, want GELUTanh, GELU, SwiGLU, SiLU or ReLU", c.Activation)
	case !knownKind(positionNames, int(c.Positions)):
		return fmt.Errorf("stheno: Config.Positions: got %v, want Learned or Rotary", c.Positions)
	case !(c.NormEps > 0) || math.IsInf(c.NormEps, 0):
		return fmt.Errorf("stheno: Config.NormEps: got %v, want a positive number", c.NormEps)
	case !(c.Softcap >= 0) || math.IsInf(c.Softcap, 0):
		return fmt.Errorf("stheno: Config.Softcap: got %v, want 0 (none) or a positive number", c.Softcap)
	case c.Window < 0:
		return fmt.Errorf("stheno: Config.Window: got %d, want 0 (none) or a positive number", c.Window)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("stheno: Config.Dropout: got %v, want 0 ≤ rate < 1", c.Dropout)
	case c.Positions == Rotary && c.HeadDim%2 != 0:
		return fmt.Errorf("stheno: Config.HeadDim: got %d with Rotary positions, want an even number", c.HeadDim)
	}
	if c.Positions == Rotary {
		if _, err := rotate(c.RoPE, make([]float64, c.HeadDim), 1, c.HeadDim); err != nil {
			return err
		}
	}
	if n := c.params(); !(n <= maxParams) {
		return fmt.Errorf("stheno: Config: got %.3g parameters, want at most %d", n, int64(maxParams))
	}
	return nil
}

// params counts parameters in floating point, which does not overflow.
func (c Config) params() float64 {
	n := 0.0
	for _, s := range c.outerSpecs() {
		n += s.size()
	}
	per := 0.0
	for _, s := range c.blockSpecs(0) {
		per += s.size()
	}
	return n + per*float64(c.Layers)
}

// Params is the number of parameters, 0 if the Config is not valid.
func (c Config) Params() int64 {
	if c.Validate() != nil {
		return 0
	}
	return int64(c.WithDefaults().params())
}
