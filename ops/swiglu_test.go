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

func refSwiGLU[T kernel.Float](gate, up []T) []T {
	out := mapActivation(ops.ActSiLU, gate)
	for i, u := range up {
		out[i] *= u
	}
	return out
}

func swiGLUCase(shape ...int) nodeCase {
	return nodeCase{
		name:   fmt.Sprintf("shape=%v", shape),
		inputs: []optest.Input{optest.Seeded("gate", 1, shape...), optest.Seeded("up", 2, shape...)},
		build:  func(in []*G.Node) (*G.Node, error) { return ops.SwiGLU(in[0], in[1]) },
		want:   func(in [][]float64) []float64 { return refSwiGLU(in[0], in[1]) },
		naive:  func(in [][]float32) []float32 { return refSwiGLU(in[0], in[1]) },
		plain: func(in []*G.Node) (*G.Node, error) {
			silu, err := plainActivation(in[0], ops.ActSiLU)
			if err != nil {
				return nil, err
			}
			return G.HadamardProd(silu, in[1])
		},
	}
}

func TestSwiGLU(t *testing.T) {
	for _, shape := range [][]int{{5, 8}, {2, 3, 17}, {59}, {1, 97}, {33000}} {
		swiGLUCase(shape...).check(t)
	}
}

func TestSwiGLUOfOneNode(t *testing.T) {
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("x", 1, 3, 5)},
		Build:  func(in []*G.Node) (*G.Node, error) { return ops.SwiGLU(in[0], in[0]) },
	}.CheckGradients(t, 1e-6)
}

func TestSwiGLUErrors(t *testing.T) {
	g := G.NewGraph()
	x := node(g, "x", 2, 5)
	call := func(gate, up *G.Node) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.SwiGLU(gate, up) }
	}
	checkErrors(t, "ops.SwiGLU", []buildError{
		{"gate", call(nil, x), "gate: got a nil node"},
		{"up", call(x, nil), "up: got a nil node"},
		{"graphs", call(x, node(G.NewGraph(), "x", 2, 5)), "got nodes of two graphs"},
		{"shape", call(x, node(g, "y", 5, 2)), "up: got shape (5, 2), want (2, 5)"},
		{"rank", call(x, node(g, "z", 10)), "up: got shape (10) of rank 1, want rank 2"},
		{"dtype", call(x, nodeOf(g, tensor.Float64, "d", 2, 5)), "up: got dtype float64, want float32 as in gate"},
	})
	n, err := ops.SwiGLU(x, x)
	require.NoError(t, err)
	wrongSize(t, n)
}

func TestSwiGLUAllocs(t *testing.T) { checkAllocs(t, swiGLUCase(4, 8), swiGLUCase(256, 512)) }

func ExampleSwiGLU() {
	x := exampleVector()
	y, err := ops.SwiGLU(x, x)
	printRun(y, err)
	// Output: [0.269 0.000 3.523]
}

func BenchmarkSwiGLU(b *testing.B) { benchmarkDo(b, swiGLUCase(512, 3072)) }
