package ops_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops"
)

func reshapeCase(from []int, to ...int) nodeCase {
	return nodeCase{
		name:   fmt.Sprintf("%v→%v", from, to),
		inputs: []optest.Input{optest.Seeded("x", 1, from...)},
		build:  func(in []*G.Node) (*G.Node, error) { return ops.Reshape(in[0], to...) },
		want:   func(in [][]float64) []float64 { return in[0] },
		naive:  func(in [][]float32) []float32 { return in[0] },
	}
}

func TestReshape(t *testing.T) {
	for _, c := range []nodeCase{
		reshapeCase([]int{2, 3, 4}, 6, 4), reshapeCase([]int{6, 4}, 2, -1, 4), reshapeCase([]int{59}, 1, 59),
		reshapeCase([]int{2, 3}, -1), reshapeCase([]int{2, 3}, 2, 3), reshapeCase([]int{2, 3}, -1, 6), reshapeCase([]int{33000}, 330, -1),
	} {
		c.check(t)
	}
}

func TestReshapeShapes(t *testing.T) {
	g := G.NewGraph()
	x := node(g, "x", 2, 3, 4)
	for want, shape := range map[string][]int{
		"(6, 4)": {6, -1}, "(2, 3, 2, 2)": {2, -1, 2, 2}, "(24)": {-1}, "(24, 1)": {24, -1}, "(1, 24)": {-1, 24},
	} {
		y, err := ops.Reshape(x, shape...)
		require.NoError(t, err)
		require.Equal(t, want, fmt.Sprint(y.Shape()))
	}
}

// Gorgonia's own Reshape aliases its input: the in-place Add after it overwrites x, worse on every run.
func TestReshapeThenInPlaceAddLeavesTheInput(t *testing.T) {
	g := G.NewGraph()
	x := optest.Input{Name: "x", Shape: []int{2, 3}, Data: []float64{1, 2, 3, 4, 5, 6}}.Node(g, tensor.Float32)
	y := optest.Input{Name: "y", Shape: []int{6}, Data: []float64{10, 20, 30, 40, 50, 60}}.Node(g, tensor.Float32)
	r, err := ops.Reshape(x, 6)
	require.NoError(t, err)
	var sum G.Value
	G.Read(G.Must(G.Add(r, y)), &sum)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	for range 3 {
		require.NoError(t, vm.RunAll())
		require.Equal(t, []float32{11, 22, 33, 44, 55, 66}, sum.Data())
		require.Equal(t, []float32{1, 2, 3, 4, 5, 6}, x.Value().Data())
		vm.Reset()
	}
}

func TestReshapeHashes(t *testing.T) {
	var builds []func(in []*G.Node) (*G.Node, error)
	for _, shape := range [][]int{{24}, {6, 4}, {4, 6}, {2, 3, 4}} {
		builds = append(builds, func(in []*G.Node) (*G.Node, error) { return ops.Reshape(in[0], shape...) })
	}
	checkHashes(t, []optest.Input{optest.Seeded("x", 1, 2, 12)}, true, builds...)
}

func TestReshapeErrors(t *testing.T) {
	g := G.NewGraph()
	x := node(g, "x", 2, 3)
	call := func(x *G.Node, shape ...int) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.Reshape(x, shape...) }
	}
	checkErrors(t, "ops.Reshape", []buildError{
		{"nil", call(nil, 6), "x: got a nil node"},
		{"integers", call(nodeOf(g, tensor.Int, "ids", 2, 3), 6), "x: got dtype int, want float32 or float64"},
		{"none", call(x), "got no shape"},
		{"size", call(x, 2, 2), "got shape (2, 2), want one of the 6 elements of (2, 3)"},
		{"less", call(x, 3), "got shape (3), want one of the 6 elements of (2, 3)"},
		{"more", call(x, 6, 2), "got shape (6, 2), want one of the 6 elements of (2, 3)"},
		{"remainder", call(x, 4, -1), "got shape (4, -1), want one of the 6 elements of (2, 3)"},
		{"two open", call(x, -1, -1), "got shape (-1, -1) with more than one -1"},
		{"zero", call(x, 0, 6), "got shape (0, 6), want positive dimensions"},
		{"negative", call(x, -2, 3), "got shape (-2, 3), want positive dimensions"},
	})
	n, err := ops.Reshape(x, 6)
	require.NoError(t, err)
	wrongSize(t, n)
}

func TestReshapeAllocs(t *testing.T) {
	checkAllocs(t, reshapeCase([]int{4, 8}, 32), reshapeCase([]int{256, 512}, -1))
}

func ExampleReshape() {
	y, err := ops.Reshape(exampleVector(), 1, -1)
	printRun(y, err)
	// Output:
	// [-1.000 0.000 2.000]
}
