package ops_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/ops"
)

func refAdd[T kernel.Float](x, y []T) []T {
	out := make([]T, len(x))
	for i := range out {
		out[i] = x[i] + y[i]
	}
	return out
}

func addCase(shape ...int) nodeCase {
	return nodeCase{
		name:   fmt.Sprintf("shape=%v", shape),
		inputs: []optest.Input{optest.Seeded("x", 1, shape...), optest.Seeded("y", 2, shape...)},
		build:  func(in []*G.Node) (*G.Node, error) { return ops.Add(in[0], in[1]) },
		want:   func(in [][]float64) []float64 { return refAdd(in[0], in[1]) },
		naive:  func(in [][]float32) []float32 { return refAdd(in[0], in[1]) },
		plain:  func(in []*G.Node) (*G.Node, error) { return G.Add(in[0], in[1]) },
	}
}

func TestAdd(t *testing.T) {
	for _, shape := range [][]int{{5, 8}, {2, 3, 17}, {59}, {1, 97}, {33000}} {
		addCase(shape...).check(t)
	}
}

func TestAddOfOneNode(t *testing.T) {
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("x", 1, 3, 5)},
		Build:  func(in []*G.Node) (*G.Node, error) { return ops.Add(in[0], in[0]) },
	}.CheckGradients(t, 1e-6)
}

func TestAddErrors(t *testing.T) {
	g := G.NewGraph()
	x := node(g, "x", 2, 5)
	call := func(x, y *G.Node) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.Add(x, y) }
	}
	checkErrors(t, "ops.Add", []buildError{
		{"x", call(nil, x), "x: got a nil node"},
		{"y", call(x, nil), "y: got a nil node"},
		{"graphs", call(x, node(G.NewGraph(), "x", 2, 5)), "got nodes of two graphs"},
		{"shape", call(x, node(g, "y", 5, 2)), "y: got shape (5, 2), want (2, 5)"},
		{"rank", call(x, node(g, "z", 10)), "y: got shape (10) of rank 1, want rank 2"},
		{"dtype", call(x, nodeOf(g, tensor.Float64, "d", 2, 5)), "y: got dtype float64, want float32 as in x"},
	})
	n, err := ops.Add(x, x)
	require.NoError(t, err)
	wrongSize(t, n)
}

func TestAddAllocs(t *testing.T) { checkAllocs(t, addCase(4, 8), addCase(256, 512)) }

func ExampleAdd() {
	x := exampleVector()
	y, err := ops.Add(x, x)
	printRun(y, err)
	// Output: [-2.000 0.000 4.000]
}
