package stheno

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
)

// reference is a decoder in float64, in loops that follow the package comment line by line. It knows no graph, no batch
// and no cache.
type reference struct {
	cfg Config
	w   map[string][]float64
}

func newReference(t testing.TB, m *Model) *reference {
	r := &reference{cfg: m.Config(), w: map[string][]float64{}}
	for _, p := range m.Parameters() {
		r.w[p.Name] = optest.Values(t, p.Value)
	}
	return r
}

// logits of every position of one sequence, seq·vocab.
func (r *reference) logits(tokens []int) []float64 {
	c := r.cfg
	seq := len(tokens)
	h := make([][]float64, seq)
	for s, id := range tokens {
		h[s] = append([]float64(nil), r.w["wte.weight"][id*c.Dim:(id+1)*c.Dim]...)
		if c.Positions == Learned {
			addTo(h[s], r.w["wpe.weight"][s*c.Dim:(s+1)*c.Dim])
		}
	}
	for l := range c.Layers {
		name := fmt.Sprintf("h.%d.", l)
		q, k, v := make([][]float64, seq), make([][]float64, seq), make([][]float64, seq)
		for s := range seq {
			a := r.norm(h[s], name+"ln_1")
			q[s] = r.rotate(r.linear(a, name+"attn.q_proj"), s)
			k[s] = r.rotate(r.linear(a, name+"attn.k_proj"), s)
			v[s] = r.linear(a, name+"attn.v_proj")
		}
		for s := range seq {
			addTo(h[s], r.linear(r.attend(q, k, v, s, r.w[name+"attn.sinks"]), name+"attn.c_proj"))
			a := r.norm(h[s], name+"ln_2")
			f := r.linear(a, name+"mlp.c_fc")
			for i := range f {
				if c.Activation == SwiGLU {
					continue
				}
				f[i] = activate(c.Activation, f[i])
			}
			if c.Activation == SwiGLU {
				for i, g := range r.linear(a, name+"mlp.c_gate") {
					f[i] *= activate(SiLU, g)
				}
			}
			addTo(h[s], r.linear(f, name+"mlp.c_proj"))
		}
	}
	head := r.w["lm_head.weight"]
	if c.TiedEmbeddings {
		head = r.w["wte.weight"]
	}
	var out []float64
	for s := range seq {
		x := r.norm(h[s], "ln_f")
		for id := range c.Vocab {
			out = append(out, dot(x, head[id*c.Dim:(id+1)*c.Dim]))
		}
	}
	return out
}

// loss is the mean cross-entropy over a batch of sequences.
func (r *reference) loss(tokens, targets []int, seq int) float64 {
	var sum float64
	for b := 0; b < len(tokens); b += seq {
		logits := r.logits(tokens[b : b+seq])
		for s := range seq {
			row := logits[s*r.cfg.Vocab : (s+1)*r.cfg.Vocab]
			var z float64
			for _, x := range row {
				z += math.Exp(x)
			}
			sum += math.Log(z) - row[targets[b+s]]
		}
	}
	return sum / float64(len(tokens))
}

func (r *reference) norm(x []float64, name string) []float64 {
	var mean, square float64
	if r.cfg.Norm == LayerNorm {
		for _, v := range x {
			mean += v / float64(len(x))
		}
	}
	for _, v := range x {
		square += (v - mean) * (v - mean) / float64(len(x))
	}
	out := make([]float64, len(x))
	gamma, beta := r.w[name+".weight"], r.w[name+".bias"]
	for i, v := range x {
		out[i] = (v - mean) / math.Sqrt(square+r.cfg.NormEps) * gamma[i]
		if beta != nil {
			out[i] += beta[i]
		}
	}
	return out
}

func (r *reference) linear(x []float64, name string) []float64 {
	w, b := r.w[name+".weight"], r.w[name+".bias"]
	n := len(w) / len(x)
	out := make([]float64, n)
	copy(out, b)
	for i, v := range x {
		for j := range out {
			out[j] += v * w[i*n+j]
		}
	}
	return out
}

// rotate turns the heads of one token, half-split pairs without scaling.
func (r *reference) rotate(x []float64, pos int) []float64 {
	if r.cfg.Positions != Rotary {
		return x
	}
	d := r.cfg.HeadDim
	base := r.cfg.RoPE.Base
	if base == 0 {
		base = 10000
	}
	out := make([]float64, len(x))
	for h := 0; h < len(x); h += d {
		for i := range d / 2 {
			a, b := h+i, h+i+d/2
			if r.cfg.RoPE.Interleaved {
				a, b = h+2*i, h+2*i+1
			}
			sin, cos := math.Sincos(float64(pos) * math.Pow(base, -2*float64(i)/float64(d)))
			out[a], out[b] = x[a]*cos-x[b]*sin, x[b]*cos+x[a]*sin
		}
	}
	return out
}

func (r *reference) attend(q, k, v [][]float64, s int, sinks []float64) []float64 {
	c := r.cfg
	d := c.HeadDim
	out := make([]float64, c.Heads*d)
	first := 0
	if c.Window > 0 {
		first = max(0, s-c.Window+1)
	}
	for h := range c.Heads {
		g := h / (c.Heads / c.KVHeads)
		var sum float64
		if sinks != nil {
			sum = math.Exp(sinks[h])
		}
		p := make([]float64, s+1)
		for j := first; j <= s; j++ {
			x := dot(q[s][h*d:(h+1)*d], k[j][g*d:(g+1)*d]) / math.Sqrt(float64(d))
			if c.Softcap > 0 {
				x = c.Softcap * math.Tanh(x/c.Softcap)
			}
			p[j] = math.Exp(x)
			sum += p[j]
		}
		for j := first; j <= s; j++ {
			for i := range d {
				out[h*d+i] += p[j] / sum * v[j][g*d+i]
			}
		}
	}
	return out
}

func activate(kind ActivationKind, x float64) float64 {
	switch kind {
	case GELU:
		return x / 2 * (1 + math.Erf(x/math.Sqrt2))
	case SiLU:
		return x / (1 + math.Exp(-x))
	case ReLU:
		return max(x, 0)
	}
	return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
}

func addTo(dst, x []float64) {
	for i, v := range x {
		dst[i] += v
	}
}

func dot(x, y []float64) (s float64) {
	for i, v := range x {
		s += v * y[i]
	}
	return s
}

// noisy is a float64 or float32 model whose every weight, norms and biases and sinks included, is away from its initial
// value, so that no term of the computation vanishes.
func noisy(t testing.TB, cfg Config, dtype tensor.Dtype) *Model {
	m, err := newModel(cfg, 1, dtype)
	require.NoError(t, err)
	for i, p := range m.Parameters() {
		noise := optest.Normal[float64](uint64(100+i), p.Value.Size(), 0.25)
		switch d := p.Value.Data().(type) {
		case []float64:
			addTo(d, noise)
		case []float32:
			for j := range d {
				d[j] += float32(noise[j])
			}
		}
	}
	return m
}
