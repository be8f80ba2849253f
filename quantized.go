package stheno

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/card"
	"stheno/internal/op"
	"stheno/ops/quantize"
)

// QuantizeConfig says which layers of a model are stored in fewer bits. The zero value quantizes nothing.
type QuantizeConfig struct {
	// Weights is the precision of the linear layers of the blocks.
	Weights Precision

	// Output quantizes the output projection, lm_head, as well, which otherwise stays in full precision. Where embeddings are
	// tied it is the token table, and tokens are then looked up in the packed table: there is no other copy.
	Output bool

	// Keep leaves more layers in full precision: patterns of path.Match over the names of Layers, such as "h.0.*" or "*.mlp.c_proj".
	Keep []string

	// Layers gives single layers, by name, a precision of their own, whatever Weights, Output and Keep say of them.
	Layers map[string]Precision

	// Rounding is how the codes of INT8 and INT4 weights are chosen: Nearest, Clipped (by the squared error of the weights), or
	// GPTQ (by that of the outputs on Calibration).
	Rounding quantize.Method

	// Calibration is a text like those that the model will read; a few thousand tokens are enough. GPTQ needs it, and Clipped then
	// weights its errors by it. Not for training.
	Calibration []int
}

// packedLayer is a quantized weight of a model.
type packedLayer struct {
	*quantize.Packed
	precision Precision
}

// Quantize returns a model with weights in fewer bits. It is used as m is, but neither trained nor composed of Plain nodes.
//
// The result shares those weights with m that stay in full precision (embeddings, norms, biases and the layers kept) and holds
// packed weights in place of the others, not beside them: once nothing refers to m, their memory is free.
func (m *Model) Quantize(cfg QuantizeConfig) (*Model, error) {
	choice, err := m.choose(cfg)
	if err != nil {
		return nil, err
	}
	r, err := m.newRounder(cfg.Rounding, cfg.Calibration)
	if err != nil {
		return nil, err
	}
	return m.quantize(choice, r)
}

// choose returns the precision of each layer, by name.
func (m *Model) choose(cfg QuantizeConfig) (map[string]Precision, error) {
	const field = "stheno: QuantizeConfig"
	if !knownKind(precisionNames, int(cfg.Weights)) || cfg.Weights == Auto {
		return nil, fmt.Errorf("%s.Weights: got %v, want f32, f16, bf16, int8, int8-dynamic, int4 or int4-dynamic; Plan finds precisions by itself", field, cfg.Weights)
	}
	for _, pattern := range cfg.Keep {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			return nil, fmt.Errorf("%s.Keep: got %q, want a pattern of path.Match", field, pattern)
		}
		if !slices.ContainsFunc(m.cfg.layers(), func(l layer) bool { return matchesAny([]string{pattern}, l.name) }) {
			return nil, fmt.Errorf("%s.Keep: got %q, which is no layer of this model; Layers lists them", field, pattern)
		}
	}
	choice := map[string]Precision{}
	for _, l := range m.cfg.layers() {
		choice[l.name] = cfg.Weights
		if l.name == outputLayer && !cfg.Output || matchesAny(cfg.Keep, l.name) {
			choice[l.name] = F32
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Layers)) {
		if _, ok := choice[name]; !ok {
			return nil, fmt.Errorf("%s.Layers: got %q, which is no layer of this model; Layers lists them", field, name)
		}
		p := cfg.Layers[name]
		if _, _, err := p.packing(); err != nil && p != F32 {
			return nil, fmt.Errorf("%s.Layers: %s: %w", field, name, err)
		}
		choice[name] = p
	}
	return choice, nil
}

// quantize packs the layers that choice gives another precision than F32.
func (m *Model) quantize(choice map[string]Precision, r *rounder) (*Model, error) {
	if len(m.packed) > 0 {
		return nil, fmt.Errorf("stheno: Quantize: got a quantized model, want one in full precision")
	}
	if m.dtype != tensor.Float32 {
		return nil, fmt.Errorf("stheno: Quantize: got a model of %v, want float32", m.dtype)
	}
	packed := map[string]*packedLayer{}
	for _, l := range m.cfg.layers() {
		p := choice[l.name]
		if p == F32 {
			continue
		}
		w, err := m.Parameter(l.weight)
		if err != nil {
			return nil, err
		}
		d, err := r.pack(l, w, p)
		if err != nil {
			return nil, fmt.Errorf("stheno: Quantize: %s: %w", l.name, err)
		}
		packed[l.weight] = &packedLayer{d, p}
	}
	out := &Model{cfg: m.cfg, dtype: m.dtype, index: map[string]int{}, packed: packed, home: m.home, attention: m.attention}
	for _, p := range m.params {
		if packed[p.Name] == nil {
			out.add(p)
		}
	}
	return out, nil
}

// Quantized reports whether any layer is stored in fewer bits than float32.
func (m *Model) Quantized() bool { return len(m.packed) > 0 }

// Packed returns the weights of a quantized layer, nil of one in full precision. They are the model's own memory.
func (m *Model) Packed(name string) (*quantize.Packed, error) {
	l, err := m.layer("stheno: Model.Packed", name)
	if err != nil {
		return nil, err
	}
	if p := m.packed[l.weight]; p != nil {
		return p.Packed, nil
	}
	return nil, nil
}

// matrix is a weight in a graph: a node of floats, or a quantized matrix, and the precision of what it is multiplied with.
type matrix struct {
	name   string // of the parameter
	full   *G.Node
	packed *quantize.Weights
	input  quantize.Input
}

// layer is the name of the layer whose weights they are.
func (w matrix) layer(head bool) string {
	if head {
		return outputLayer
	}
	return strings.TrimSuffix(w.name, ".weight")
}

// weights are a model's weights in one graph.
type weights struct {
	full   map[string]*G.Node
	packed map[string]matrix // quantized, or rounded as if they were
	params G.Nodes           // those in full precision, in the order of Model.Parameters
}

// vector returns the weight called name, nil if the model has none such.
func (w *weights) vector(name string) *G.Node { return w.full[name] }

// matrix returns the weight called name in whatever precision it has.
func (w *weights) matrix(name string) matrix {
	if p, ok := w.packed[name]; ok {
		return p
	}
	return matrix{name: name, full: w.full[name]}
}

// affine is the layer called name.
func (w *weights) affine(name string) affine {
	return affine{w.matrix(name + ".weight"), w.vector(name + ".bias")}
}

// bindPacked adds the quantized weights to g. Like the others they get a tensor header of their own.
func (m *Model) bindPacked(g *G.ExprGraph) (map[string]matrix, error) {
	out := make(map[string]matrix, len(m.packed))
	for _, l := range m.cfg.layers() { // in the same order each time
		p := m.packed[l.weight]
		if p == nil {
			continue
		}
		own := *p.Packed
		for _, d := range []**tensor.Dense{&own.Codes, &own.Scales, &own.Zeros} {
			if *d != nil {
				*d = dense((*d).Data(), (*d).Shape())
			}
		}
		nodes, err := own.Nodes(g, l.weight)
		if err != nil {
			return nil, err
		}
		for _, part := range []struct {
			node  **G.Node
			value *tensor.Dense
		}{{&nodes.Codes, p.Codes}, {&nodes.Scales, p.Scales}, {&nodes.Zeros, p.Zeros}} {
			if part.value != nil && card.Holds(part.value.Uintptr()) {
				if *part.node, err = op.Resident(*part.node); err != nil {
					return nil, err
				}
			}
		}
		_, input, err := p.precision.packing()
		if err != nil {
			return nil, err
		}
		out[l.weight] = matrix{name: l.weight, packed: nodes, input: input}
	}
	return out, nil
}
