package ops_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/ops"
)

// refLayerNorm is the definition, summed in T.
func refLayerNorm[T kernel.Float](x, gamma, beta []T, dim int, eps float64) []T {
	out := make([]T, len(x))
	for a := 0; a < len(x); a += dim {
		var sum, squares T
		for _, v := range x[a : a+dim] {
			sum += v
		}
		mean := sum / T(dim)
		for _, v := range x[a : a+dim] {
			squares += (v - mean) * (v - mean)
		}
		rstd := T(1 / math.Sqrt(float64(squares/T(dim))+eps))
		for j, v := range x[a : a+dim] {
			out[a+j] = (v - mean) * rstd
			if gamma != nil {
				out[a+j] *= gamma[j]
			}
			if beta != nil {
				out[a+j] += beta[j]
			}
		}
	}
	return out
}

func layerNormCase(scaled, shifted bool, eps float64, shape ...int) nodeCase {
	dim := shape[len(shape)-1]
	c := nodeCase{
		name:   fmt.Sprintf("shape=%v/gamma=%v/beta=%v/eps=%v", shape, scaled, shifted, eps),
		inputs: []optest.Input{optest.Seeded("x", 1, shape...)},
	}
	gamma, beta := 0, 0 // where in the inputs they are
	if scaled {
		gamma = len(c.inputs)
		c.inputs = append(c.inputs, optest.Seeded("gamma", 2, dim))
	}
	if shifted {
		beta = len(c.inputs)
		c.inputs = append(c.inputs, optest.Seeded("beta", 3, dim))
	}
	norm := eps
	if eps == 0 {
		norm = 1e-5
	}
	c.build = func(in []*G.Node) (*G.Node, error) {
		return ops.LayerNorm(in[0], given(in, gamma), given(in, beta), ops.LayerNormConfig{Eps: eps})
	}
	c.want = func(in [][]float64) []float64 {
		return refLayerNorm(in[0], given(in, gamma), given(in, beta), dim, norm)
	}
	c.naive = func(in [][]float32) []float32 {
		return refLayerNorm(in[0], given(in, gamma), given(in, beta), dim, norm)
	}
	if len(shape) == 2 && scaled && shifted && dim > 1 {
		c.plain = func(in []*G.Node) (*G.Node, error) { return plainLayerNorm(in[0], in[1], in[2], norm) }
	}
	return c
}

// given is in[i], or nothing for i = 0.
func given[E any](in []E, i int) (e E) {
	if i > 0 {
		e = in[i]
	}
	return e
}

// plainLayerNorm composes the norm of Gorgonia's nodes.
func plainLayerNorm(x, gamma, beta *G.Node, eps float64) (*G.Node, error) {
	rows, dim := x.Shape()[0], x.Shape()[1]
	column := func(n *G.Node) *G.Node { return G.Must(G.Reshape(n, tensor.Shape{rows, 1})) }
	line := func(n *G.Node) *G.Node { return G.Must(G.Reshape(n, tensor.Shape{1, dim})) }
	centred, err := G.BroadcastSub(x, column(G.Must(G.Mean(x, 1))), nil, []byte{1})
	if err != nil {
		return nil, err
	}
	variance := G.Must(G.Mean(G.Must(G.Square(centred)), 1))
	root := G.Must(G.Sqrt(G.Must(G.Add(variance, scalarLike(x, eps)))))
	y, err := G.BroadcastHadamardDiv(centred, column(root), nil, []byte{1})
	if err != nil {
		return nil, err
	}
	if y, err = G.BroadcastHadamardProd(y, line(gamma), nil, []byte{0}); err != nil {
		return nil, err
	}
	return G.BroadcastAdd(y, line(beta), nil, []byte{0})
}

func TestLayerNorm(t *testing.T) {
	for _, scaled := range []bool{true, false} {
		for _, shifted := range []bool{true, false} {
			for _, shape := range [][]int{{5, 8}, {2, 3, 17}, {59}, {1, 97}} {
				layerNormCase(scaled, shifted, 0, shape...).check(t)
			}
		}
	}
	layerNormCase(true, true, 0.1, 4, 7).check(t)
	layerNormCase(true, true, 0, 70, 129).check(t)
	layerNormCase(true, true, 0, 300, 65).check(t) // several chunks of rows
}

func TestLayerNormOfConstantAndShiftedRows(t *testing.T) {
	in := optest.Input{Name: "x", Shape: []int{3, 4}, Data: []float64{5, 5, 5, 5, 1e4 + 1, 1e4 - 1, 1e4 + 1, 1e4 - 1, 1e15, -1e15, 1e15, -1e15}}
	got := optest.Graph{Inputs: []optest.Input{in}, Build: func(in []*G.Node) (*G.Node, error) {
		return ops.LayerNorm(in[0], nil, nil, ops.LayerNormConfig{})
	}}.Run(t, tensor.Float32)
	optest.Close(t, "rows", got, []float64{0, 0, 0, 0, 1, -1, 1, -1, 1, -1, 1, -1}, 1e-5)
}

func TestLayerNormKeepsNaNInItsRow(t *testing.T) {
	in := optest.Input{Name: "x", Shape: []int{2, 2}, Data: []float64{math.NaN(), 1, 1, -1}}
	got := optest.Graph{Inputs: []optest.Input{in}, Build: func(in []*G.Node) (*G.Node, error) {
		return ops.LayerNorm(in[0], nil, nil, ops.LayerNormConfig{})
	}}.Run(t, tensor.Float32)
	optest.Close(t, "rows", got, []float64{math.NaN(), math.NaN(), 1, -1}, 1e-5)
}

func TestLayerNormHashes(t *testing.T) {
	build := func(gamma, beta int, eps float64) func(in []*G.Node) (*G.Node, error) {
		return func(in []*G.Node) (*G.Node, error) {
			return ops.LayerNorm(in[0], given(in, gamma), given(in, beta), ops.LayerNormConfig{Eps: eps})
		}
	}
	checkHashes(t, []optest.Input{optest.Seeded("x", 1, 2, 3), optest.Seeded("v", 2, 3)}, true,
		build(1, 1, 0), build(1, 1, 1e-6), build(1, 0, 0), build(0, 1, 0), build(0, 0, 0))
}

func TestLayerNormErrors(t *testing.T) {
	g := G.NewGraph()
	x, v := node(g, "x", 2, 3), node(g, "v", 3)
	call := func(x, gamma, beta *G.Node, eps float64) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.LayerNorm(x, gamma, beta, ops.LayerNormConfig{Eps: eps}) }
	}
	checkErrors(t, "ops.LayerNorm", []buildError{
		{"nil", call(nil, v, v, 0), "x: got a nil node"},
		{"graphs", call(x, v, node(G.NewGraph(), "v", 3), 0), "got nodes of two graphs"},
		{"dtype", call(x, v, nodeOf(g, tensor.Float64, "v64", 3), 0), "beta: got dtype float64, want float32"},
		{"integers", call(nodeOf(g, tensor.Int, "ids", 2, 3), nil, nil, 0), "x: got dtype int, want float32 or float64"},
		{"scalar", call(G.NewScalar(g, tensor.Float32, G.WithName("s")), nil, nil, 0), "got a scalar, want rank 1 or more"},
		{"gamma", call(x, node(g, "wide", 4), v, 0), "gamma: got shape (4), want (3)"},
		{"beta", call(x, v, node(g, "wide", 4), 0), "beta: got shape (4), want (3)"},
		{"rank", call(x, v, node(g, "row", 1, 3), 0), "beta: got shape (1, 3) of rank 2, want rank 1"},
		{"negative", call(x, v, v, -1), "Eps: got -1, want a positive number"},
		{"nan", call(x, v, v, math.NaN()), "Eps: got NaN"},
	})
	n, err := ops.LayerNorm(x, v, v, ops.LayerNormConfig{})
	require.NoError(t, err)
	wrongSize(t, n)
}

func TestLayerNormAllocs(t *testing.T) {
	checkAllocs(t, layerNormCase(true, true, 0, 4, 8), layerNormCase(true, true, 0, 256, 512))
}

func ExampleLayerNorm() {
	g := G.NewGraph()
	x := G.NewMatrix(g, tensor.Float32, G.WithName("x"), G.WithShape(2, 2),
		G.WithValue(tensor.New(tensor.WithShape(2, 2), tensor.WithBacking([]float32{3, 5, 0, -8}))))
	y, err := ops.LayerNorm(x, nil, nil, ops.LayerNormConfig{})
	printRun(y, err)
	// Output: [-1.000 1.000 1.000 -1.000]
}

func BenchmarkLayerNorm(b *testing.B) {
	for _, shape := range [][2]int{{1, 768}, {512, 768}} {
		b.Run(fmt.Sprintf("rows=%d/dim=%d", shape[0], shape[1]), func(b *testing.B) {
			benchmarkDo(b, layerNormCase(true, true, 0, shape[0], shape[1]))
		})
	}
}
