package stheno

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// outputLayer is the name of the output projection, whose weights are the token table where embeddings are tied.
const outputLayer = "lm_head"

// layer is a matrix that inputs are multiplied with: a linear layer of a block, or the output projection.
type layer struct {
	name       string // h.0.attn.q_proj, …, lm_head
	weight     string // the parameter
	in, out    int
	transposed bool // the parameter is stored (out, in)
}

// layers lists the layers in the order of the computation.
func (c Config) layers() []layer {
	var out []layer
	for l := range c.Layers {
		for _, s := range c.blockSpecs(l) {
			if name, ok := strings.CutSuffix(s.name, ".weight"); ok && len(s.shape) == 2 {
				out = append(out, layer{name: name, weight: s.name, in: s.shape[0], out: s.shape[1]})
			}
		}
	}
	head := layer{name: outputLayer, weight: outputLayer + ".weight", in: c.Dim, out: c.Vocab, transposed: true}
	if c.TiedEmbeddings {
		head.weight = "wte.weight"
	}
	return append(out, head)
}

// Layer describes a matrix that a model multiplies with.
type Layer struct {
	Name      string    // h.0.attn.q_proj, …, lm_head
	In, Out   int       // inputs and outputs
	Precision Precision // how the weights are stored
	Bytes     int64     // of the weights, scales included
}

// Layers lists what can be quantized, and how each of it is stored: the linear layers of the blocks in the order of the
// computation, then lm_head, the output projection. Where embeddings are tied, that is the token table.
func (m *Model) Layers() []Layer {
	var out []Layer
	for _, l := range m.cfg.layers() {
		x := Layer{Name: l.name, In: l.in, Out: l.out}
		if p := m.packed[l.weight]; p != nil {
			x.Precision, x.Bytes = p.precision, int64(p.Bytes())
		} else {
			x.Bytes = int64(m.params[m.index[l.weight]].Value.MemSize())
		}
		out = append(out, x)
	}
	return out
}

// layer returns the layer called name.
func (m *Model) layer(fn, name string) (layer, error) {
	for _, l := range m.cfg.layers() {
		if l.name == name {
			return l, nil
		}
	}
	return layer{}, fmt.Errorf("%s: got layer %q, want one of Layers", fn, name)
}

// matchesAny reports whether a layer is named by one of patterns, which are those of path.Match over whole names: as names
// have no slashes, * stands for any run of characters.
func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name)
		return ok
	})
}
