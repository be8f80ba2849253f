package ops_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/ops"
)

// linearsCase maps x of the given shape to as many outputs as outs says.
func linearsCase(biased bool, outs []int, shape ...int) nodeCase {
	in, n := shape[len(shape)-1], len(outs)
	c := nodeCase{
		name:   fmt.Sprintf("x=%v/outs=%v/bias=%v", shape, outs, biased),
		inputs: []optest.Input{optest.Seeded("x", 1, shape...)},
		build: func(in []*G.Node) (*G.Node, error) {
			return ops.Linears(in[0], in[1:1+n], slices.Clip(in[1+n:]), ops.LinearsConfig{})
		},
		want:  func(d [][]float64) []float64 { return refLinears(d, outs, in) },
		naive: func(d [][]float32) []float32 { return refLinears(d, outs, in) },
	}
	if !biased {
		c.build = func(in []*G.Node) (*G.Node, error) { return ops.Linears(in[0], in[1:], nil, ops.LinearsConfig{}) }
	}
	for i, out := range outs {
		w := optest.Normal[float64](uint64(2+i), in*out, 1/math.Sqrt(float64(in)))
		c.inputs = append(c.inputs, optest.Input{Name: fmt.Sprintf("w%d", i), Shape: []int{in, out}, Data: w})
	}
	for i, out := range outs {
		if biased {
			c.inputs = append(c.inputs, optest.Seeded(fmt.Sprintf("b%d", i), uint64(20+i), out))
		}
	}
	return c
}

// refLinears is one Linear after the other.
func refLinears[T kernel.Float](d [][]T, outs []int, in int) (y []T) {
	for i, out := range outs {
		y = append(y, refLinear(d[0], d[1+i], optional(d, 1+len(outs)+i), in, out, ops.LinearConfig{})...)
	}
	return y
}

func TestLinears(t *testing.T) {
	for _, biased := range []bool{false, true} {
		linearsCase(biased, []int{7, 4, 4}, 5, 3).check(t)
		linearsCase(biased, []int{17, 3}, 2, 3, 9).check(t)
		linearsCase(biased, []int{5}, 1, 6).check(t)
		linearsCase(biased, []int{64, 1, 33, 16}, 130, 16).check(t)
	}
}

// TestLinearsEqualsLinear: to the bit, for one row and for many.
func TestLinearsEqualsLinear(t *testing.T) {
	for _, rows := range []int{1, 3, 150} {
		c := linearsCase(true, []int{96, 32, 32}, rows, 64)
		got := optest.Graph{Inputs: c.inputs, Build: c.build}.Run(t, tensor.Float32)
		for i, n := range []int{96, 32, 32} {
			one := optest.Graph{Inputs: c.inputs, Build: func(in []*G.Node) (*G.Node, error) {
				return ops.Linear(in[0], in[1+i], in[4+i], ops.LinearConfig{})
			}}
			want := one.Run(t, tensor.Float32)
			require.Equal(t, want, got[:rows*n])
			got = got[rows*n:]
		}
	}
}

func TestLinearsNoGrad(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 4, 9).Node(g, tensor.Float64)
	w := optest.Seeded("w", 2, 9, 5).Node(g, tensor.Float64)
	y, err := ops.Linears(x, []*G.Node{w}, nil, ops.LinearsConfig{NoGrad: true})
	require.NoError(t, err)
	require.Equal(t, []bool{false, false}, y.Op().(G.SDOp).DiffWRT(2))
	G.Must(G.Sum(y))
	vm := G.NewLispMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	grad, err := w.Grad()
	require.NoError(t, err)
	require.Zero(t, absMax(optest.Values(t, grad)))
}

func TestLinearsHashes(t *testing.T) {
	build := func(w, b []int, cfg ops.LinearsConfig) func(in []*G.Node) (*G.Node, error) {
		return func(in []*G.Node) (*G.Node, error) {
			pick := func(at []int) (out []*G.Node) {
				for _, i := range at {
					out = append(out, in[i])
				}
				return out
			}
			return ops.Linears(in[0], pick(w), pick(b), cfg)
		}
	}
	inputs := []optest.Input{optest.Seeded("x", 1, 2, 3), optest.Seeded("w", 2, 3, 3), optest.Seeded("v", 3, 3, 3), optest.Seeded("b", 4, 3), optest.Seeded("c", 5, 3)}
	checkHashes(t, inputs, true,
		build([]int{1}, nil, ops.LinearsConfig{}), build([]int{1}, nil, ops.LinearsConfig{NoGrad: true}),
		build([]int{1, 2}, nil, ops.LinearsConfig{}), build([]int{1, 2}, []int{3, 4}, ops.LinearsConfig{}))
}

// TestLinearsOfOneMatrix: gradients of inputs that occur several times add up, and x may be a matrix, too.
func TestLinearsOfOneMatrix(t *testing.T) {
	same := func(in []*G.Node, at int) []*G.Node { return []*G.Node{in[at], in[at], in[at]} }
	nodeCase{
		name:   "weights",
		inputs: []optest.Input{optest.Seeded("x", 1, 4, 6), optest.Seeded("w", 2, 6, 6), optest.Seeded("b", 3, 6)},
		build: func(in []*G.Node) (*G.Node, error) {
			return ops.Linears(in[0], same(in, 1), same(in, 2), ops.LinearsConfig{})
		},
	}.check(t)
	nodeCase{
		name:   "x",
		inputs: []optest.Input{optest.Seeded("x", 1, 6, 6)},
		build:  func(in []*G.Node) (*G.Node, error) { return ops.Linears(in[0], same(in, 0), nil, ops.LinearsConfig{}) },
	}.check(t)
}

func TestLinearsErrors(t *testing.T) {
	g := G.NewGraph()
	x, w, v, b := node(g, "x", 2, 3), node(g, "w", 3, 4), node(g, "v", 3, 5), node(g, "b", 4)
	call := func(x *G.Node, w, b []*G.Node) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.Linears(x, w, b, ops.LinearsConfig{}) }
	}
	both := []*G.Node{w, v}
	checkErrors(t, "ops.Linears", []buildError{
		{"x", call(nil, both, nil), "x: got a nil node"},
		{"none", call(x, nil, nil), "w: got no matrix, want at least one"},
		{"w", call(x, []*G.Node{w, nil}, nil), "w[1]: got a nil node"},
		{"biases", call(x, both, []*G.Node{b}), "b: got 1 biases for 2 matrices, want none or as many"},
		{"bias", call(x, both, []*G.Node{b, b}), "b[1]: got shape (4), want (5)"},
		{"bias rank", call(x, []*G.Node{w}, []*G.Node{w}), "b[0]: got shape (3, 4) of rank 2, want rank 1"},
		{"inner", call(x, []*G.Node{w, node(g, "u", 4, 3)}, nil), "w[1]: got shape (4, 3), want (3, 3)"},
		{"weight rank", call(x, []*G.Node{b}, nil), "w[0]: got shape (4) of rank 1, want rank 2"},
		{"dtype", call(x, []*G.Node{nodeOf(g, tensor.Float64, "w64", 3, 4)}, nil), "w[0]: got dtype float64, want float32 as in x"},
		{"graphs", call(x, []*G.Node{node(G.NewGraph(), "w", 3, 4)}, nil), "got nodes of two graphs"},
		{"vector", call(b, both, nil), "x: got shape (4) of rank 1, want rank 2 or 3"},
	})
	n, err := ops.Linears(x, both, nil, ops.LinearsConfig{})
	require.NoError(t, err)
	wrongSize(t, n)
}

func TestLinearsAllocs(t *testing.T) {
	checkAllocs(t, linearsCase(true, []int{8, 4}, 4, 8), linearsCase(true, []int{256, 128}, 256, 256))
}

func ExampleLinears() {
	g := G.NewGraph()
	matrix := func(name string, rows, cols int, data ...float32) *G.Node {
		return G.NewMatrix(g, tensor.Float32, G.WithName(name), G.WithShape(rows, cols),
			G.WithValue(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))))
	}
	x := matrix("x", 2, 2, 1, 2, 3, 4)
	a, b := matrix("a", 2, 2, 1, 0, 0, 1), matrix("b", 2, 1, 1, 1)
	y, err := ops.Linears(x, []*G.Node{a, b}, nil, ops.LinearsConfig{})
	printRun(y, err)
	// Output:
	// [1.000 2.000 3.000 4.000 3.000 7.000]
}
