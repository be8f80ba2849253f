package optest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Input is one input of a graph under test: floats (Data) or integers (Ints; rank 0 for a scalar node).
type Input struct {
	Name  string
	Shape []int
	Data  []float64
	Ints  []int
	Const bool // no gradient is checked or asked for
}

// Graph is a function of inputs, built from nodes.
type Graph struct {
	Inputs []Input
	Build  func(in []*G.Node) (*G.Node, error)
}

// Seeded is a float input of N(0, 1) numbers.
func Seeded(name string, seed uint64, shape ...int) Input {
	return Input{Name: name, Shape: shape, Data: Normal[float64](seed, tensor.Shape(shape).TotalSize(), 1)}
}

// CheckGradients compares the gradients of a random weighting of the graph's output, in float64, with central finite
// differences: through symbolic differentiation on a TapeMachine and through a LispMachine. At most 24 elements of
// each input are perturbed. tol is relative to 1 + |gradient|.
func (c Graph) CheckGradients(t *testing.T, tol float64) {
	t.Helper()
	probe := c.forward(t, tensor.Float64)
	weights := Normal[float64](99, max(1, len(probe)), 1)
	loss := func(data [][]float64) float64 {
		d := c
		d.Inputs = append([]Input(nil), c.Inputs...)
		for i := range d.Inputs {
			d.Inputs[i].Data = data[i]
		}
		var s float64
		for i, y := range d.forward(t, tensor.Float64) {
			s += weights[i] * y
		}
		return s
	}
	data := make([][]float64, len(c.Inputs))
	for i, in := range c.Inputs {
		data[i] = append([]float64(nil), in.Data...)
	}
	grads := map[string][][]float64{"tape": c.tapeGrads(t, weights), "lisp": c.lispGrads(t, weights)}
	r := rand.New(rand.NewPCG(7, 7))
	for i, in := range c.Inputs {
		if in.Const || in.Data == nil {
			continue
		}
		picks := r.Perm(len(in.Data))
		for _, j := range picks[:min(24, len(picks))] {
			const h = 1e-5
			x := data[i][j]
			data[i][j] = x + h
			up := loss(data)
			data[i][j] = x - h
			down := loss(data)
			data[i][j] = x
			want := (up - down) / (2 * h)
			for machine, g := range grads {
				got := g[i][j]
				if !(math.Abs(got-want) <= tol*(1+math.Abs(want))) {
					t.Fatalf("%s machine: gradient of %s[%d]: got %v, finite difference %v", machine, in.Name, j, got, want)
				}
			}
		}
	}
}

// Run evaluates the graph in float32 or float64 on a TapeMachine and returns the output as float64s.
func (c Graph) Run(t testing.TB, dt tensor.Dtype) []float64 { return c.forward(t, dt) }

func (c Graph) forward(t testing.TB, dt tensor.Dtype) []float64 {
	t.Helper()
	g := G.NewGraph()
	_, out := c.build(t, g, dt)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	return Values(t, out.Value())
}

func (c Graph) build(t testing.TB, g *G.ExprGraph, dt tensor.Dtype) ([]*G.Node, *G.Node) {
	t.Helper()
	nodes := make([]*G.Node, len(c.Inputs))
	for i, in := range c.Inputs {
		nodes[i] = in.Node(g, dt)
	}
	out, err := c.Build(nodes)
	require.NoError(t, err)
	return nodes, out
}

// Node adds the input to g with its value bound.
func (in Input) Node(g *G.ExprGraph, dt tensor.Dtype) *G.Node {
	if in.Ints != nil {
		if len(in.Shape) == 0 {
			return G.NewScalar(g, tensor.Int, G.WithName(in.Name), G.WithValue(in.Ints[0]))
		}
		v := tensor.New(tensor.WithShape(in.Shape...), tensor.WithBacking(append([]int(nil), in.Ints...)))
		return G.NewTensor(g, tensor.Int, len(in.Shape), G.WithName(in.Name), G.WithShape(in.Shape...), G.WithValue(v))
	}
	var v *tensor.Dense
	if dt == tensor.Float64 {
		v = tensor.New(tensor.WithShape(in.Shape...), tensor.WithBacking(append([]float64(nil), in.Data...)))
	} else {
		v = tensor.New(tensor.WithShape(in.Shape...), tensor.WithBacking(narrow(in.Data)))
	}
	return G.NewTensor(g, dt, len(in.Shape), G.WithName(in.Name), G.WithShape(in.Shape...), G.WithValue(v))
}

// weighted is Σ weights·out as a node.
func weighted(t testing.TB, g *G.ExprGraph, out *G.Node, weights []float64) *G.Node {
	if out.IsScalar() {
		w := G.NewScalar(g, out.Dtype(), G.WithName("optest.weights"), G.WithValue(weights[0]))
		return G.Must(G.Mul(out, w))
	}
	v := tensor.New(tensor.WithShape(out.Shape()...), tensor.WithBacking(append([]float64(nil), weights...)))
	w := G.NewTensor(g, tensor.Float64, out.Dims(), G.WithName("optest.weights"), G.WithShape(out.Shape()...), G.WithValue(v))
	prod, err := G.HadamardProd(out, w)
	require.NoError(t, err)
	sum, err := G.Sum(prod)
	require.NoError(t, err)
	return sum
}

func (c Graph) tapeGrads(t testing.TB, weights []float64) [][]float64 {
	t.Helper()
	g := G.NewGraph()
	nodes, out := c.build(t, g, tensor.Float64)
	loss := weighted(t, g, out, weights)
	var wrt G.Nodes
	for i, in := range c.Inputs {
		if !in.Const && in.Data != nil {
			wrt = append(wrt, nodes[i])
		}
	}
	gradNodes, err := G.Grad(loss, wrt...)
	require.NoError(t, err)
	vals := make([]G.Value, len(gradNodes))
	for i, n := range gradNodes {
		G.Read(n, &vals[i])
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	return c.spread(t, vals)
}

func (c Graph) lispGrads(t testing.TB, weights []float64) [][]float64 {
	t.Helper()
	g := G.NewGraph()
	nodes, out := c.build(t, g, tensor.Float64)
	weighted(t, g, out, weights)
	vm := G.NewLispMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	var vals []G.Value
	for i, in := range c.Inputs {
		if !in.Const && in.Data != nil {
			v, err := nodes[i].Grad()
			require.NoError(t, err)
			vals = append(vals, v)
		}
	}
	return c.spread(t, vals)
}

// spread puts the gradients of the float inputs at the inputs' positions.
func (c Graph) spread(t testing.TB, vals []G.Value) [][]float64 {
	out := make([][]float64, len(c.Inputs))
	for i, in := range c.Inputs {
		if !in.Const && in.Data != nil {
			out[i], vals = Values(t, vals[0]), vals[1:]
		}
	}
	return out
}

// Values returns the numbers of a float value in row-major order.
func Values(t testing.TB, v G.Value) []float64 {
	t.Helper()
	if d, ok := v.(*tensor.Dense); ok && d.RequiresIterator() {
		v = d.Materialize().(*tensor.Dense)
	}
	switch d := v.Data().(type) {
	case []float64:
		return append([]float64(nil), d...)
	case []float32:
		return Float64s(d)
	case float64:
		return []float64{d}
	case float32:
		return []float64{float64(d)}
	}
	require.Fail(t, fmt.Sprintf("got a value of type %T, want floats", v))
	return nil
}

func narrow(x []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}
