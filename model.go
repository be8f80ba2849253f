package stheno

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/card"
	"stheno/internal/op"
	"stheno/internal/parallel"
	"stheno/ops/flashattn"
)

// Model is a decoder: a Config and one copy of its weights. Every graph made from it reads those weights, so training
// steps are seen by all of them. Graphs may run at the same time as long as none of them trains.
type Model struct {
	cfg    Config
	dtype  tensor.Dtype
	params []Parameter             // those in full precision
	index  map[string]int          // places in params
	packed map[string]*packedLayer // quantized weights by the parameter's name; empty unless Quantize made the model
	home   *residence              // where weights are

	attention flashattn.Precision // of attention without caches
}

// NewModel returns a model with GPT-2's initial weights: N(0, 0.02²), projections into the residual stream divided by
// √(2·Layers), norms 1, biases 0. The same seed gives the same weights.
func NewModel(cfg Config, seed uint64) (*Model, error) { return newModel(cfg, seed, tensor.Float32) }

// newModel also makes models in float64, which finite differences need.
func newModel(cfg Config, seed uint64, dtype tensor.Dtype) (*Model, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	specs := cfg.WithDefaults().specs()
	values := make(map[string]*tensor.Dense, len(specs))
	made := make([]*tensor.Dense, len(specs))
	parallel.Run(len(specs), func(_ *parallel.Worker, i int) {
		if dtype == tensor.Float64 {
			made[i] = dense(initial[float64](specs[i], seed), specs[i].shape)
		} else {
			made[i] = dense(initial[float32](specs[i], seed), specs[i].shape)
		}
	})
	for i, s := range specs {
		values[s.name] = made[i]
	}
	return buildModel(cfg, dtype, func(s spec) (*tensor.Dense, error) { return values[s.name], nil })
}

// buildModel makes a model of the values; a parameter without one is left out.
func buildModel(cfg Config, dtype tensor.Dtype, value func(spec) (*tensor.Dense, error)) (*Model, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Model{cfg: cfg.WithDefaults(), dtype: dtype, index: map[string]int{}, home: &residence{}}
	for _, s := range m.cfg.specs() {
		v, err := value(s)
		if err != nil {
			return nil, err
		}
		if v != nil {
			m.add(Parameter{Name: s.name, Value: v})
		}
	}
	return m, nil
}

func (m *Model) add(p Parameter) {
	m.index[p.Name] = len(m.params)
	m.params = append(m.params, p)
}

func dense(backing any, shape []int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(backing))
}

// Config returns the model's shape, defaults filled in.
func (m *Model) Config() Config { return m.cfg }

// Parameters returns the weights in full precision in the order of the computation; Packed returns the others. The values are
// the model's own memory.
func (m *Model) Parameters() []Parameter { return append([]Parameter(nil), m.params...) }

// Parameter returns the weight called name.
func (m *Model) Parameter(name string) (*tensor.Dense, error) {
	i, ok := m.index[name]
	if !ok && m.packed[name] != nil {
		return nil, fmt.Errorf("stheno: Model.Parameter: got name %q, which is stored as %v: Packed returns it", name, m.packed[name].precision)
	}
	if !ok {
		return nil, fmt.Errorf("stheno: Model.Parameter: got name %q, want one of Parameters", name)
	}
	return m.params[i].Value, nil
}

// Bytes is the memory of the weights.
func (m *Model) Bytes() int64 {
	var n int64
	for _, p := range m.params {
		n += int64(p.Value.MemSize())
	}
	for _, p := range m.packed {
		n += int64(p.Bytes())
	}
	return n
}

// bind adds the weights to g as input nodes. Each graph has its own tensor header over the shared memory, because
// Gorgonia's machines write to the headers of the values they are given. Fused nodes read weights on the card where they are.
func (m *Model) bind(g *G.ExprGraph, nodes Nodes) (*weights, error) {
	w := &weights{full: make(map[string]*G.Node, len(m.params)), params: make(G.Nodes, len(m.params))}
	for i, p := range m.params {
		view := dense(p.Value.Data(), p.Value.Shape())
		n := G.NewTensor(g, m.dtype, view.Dims(), G.WithName(p.Name), G.WithShape(view.Shape()...), G.WithValue(view))
		w.params[i], w.full[p.Name] = n, n
		if nodes == Fused && card.Holds(p.Value.Uintptr()) {
			var err error
			if w.full[p.Name], err = op.Resident(n); err != nil {
				return nil, err
			}
		}
	}
	var err error
	w.packed, err = m.bindPacked(g)
	return w, err
}
