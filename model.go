package stheno

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/parallel"
)

// Model is a decoder: a Config and one copy of its weights. Every graph made from it reads those weights, so training
// steps are seen by all of them. Graphs may run at the same time as long as none of them trains.
type Model struct {
	cfg    Config
	dtype  tensor.Dtype
	params []Parameter
	index  map[string]int
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

func buildModel(cfg Config, dtype tensor.Dtype, value func(spec) (*tensor.Dense, error)) (*Model, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Model{cfg: cfg.WithDefaults(), dtype: dtype, index: map[string]int{}}
	for _, s := range m.cfg.specs() {
		v, err := value(s)
		if err != nil {
			return nil, err
		}
		m.index[s.name] = len(m.params)
		m.params = append(m.params, Parameter{Name: s.name, Value: v})
	}
	return m, nil
}

func dense(backing any, shape []int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(backing))
}

// Config returns the model's shape, defaults filled in.
func (m *Model) Config() Config { return m.cfg }

// Parameters returns the weights in the order of the computation. The values are the model's own memory.
func (m *Model) Parameters() []Parameter { return append([]Parameter(nil), m.params...) }

// Parameter returns the weight called name.
func (m *Model) Parameter(name string) (*tensor.Dense, error) {
	i, ok := m.index[name]
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
	return n
}

// bind adds the weights to g as input nodes. Each graph has its own tensor header over the shared memory, because
// Gorgonia's machines write to the headers of the values they are given.
func (m *Model) bind(g *G.ExprGraph) (map[string]*G.Node, G.Nodes) {
	byName := make(map[string]*G.Node, len(m.params))
	all := make(G.Nodes, len(m.params))
	for i, p := range m.params {
		view := dense(p.Value.Data(), p.Value.Shape())
		all[i] = G.NewTensor(g, m.dtype, view.Dims(), G.WithName(p.Name), G.WithShape(view.Shape()...), G.WithValue(view))
		byName[p.Name] = all[i]
	}
	return byName, all
}
