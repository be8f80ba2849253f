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

// refRMSNorm is the definition, summed in T.
func refRMSNorm[T kernel.Float](x, gamma []T, dim int, eps float64) []T {
	out := make([]T, len(x))
	for a := 0; a < len(x); a += dim {
		var sum T
		for _, v := range x[a : a+dim] {
			sum += v * v
		}
		rstd := T(1 / math.Sqrt(float64(sum/T(dim))+eps))
		for j, v := range x[a : a+dim] {
			out[a+j] = v * rstd
			if gamma != nil {
				out[a+j] *= gamma[j]
			}
		}
	}
	return out
}

func rmsNormCase(scaled bool, eps float64, shape ...int) nodeCase {
	dim := shape[len(shape)-1]
	c := nodeCase{
		name:   fmt.Sprintf("shape=%v/gamma=%v/eps=%v", shape, scaled, eps),
		inputs: []optest.Input{optest.Seeded("x", 1, shape...)},
	}
	if scaled {
		c.inputs = append(c.inputs, optest.Seeded("gamma", 2, dim))
	}
	norm := eps
	if eps == 0 {
		norm = 1e-6
	}
	c.build = func(in []*G.Node) (*G.Node, error) {
		return ops.RMSNorm(in[0], optional(in, 1), ops.RMSNormConfig{Eps: eps})
	}
	c.want = func(in [][]float64) []float64 { return refRMSNorm(in[0], optional(in, 1), dim, norm) }
	c.naive = func(in [][]float32) []float32 { return refRMSNorm(in[0], optional(in, 1), dim, norm) }
	if len(shape) == 2 && scaled {
		c.plain = func(in []*G.Node) (*G.Node, error) { return plainRMSNorm(in[0], in[1], norm) }
	}
	return c
}

// plainRMSNorm composes the norm of Gorgonia's nodes. Its InverseSqrt has a wrong gradient, so it divides by a Sqrt.
func plainRMSNorm(x, gamma *G.Node, eps float64) (*G.Node, error) {
	ms, err := G.Mean(G.Must(G.Square(x)), 1)
	if err != nil {
		return nil, err
	}
	root := G.Must(G.Sqrt(G.Must(G.Add(ms, scalarLike(x, eps)))))
	root = G.Must(G.Reshape(root, tensor.Shape{x.Shape()[0], 1}))
	y, err := G.BroadcastHadamardDiv(x, root, nil, []byte{1})
	if err != nil {
		return nil, err
	}
	return G.BroadcastHadamardProd(y, G.Must(G.Reshape(gamma, tensor.Shape{1, x.Shape()[1]})), nil, []byte{0})
}

// scalarLike is a constant of x's dtype.
func scalarLike(x *G.Node, v float64) *G.Node {
	if x.Dtype() == tensor.Float64 {
		return G.NewConstant(v)
	}
	return G.NewConstant(float32(v))
}

// optional is in[i], or nothing where there is no such input.
func optional[E any](in []E, i int) (e E) {
	if i < len(in) {
		e = in[i]
	}
	return e
}

func TestRMSNorm(t *testing.T) {
	for _, scaled := range []bool{true, false} {
		for _, shape := range [][]int{{5, 8}, {2, 3, 17}, {59}, {2, 1}, {1, 97}, {70, 129}} {
			rmsNormCase(scaled, 0, shape...).check(t)
		}
		rmsNormCase(scaled, 0.1, 4, 7).check(t)
	}
	rmsNormCase(true, 0, 300, 65).check(t) // several chunks of rows
}

func TestRMSNormOfZerosAndHugeRows(t *testing.T) {
	in := optest.Input{Name: "x", Shape: []int{3, 4}, Data: []float64{0, 0, 0, 0, 1e15, -1e15, 1e15, -1e15, 1e-15, 0, 0, 0}}
	got := optest.Graph{Inputs: []optest.Input{in}, Build: func(in []*G.Node) (*G.Node, error) {
		return ops.RMSNorm(in[0], nil, ops.RMSNormConfig{})
	}}.Run(t, tensor.Float32)
	optest.Close(t, "rows", got, []float64{0, 0, 0, 0, 1, -1, 1, -1, 1e-12, 0, 0, 0}, 1e-6)
}

func TestRMSNormKeepsNaNInItsRow(t *testing.T) {
	in := optest.Input{Name: "x", Shape: []int{2, 2}, Data: []float64{math.NaN(), 1, 1, 1}}
	got := optest.Graph{Inputs: []optest.Input{in}, Build: func(in []*G.Node) (*G.Node, error) {
		return ops.RMSNorm(in[0], nil, ops.RMSNormConfig{})
	}}.Run(t, tensor.Float32)
	optest.Close(t, "rows", got, []float64{math.NaN(), math.NaN(), 1, 1}, 1e-5)
}

func TestRMSNormHashes(t *testing.T) {
	build := func(scaled bool, cfg ops.RMSNormConfig) func(in []*G.Node) (*G.Node, error) {
		return func(in []*G.Node) (*G.Node, error) {
			if !scaled {
				return ops.RMSNorm(in[0], nil, cfg)
			}
			return ops.RMSNorm(in[0], in[1], cfg)
		}
	}
	checkHashes(t, []optest.Input{optest.Seeded("x", 1, 2, 3), optest.Seeded("gamma", 2, 3)}, true,
		build(true, ops.RMSNormConfig{}), build(true, ops.RMSNormConfig{Eps: 1e-5}), build(false, ops.RMSNormConfig{}))
}

func TestRMSNormErrors(t *testing.T) {
	g := G.NewGraph()
	x, gamma := node(g, "x", 2, 3), node(g, "gamma", 3)
	call := func(x, gamma *G.Node, eps float64) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.RMSNorm(x, gamma, ops.RMSNormConfig{Eps: eps}) }
	}
	checkErrors(t, "ops.RMSNorm", []buildError{
		{"nil", call(nil, gamma, 0), "x: got a nil node"},
		{"graphs", call(x, node(G.NewGraph(), "gamma", 3), 0), "got nodes of two graphs"},
		{"dtype", call(x, nodeOf(g, tensor.Float64, "gamma64", 3), 0), "gamma: got dtype float64, want float32"},
		{"integers", call(nodeOf(g, tensor.Int, "ids", 2, 3), nil, 0), "x: got dtype int, want float32 or float64"},
		{"scalar", call(G.NewScalar(g, tensor.Float32, G.WithName("s")), nil, 0), "got a scalar, want rank 1 or more"},
		{"width", call(x, node(g, "wide", 4), 0), "gamma: got shape (4), want (3)"},
		{"rank", call(x, node(g, "row", 1, 3), 0), "gamma: got shape (1, 3) of rank 2, want rank 1"},
		{"negative", call(x, gamma, -1), "Eps: got -1, want a positive number"},
		{"nan", call(x, gamma, math.NaN()), "Eps: got NaN"},
		{"infinite", call(x, gamma, math.Inf(1)), "Eps: got +Inf"},
	})
	n, err := ops.RMSNorm(x, gamma, ops.RMSNormConfig{})
	require.NoError(t, err)
	wrongSize(t, n)
}

func TestRMSNormAllocs(t *testing.T) {
	checkAllocs(t, rmsNormCase(true, 0, 4, 8), rmsNormCase(true, 0, 256, 512))
}

func ExampleRMSNorm() {
	g := G.NewGraph()
	x := G.NewMatrix(g, tensor.Float32, G.WithName("x"), G.WithShape(2, 2),
		G.WithValue(tensor.New(tensor.WithShape(2, 2), tensor.WithBacking([]float32{3, 3, 0, -8}))))
	y, err := ops.RMSNorm(x, nil, ops.RMSNormConfig{})
	printRun(y, err)
	// Output: [1.000 1.000 0.000 -1.414]
}

func BenchmarkRMSNorm(b *testing.B) {
	for _, shape := range [][2]int{{1, 768}, {512, 768}, {512, 4096}} {
		b.Run(fmt.Sprintf("rows=%d/dim=%d", shape[0], shape[1]), func(b *testing.B) {
			benchmarkDo(b, rmsNormCase(true, 0, shape[0], shape[1]))
		})
	}
}
