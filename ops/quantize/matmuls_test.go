package quantize_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops/quantize"
)

// matMulsCase is one x with several matrices.
type matMulsCase struct {
	weights []*quantize.Packed
	x       optest.Input
	biases  []optest.Input
	input   quantize.Input
}

func newMatMulsCase(t testing.TB, configs []quantize.Config, input quantize.Input, biased bool, outs []int, shape ...int) matMulsCase {
	in := shape[len(shape)-1]
	c := matMulsCase{input: input, x: optest.Seeded("x", 1, shape...)}
	for i, out := range outs {
		w := dense(optest.Normal[float32](uint64(2+i), in*out, 0.1), in, out)
		c.weights = append(c.weights, pack(t, w, configs[i%len(configs)]))
		if biased {
			c.biases = append(c.biases, optest.Seeded(fmt.Sprintf("b%d", i), uint64(20+i), out))
		}
	}
	return c
}

func (c matMulsCase) String() string {
	return fmt.Sprintf("%v/x=%v/input=%v/bias=%v", c.weights[0].Config, c.x.Shape, c.input, c.biases != nil)
}

// graph has the products in one node, and in nodes of their own.
func (c matMulsCase) graph(t testing.TB, dt tensor.Dtype) (joint *G.Node, apart G.Nodes) {
	g := G.NewGraph()
	x := c.x.Node(g, dt)
	var ws []*quantize.Weights
	var biases []*G.Node
	for i, p := range c.weights {
		w, err := p.Nodes(g, fmt.Sprintf("w%d", i))
		require.NoError(t, err)
		ws = append(ws, w)
		var bias *G.Node
		if c.biases != nil {
			bias = c.biases[i].Node(g, dt)
			biases = append(biases, bias)
		}
		y, err := quantize.MatMul(x, w, quantize.MatMulConfig{Input: c.input, Bias: bias, NoGrad: true})
		require.NoError(t, err)
		apart = append(apart, y)
	}
	joint, err := quantize.MatMuls(x, ws, quantize.MatMulsConfig{Input: c.input, Biases: biases})
	require.NoError(t, err)
	return joint, apart
}

// run gives the result of the one node and those of the others, one behind the other.
func (c matMulsCase) run(t testing.TB, dt tensor.Dtype) (got, want []float64) {
	joint, apart := c.graph(t, dt)
	values := make([]G.Value, 1+len(apart))
	for i, n := range append(G.Nodes{joint}, apart...) {
		G.Read(n, &values[i])
	}
	vm := G.NewTapeMachine(joint.Graph())
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	for _, v := range values[1:] {
		want = append(want, optest.Values(t, v)...)
	}
	return optest.Values(t, values[0]), want
}

func matMulsCases(t testing.TB) (cases []matMulsCase) {
	for i, cfg := range configs() {
		one := []quantize.Config{cfg}
		cases = append(cases, newMatMulsCase(t, one, quantize.InputFull, i%2 == 0, []int{130, 21, 64}, 1, 70),
			newMatMulsCase(t, one, quantize.InputFull, i%2 == 1, []int{17, 40}, 2, 3, 33))
		if cfg.Scheme.HasScales() {
			cases = append(cases, newMatMulsCase(t, one, quantize.InputINT8, i%2 == 0, []int{130, 21, 64}, 1, 70),
				newMatMulsCase(t, one, quantize.InputINT8, i%2 == 1, []int{17, 40}, 40, 64))
		}
	}
	mixed := []quantize.Config{{Scheme: quantize.INT8}, {Scheme: quantize.INT4, Granularity: quantize.PerGroup}, {Scheme: quantize.INT8, Asymmetric: true}}
	return append(cases, newMatMulsCase(t, mixed, quantize.InputFull, true, []int{9, 20, 70}, 1, 64),
		newMatMulsCase(t, mixed, quantize.InputINT8, false, []int{9, 20, 70}, 2, 64))
}

// TestMatMuls: the bits of MatMul.
func TestMatMuls(t *testing.T) {
	for _, c := range matMulsCases(t) {
		t.Run(c.String(), func(t *testing.T) {
			for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
				got, want := c.run(t, dt)
				require.True(t, slices.Equal(want, got), dt)
			}
		})
	}
}

// TestMatMulsOfLargeMatrices: these are cut among threads.
func TestMatMulsOfLargeMatrices(t *testing.T) {
	for _, cfg := range []quantize.Config{{Scheme: quantize.FP16}, {Scheme: quantize.INT8}, {Scheme: quantize.INT4, Granularity: quantize.PerGroup}} {
		for _, rows := range []int{1, 4, 70} {
			input := quantize.InputFull
			if cfg.Scheme == quantize.INT8 {
				input = quantize.InputINT8
			}
			got, want := newMatMulsCase(t, []quantize.Config{cfg}, input, true, []int{700, 300, 300}, rows, 512).run(t, tensor.Float32)
			require.True(t, slices.Equal(want, got), "%v, %d rows", cfg, rows)
		}
	}
}

func TestMatMulsHashes(t *testing.T) {
	int8s, other := []quantize.Config{{Scheme: quantize.INT8}}, []quantize.Config{{Scheme: quantize.INT8, Asymmetric: true}}
	seen := map[uint32]bool{}
	for _, c := range []matMulsCase{
		newMatMulsCase(t, int8s, quantize.InputFull, false, []int{8, 8}, 2, 8), newMatMulsCase(t, int8s, quantize.InputINT8, false, []int{8, 8}, 2, 8),
		newMatMulsCase(t, int8s, quantize.InputFull, true, []int{8, 8}, 2, 8), newMatMulsCase(t, other, quantize.InputFull, false, []int{8, 8}, 2, 8),
		newMatMulsCase(t, int8s, quantize.InputFull, false, []int{8, 4, 4}, 2, 8),
	} {
		y, _ := c.graph(t, tensor.Float32)
		require.False(t, seen[y.Op().Hashcode()], "%v", c)
		seen[y.Op().Hashcode()] = true
	}
}

func TestMatMulsErrors(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 2, 8).Node(g, tensor.Float32)
	nodes := func(in, out int) *quantize.Weights {
		p := pack(t, dense(optest.Normal[float32](2, in*out, 1), in, out), quantize.Config{Scheme: quantize.FP16})
		w, err := p.Nodes(g, fmt.Sprint("w", in, out))
		require.NoError(t, err)
		return w
	}
	w := nodes(8, 3)
	for want, build := range map[string]func() (*G.Node, error){
		"w: got no weights, want at least one": func() (*G.Node, error) { return quantize.MatMuls(x, nil, quantize.MatMulsConfig{}) },
		"w[1]: got nil": func() (*G.Node, error) {
			return quantize.MatMuls(x, []*quantize.Weights{w, nil}, quantize.MatMulsConfig{})
		},
		"Biases: got 2 for 1 matrices": func() (*G.Node, error) {
			return quantize.MatMuls(x, []*quantize.Weights{w}, quantize.MatMulsConfig{Biases: []*G.Node{x, x}})
		},
		"x: got a nil node": func() (*G.Node, error) {
			return quantize.MatMuls(nil, []*quantize.Weights{w}, quantize.MatMulsConfig{})
		},
		"with 8 inputs, want 7": func() (*G.Node, error) {
			return quantize.MatMuls(x, []*quantize.Weights{w, nodes(7, 3)}, quantize.MatMulsConfig{})
		},
		"integer products need integer weights (w[0])": func() (*G.Node, error) {
			return quantize.MatMuls(x, []*quantize.Weights{w}, quantize.MatMulsConfig{Input: quantize.InputINT8})
		},
		"Biases[0]: got shape (2, 8) of rank 2": func() (*G.Node, error) {
			return quantize.MatMuls(x, []*quantize.Weights{w}, quantize.MatMulsConfig{Biases: []*G.Node{x}})
		},
	} {
		_, err := build()
		require.ErrorContains(t, err, "quantize.MatMuls: ")
		require.ErrorContains(t, err, want)
	}
}
