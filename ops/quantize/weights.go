package quantize

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// Weights is a quantized matrix in a graph: a node for each tensor of a Packed, of the shapes and dtypes given there. Scales is
// nil for FP16 and BF16, Zeros if symmetric.
type Weights struct {
	Config  Config
	In, Out int

	Codes, Scales, Zeros *G.Node
}

// Nodes adds the matrix to a graph, as the nodes name.codes, name.scales and name.zeros with p's tensors bound to them. The
// tensors are shared, not copied.
func (p *Packed) Nodes(g *G.ExprGraph, name string) (*Weights, error) {
	const fn = "quantize.Nodes"
	switch {
	case p == nil || p.Codes == nil:
		return nil, fmt.Errorf("%s: got no codes, want what Quantize returns", fn)
	case g == nil:
		return nil, fmt.Errorf("%s: got a nil graph", fn)
	case name == "":
		return nil, fmt.Errorf("%s: got no name: nodes without one may merge with others", fn)
	}
	if _, err := p.view(); err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	w := &Weights{Config: p.Config, In: p.In, Out: p.Out}
	for _, part := range []struct {
		node   **G.Node
		suffix string
		value  *tensor.Dense
	}{{&w.Codes, ".codes", p.Codes}, {&w.Scales, ".scales", p.Scales}, {&w.Zeros, ".zeros", p.Zeros}} {
		if part.value != nil {
			*part.node = G.NewTensor(g, part.value.Dtype(), part.value.Dims(), G.WithShape(part.value.Shape()...),
				G.WithName(name+part.suffix), G.WithValue(part.value))
		}
	}
	return w, nil
}

// args are the nodes, with the names that errors use.
func (w *Weights) args() []op.Arg {
	args := []op.Arg{{Name: "w.Codes", Node: w.Codes}}
	if w.Config.Scheme.HasScales() {
		args = append(args, op.Arg{Name: "w.Scales", Node: w.Scales})
		if w.Config.Asymmetric {
			args = append(args, op.Arg{Name: "w.Zeros", Node: w.Zeros})
		}
	}
	return args
}

// check reports nodes that are not those of a matrix with w's Config and size.
func (w *Weights) check(fn string) error {
	cfg, err := w.Config.normal(fn)
	if err != nil {
		return err
	}
	if cfg != w.Config {
		return fmt.Errorf("%s: w: got GroupSize %d, want %d", fn, w.Config.GroupSize, cfg.GroupSize)
	}
	if w.In < 1 || w.Out < 1 || w.In > kernel.MaxQuantizedRows {
		return fmt.Errorf("%s: w: got %d inputs and %d outputs, want 1 to %d inputs, 1 or more outputs", fn, w.In, w.Out, kernel.MaxQuantizedRows)
	}
	l := layoutOf(cfg, w.In, w.Out)
	for _, part := range []struct {
		name  string
		node  *G.Node
		shape tensor.Shape
		dtype tensor.Dtype
	}{
		{"w.Codes", w.Codes, l.codes, l.dtype},
		{"w.Scales", w.Scales, l.scales, tensor.Float32},
		{"w.Zeros", w.Zeros, zerosShape(l), tensor.Uint8},
	} {
		switch {
		case part.shape == nil && part.node == nil:
			continue
		case part.shape == nil:
			return fmt.Errorf("%s: %s: got a node, want none for %v", fn, part.name, cfg)
		case part.node == nil:
			return fmt.Errorf("%s: %s: got a nil node, want one of shape %v for %v", fn, part.name, part.shape, cfg)
		case part.node.Dtype() != part.dtype:
			return fmt.Errorf("%s: %s: got dtype %v, want %v for %v", fn, part.name, part.node.Dtype(), part.dtype, cfg)
		}
		a := op.Arg{Name: part.name, Node: part.node}
		if err := op.CheckRank(fn, a, part.shape.Dims()); err != nil {
			return err
		}
		if err := op.CheckShape(fn, a, part.shape...); err != nil {
			return err
		}
	}
	return nil
}

func zerosShape(l layout) tensor.Shape {
	if l.zeros {
		return l.scales
	}
	return nil
}
