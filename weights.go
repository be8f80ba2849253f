package stheno

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/memory"
)

// Parameter is a named weight of a model.
type Parameter struct {
	Name  string
	Value *tensor.Dense
}

// spec is a parameter before it has memory. A projection is (in, out): y = x·W.
type spec struct {
	name  string
	shape []int
	fill  float64 // the initial value where sigma is 0
	sigma float64 // standard deviation of the initial values
}

func (s spec) size() float64 {
	n := 1.0
	for _, d := range s.shape {
		n *= float64(d)
	}
	return n
}

// initSigma is the standard deviation of GPT-2's initial weights.
const initSigma = 0.02

// outerSpecs lists the parameters outside the blocks: those before the first, then those after the last.
func (c Config) outerSpecs() []spec {
	out := []spec{{name: "wte.weight", shape: []int{c.Vocab, c.Dim}, sigma: initSigma}}
	if c.Positions == Learned {
		out = append(out, spec{name: "wpe.weight", shape: []int{c.MaxSeq, c.Dim}, sigma: initSigma})
	}
	out = append(out, c.normSpecs("ln_f")...)
	if !c.TiedEmbeddings {
		out = append(out, spec{name: "lm_head.weight", shape: []int{c.Vocab, c.Dim}, sigma: initSigma})
	}
	return out
}

// blockSpecs lists the parameters of block l. Projections back into the residual stream start smaller by √(2·Layers), as
// there are two in each block (GPT-2, §2.3).
func (c Config) blockSpecs(l int) []spec {
	p := fmt.Sprintf("h.%d.", l)
	residual := initSigma / math.Sqrt(2*float64(c.Layers))
	out := c.normSpecs(p + "ln_1")
	out = append(out, c.linearSpecs(p+"attn.q_proj", c.Dim, c.Heads*c.HeadDim, initSigma)...)
	out = append(out, c.linearSpecs(p+"attn.k_proj", c.Dim, c.KVHeads*c.HeadDim, initSigma)...)
	out = append(out, c.linearSpecs(p+"attn.v_proj", c.Dim, c.KVHeads*c.HeadDim, initSigma)...)
	if c.Sinks {
		out = append(out, spec{name: p + "attn.sinks", shape: []int{c.Heads}})
	}
	out = append(out, c.linearSpecs(p+"attn.c_proj", c.Heads*c.HeadDim, c.Dim, residual)...)
	out = append(out, c.normSpecs(p+"ln_2")...)
	if c.Activation == SwiGLU {
		out = append(out, c.linearSpecs(p+"mlp.c_gate", c.Dim, c.Hidden, initSigma)...)
	}
	out = append(out, c.linearSpecs(p+"mlp.c_fc", c.Dim, c.Hidden, initSigma)...)
	return append(out, c.linearSpecs(p+"mlp.c_proj", c.Hidden, c.Dim, residual)...)
}

func (c Config) normSpecs(name string) []spec {
	out := []spec{{name: name + ".weight", shape: []int{c.Dim}, fill: 1}}
	if c.Norm == LayerNorm && c.Bias {
		out = append(out, spec{name: name + ".bias", shape: []int{c.Dim}})
	}
	return out
}

func (c Config) linearSpecs(name string, in, out int, sigma float64) []spec {
	s := []spec{{name: name + ".weight", shape: []int{in, out}, sigma: sigma}}
	if c.Bias {
		s = append(s, spec{name: name + ".bias", shape: []int{out}})
	}
	return s
}

// specs lists all parameters in the order of the computation.
func (c Config) specs() []spec {
	outer := c.outerSpecs()
	first := slices.IndexFunc(outer, func(s spec) bool { return strings.HasPrefix(s.name, "ln_f") })
	out := slices.Clone(outer[:first])
	for l := range c.Layers {
		out = append(out, c.blockSpecs(l)...)
	}
	return append(out, outer[first:]...)
}

// initial returns the parameter's initial values. Each parameter has a random stream of its own, named by seed and name.
func initial[T kernel.Float](s spec, seed uint64) []T {
	data := memory.Make[T](int(s.size()))
	if s.sigma == 0 {
		for i := range data {
			data[i] = T(s.fill)
		}
		return data
	}
	h := fnv.New64a()
	h.Write([]byte(s.name))
	r := rand.New(rand.NewPCG(seed, h.Sum64()))
	for i := range data {
		data[i] = T(r.NormFloat64() * s.sigma)
	}
	return data
}
