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

// refActivation is a's definition, rounded to T after each step.
func refActivation[T kernel.Float](a ops.Activation, z T) T {
	switch a {
	case ops.ActReLU:
		return max(z, 0)
	case ops.ActGELU:
		return z / 2 * T(math.Erfc(float64(-z/T(math.Sqrt2))))
	case ops.ActGELUTanh:
		inner := T(math.Sqrt(2/math.Pi)) * (z + T(0.044715)*z*z*z)
		return z / 2 * (1 + T(math.Tanh(float64(inner))))
	case ops.ActSiLU:
		return z / (1 + T(math.Exp(float64(-z))))
	}
	return z
}

func mapActivation[T kernel.Float](a ops.Activation, x []T) []T {
	out := make([]T, len(x))
	for i, v := range x {
		out[i] = refActivation(a, v)
	}
	return out
}

// plainActivation composes a of Gorgonia's nodes; it has none for the exact GELU.
func plainActivation(x *G.Node, a ops.Activation) (*G.Node, error) {
	switch a {
	case ops.ActReLU:
		return G.Rectify(x)
	case ops.ActGELUTanh:
		cube := G.Must(G.HadamardProd(x, G.Must(G.Square(x))))
		inner := G.Must(G.Add(x, G.Must(G.Mul(cube, scalarLike(x, 0.044715)))))
		tanh := G.Must(G.Tanh(G.Must(G.Mul(inner, scalarLike(x, math.Sqrt(2/math.Pi))))))
		half := G.Must(G.Mul(x, scalarLike(x, 0.5)))
		return G.HadamardProd(half, G.Must(G.Add(tanh, scalarLike(x, 1))))
	case ops.ActSiLU:
		return G.HadamardProd(x, G.Must(G.Sigmoid(x)))
	}
	return x, nil
}

// activationNode is a as a node of its own.
func activationNode(x *G.Node, a ops.Activation) (*G.Node, error) {
	switch a {
	case ops.ActReLU:
		return ops.ReLU(x)
	case ops.ActSiLU:
		return ops.SiLU(x)
	}
	return ops.GELU(x, ops.GELUConfig{Tanh: a == ops.ActGELUTanh})
}

var activations = []ops.Activation{ops.ActReLU, ops.ActGELU, ops.ActGELUTanh, ops.ActSiLU}

func activationCase(a ops.Activation, shape ...int) nodeCase {
	c := nodeCase{
		name:   fmt.Sprintf("%v/shape=%v", a, shape),
		inputs: []optest.Input{optest.Seeded("x", 1, shape...)},
		build:  func(in []*G.Node) (*G.Node, error) { return activationNode(in[0], a) },
		want:   func(in [][]float64) []float64 { return mapActivation(a, in[0]) },
		naive:  func(in [][]float32) []float32 { return mapActivation(a, in[0]) },
	}
	if a != ops.ActGELU {
		c.plain = func(in []*G.Node) (*G.Node, error) { return plainActivation(in[0], a) }
	}
	return c
}

func TestActivations(t *testing.T) {
	for _, a := range activations {
		for _, shape := range [][]int{{5, 8}, {2, 3, 17}, {59}, {1, 97}, {33000}} {
			activationCase(a, shape...).check(t)
		}
	}
}

func TestActivationsAtTheEdges(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, a := range activations {
		for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
			c := nodeCase{
				inputs: []optest.Input{{Name: "x", Shape: []int{8}, Data: []float64{-inf, inf, nan, 0, -200, 200, -1e30, 1e30}}},
				build:  func(in []*G.Node) (*G.Node, error) { return activationNode(in[0], a) },
			}
			values := c.run(t, dt, c.build)
			optest.Close(t, fmt.Sprint(a, dt), values[0], []float64{0, inf, nan, 0, 0, 200, 0, 1e30}, 1e23)
			for i, want := range map[int]float64{3: 0, 4: 0, 5: 200, 6: 0} {
				require.InDelta(t, want, values[0][i], 1e-80, "%v %v: value at %v", a, dt, c.inputs[0].Data[i])
			}
			for i, slope := range map[int]float64{4: 0, 5: 1, 6: 0, 7: 1} {
				weight := optest.Normal[float64](99, 8, 1)[i]
				require.InDelta(t, weight*slope, values[1][i], 1e-6, "%v %v: gradient at %v", a, dt, c.inputs[0].Data[i])
			}
			require.True(t, math.IsNaN(values[1][2]) || a == ops.ActReLU)
		}
	}
}

func TestActivationHashes(t *testing.T) {
	var builds []func(in []*G.Node) (*G.Node, error)
	for _, a := range activations {
		builds = append(builds, func(in []*G.Node) (*G.Node, error) { return activationNode(in[0], a) })
	}
	checkHashes(t, []optest.Input{optest.Seeded("x", 1, 2, 3)}, true, builds...)
}

func TestActivationErrors(t *testing.T) {
	g := G.NewGraph()
	for fn, build := range map[string]func(x *G.Node) (*G.Node, error){
		"ops.ReLU": ops.ReLU,
		"ops.SiLU": ops.SiLU,
		"ops.GELU": func(x *G.Node) (*G.Node, error) { return ops.GELU(x, ops.GELUConfig{}) },
	} {
		call := func(x *G.Node) func() (*G.Node, error) { return func() (*G.Node, error) { return build(x) } }
		checkErrors(t, fn, []buildError{
			{fn + "/nil", call(nil), "x: got a nil node"},
			{fn + "/integers", call(nodeOf(g, tensor.Int, "ids", 2, 3)), "x: got dtype int, want float32 or float64"},
			{fn + "/scalar", call(G.NewScalar(g, tensor.Float32, G.WithName("s"))), "x: got a scalar, want rank 1 or more"},
		})
		n, err := build(node(g, "x", 2, 5))
		require.NoError(t, err)
		wrongSize(t, n)
	}
}

func TestActivationAllocs(t *testing.T) {
	for _, a := range activations {
		checkAllocs(t, activationCase(a, 4, 8), activationCase(a, 256, 512))
	}
}

func TestActivationNames(t *testing.T) {
	var names []string
	for a := ops.ActNone; a <= ops.ActSiLU+1; a++ {
		names = append(names, a.String())
	}
	require.Equal(t, []string{"none", "relu", "gelu", "gelu-tanh", "silu", "Activation(5)"}, names)
}

func exampleVector() *G.Node {
	return G.NewVector(G.NewGraph(), tensor.Float32, G.WithName("x"), G.WithShape(3),
		G.WithValue(tensor.New(tensor.WithShape(3), tensor.WithBacking([]float32{-1, 0, 2}))))
}

func ExampleGELU() {
	y, err := ops.GELU(exampleVector(), ops.GELUConfig{})
	printRun(y, err)
	// Output: [-0.159 0.000 1.954]
}

func ExampleSiLU() {
	y, err := ops.SiLU(exampleVector())
	printRun(y, err)
	// Output: [-0.269 0.000 1.762]
}

func ExampleReLU() {
	y, err := ops.ReLU(exampleVector())
	printRun(y, err)
	// Output: [0.000 0.000 2.000]
}

func BenchmarkActivation(b *testing.B) {
	for _, a := range activations {
		b.Run(fmt.Sprintf("%v/n=%d", a, 512*3072), func(b *testing.B) { benchmarkDo(b, activationCase(a, 512, 3072)) })
	}
}
