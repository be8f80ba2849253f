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
	"stheno/internal/parallel"
	"stheno/ops"
)

// refLinear is the definition, summed in T.
func refLinear[T kernel.Float](x, w, b []T, in, out int, cfg ops.LinearConfig) []T {
	y := make([]T, len(x)/in*out)
	for i := range y {
		r, j := i/out, i%out
		var z T
		for p := range in {
			v := refActivation(cfg.Input, x[r*in+p])
			if cfg.TransposeWeight {
				z += v * w[j*in+p]
			} else {
				z += v * w[p*out+j]
			}
		}
		if b != nil {
			z += b[j]
		}
		y[i] = refActivation(cfg.Activation, z)
	}
	return y
}

// linearCase maps x of the given shape to out features. Weights are scaled so that results are of order 1.
func linearCase(cfg ops.LinearConfig, biased bool, out int, shape ...int) nodeCase {
	in := shape[len(shape)-1]
	w := []int{in, out}
	if cfg.TransposeWeight {
		w = []int{out, in}
	}
	c := nodeCase{
		name: fmt.Sprintf("x=%v/out=%d/bias=%v/%+v", shape, out, biased, cfg),
		inputs: []optest.Input{
			optest.Seeded("x", 1, shape...),
			{Name: "w", Shape: w, Data: optest.Normal[float64](2, in*out, 1/math.Sqrt(float64(in)))},
		},
		build: func(in []*G.Node) (*G.Node, error) { return ops.Linear(in[0], in[1], optional(in, 2), cfg) },
		want:  func(d [][]float64) []float64 { return refLinear(d[0], d[1], optional(d, 2), in, out, cfg) },
		naive: func(d [][]float32) []float32 { return refLinear(d[0], d[1], optional(d, 2), in, out, cfg) },
	}
	if biased {
		c.inputs = append(c.inputs, optest.Seeded("b", 3, out))
	}
	// Gorgonia's Mul has no 3-D × 2-D, its products of single rows and columns are vectors, and it has no exact GELU.
	if len(shape) == 2 && shape[0] > 1 && in > 1 && out > 1 && cfg.Activation != ops.ActGELU && cfg.Input == ops.ActNone {
		c.plain = func(in []*G.Node) (*G.Node, error) { return plainLinear(in[0], in[1], optional(in, 2), cfg) }
	}
	return c
}

// plainLinear composes the map of Gorgonia's nodes.
func plainLinear(x, w, b *G.Node, cfg ops.LinearConfig) (*G.Node, error) {
	var err error
	if cfg.TransposeWeight {
		if w, err = G.Transpose(w, 1, 0); err != nil {
			return nil, err
		}
	}
	z, err := G.Mul(x, w)
	if err != nil {
		return nil, err
	}
	if b != nil {
		line := G.Must(G.Reshape(b, tensor.Shape{1, b.Shape()[0]}))
		if z, err = G.BroadcastAdd(z, line, nil, []byte{0}); err != nil {
			return nil, err
		}
	}
	return plainActivation(z, cfg.Activation)
}

func TestLinear(t *testing.T) {
	for a := ops.ActNone; a <= ops.ActSiLU; a++ {
		for _, transposed := range []bool{false, true} {
			cfg := ops.LinearConfig{Activation: a, TransposeWeight: transposed}
			for _, biased := range []bool{false, true} {
				linearCase(cfg, biased, 7, 5, 3).check(t)
			}
		}
		linearCase(ops.LinearConfig{Activation: a}, true, 17, 2, 3, 9).check(t)
		linearCase(ops.LinearConfig{Input: a}, true, 17, 2, 3, 9).check(t)
		linearCase(ops.LinearConfig{Input: a, Activation: ops.ActSiLU, TransposeWeight: true}, false, 33, 70, 20).check(t)
	}
}

func TestLinearAwkwardSizes(t *testing.T) {
	for _, s := range [][3]int{{1, 1, 1}, {1, 59, 97}, {1, 97, 1}, {2, 1, 33}, {31, 33, 1}, {97, 59, 65}, {5, 257, 63}, {130, 16, 64}} {
		for _, cfg := range []ops.LinearConfig{{Activation: ops.ActSiLU}, {TransposeWeight: true}} {
			linearCase(cfg, true, s[2], s[0], s[1]).check(t)
		}
	}
}

// Without a gradient for x, those for w and b are what they were.
func TestLinearNoInputGrad(t *testing.T) {
	for a := ops.ActNone; a <= ops.ActSiLU; a++ {
		for _, biased := range []bool{false, true} {
			c := linearCase(ops.LinearConfig{Activation: a, NoInputGrad: true}, biased, 7, 5, 3)
			c.inputs[0].Const, c.plain = true, nil
			c.check(t)
			c = linearCase(ops.LinearConfig{Input: a, NoInputGrad: true}, biased, 7, 5, 3)
			c.inputs[0].Const, c.plain = true, nil
			c.check(t)
		}
	}
}

func TestLinearNoGrad(t *testing.T) {
	for a := ops.ActNone; a <= ops.ActSiLU; a++ {
		cfg := ops.LinearConfig{Activation: a, NoGrad: true}
		c := linearCase(cfg, true, 17, 4, 9)
		graph := optest.Graph{Inputs: c.inputs, Build: c.build}
		optest.Close(t, a.String(), graph.Run(t, tensor.Float64), c.want(c.data64()), 1e-12)

		g := G.NewGraph()
		in := []*G.Node{node(g, "x", 4, 9), node(g, "w", 9, 17), node(g, "b", 17)}
		y, err := c.build(in)
		require.NoError(t, err)
		require.Equal(t, 3, y.Op().Arity(), "no memory is kept for a backward pass")
		require.Len(t, g.AllNodes(), 4)
		require.Equal(t, []bool{false, false, false}, y.Op().(G.SDOp).DiffWRT(3))
	}
}

// A LispMachine runs every op backwards: a NoGrad node must stop the gradient, not fail.
func TestLinearNoGradOnALispMachine(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 4, 9).Node(g, tensor.Float64)
	w := optest.Seeded("w", 2, 9, 5).Node(g, tensor.Float64)
	y, err := ops.Linear(x, w, nil, ops.LinearConfig{Activation: ops.ActGELU, NoGrad: true})
	require.NoError(t, err)
	G.Must(G.Sum(y))
	vm := G.NewLispMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	grad, err := w.Grad()
	require.NoError(t, err)
	require.Zero(t, absMax(optest.Values(t, grad)))
}

// Only what the derivative needs is kept: ReLU's is a function of the result.
func TestLinearKeepsWhatItNeeds(t *testing.T) {
	for a, want := range map[ops.Activation]int{ops.ActNone: 2, ops.ActReLU: 2, ops.ActGELU: 3, ops.ActGELUTanh: 3, ops.ActSiLU: 3} {
		g := G.NewGraph()
		y, err := ops.Linear(node(g, "x", 4, 9), node(g, "w", 9, 17), nil, ops.LinearConfig{Activation: a})
		require.NoError(t, err)
		require.Equal(t, want, y.Op().Arity(), "%v", a)
	}
}

// A tied embedding is the weight of two layers.
func TestLinearTiedWeights(t *testing.T) {
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("x", 1, 3, 4), optest.Seeded("w", 2, 4, 5)},
		Build: func(in []*G.Node) (*G.Node, error) {
			h, err := ops.Linear(in[0], in[1], nil, ops.LinearConfig{Activation: ops.ActSiLU})
			if err != nil {
				return nil, err
			}
			return ops.Linear(h, in[1], nil, ops.LinearConfig{TransposeWeight: true})
		},
	}.CheckGradients(t, 1e-6)
}

func TestLinearKeepsNaNInItsRow(t *testing.T) {
	x := optest.Seeded("x", 1, 8, 9)
	x.Data[2*9+4], x.Data[5*9] = math.NaN(), math.Inf(1)
	c := linearCase(ops.LinearConfig{Activation: ops.ActGELU}, true, 33, 8, 9)
	got := optest.Graph{Inputs: append([]optest.Input{x}, c.inputs[1:]...), Build: c.build}.Run(t, tensor.Float32)
	for i, v := range got {
		require.Equal(t, i/33 == 2, math.IsNaN(v), "row %d", i/33)
	}
}

func TestLinearHashes(t *testing.T) {
	build := func(b int, cfg ops.LinearConfig) func(in []*G.Node) (*G.Node, error) {
		return func(in []*G.Node) (*G.Node, error) { return ops.Linear(in[0], in[1], given(in, b), cfg) }
	}
	inputs := []optest.Input{optest.Seeded("x", 1, 2, 3), optest.Seeded("w", 2, 3, 3), optest.Seeded("b", 3, 3)}
	checkHashes(t, inputs, true,
		build(0, ops.LinearConfig{}), build(2, ops.LinearConfig{}),
		build(2, ops.LinearConfig{TransposeWeight: true}), build(2, ops.LinearConfig{NoGrad: true}), build(2, ops.LinearConfig{NoInputGrad: true}),
		build(2, ops.LinearConfig{Activation: ops.ActReLU}), build(2, ops.LinearConfig{Input: ops.ActReLU}),
		build(2, ops.LinearConfig{Activation: ops.ActGELU, NoGrad: true}))
	// Nodes with memory of their own never merge.
	checkHashes(t, inputs, false,
		build(2, ops.LinearConfig{Activation: ops.ActGELU}), build(2, ops.LinearConfig{Activation: ops.ActSiLU}),
		build(0, ops.LinearConfig{Activation: ops.ActGELUTanh}))
}

func TestLinearErrors(t *testing.T) {
	g := G.NewGraph()
	x, w, b := node(g, "x", 2, 3), node(g, "w", 3, 4), node(g, "b", 4)
	call := func(x, w, b *G.Node, cfg ops.LinearConfig) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.Linear(x, w, b, cfg) }
	}
	none := ops.LinearConfig{}
	checkErrors(t, "ops.Linear", []buildError{
		{"x", call(nil, w, b, none), "x: got a nil node"},
		{"w", call(x, nil, b, none), "w: got a nil node"},
		{"graphs", call(x, w, node(G.NewGraph(), "b", 4), none), "got nodes of two graphs"},
		{"dtype", call(x, nodeOf(g, tensor.Float64, "w64", 3, 4), b, none), "w: got dtype float64, want float32 as in x"},
		{"integers", call(nodeOf(g, tensor.Int, "ids", 2, 3), w, b, none), "x: got dtype int, want float32 or float64"},
		{"vector", call(node(g, "v", 3), w, b, none), "x: got shape (3) of rank 1, want rank 2 or 3"},
		{"rank 4", call(node(g, "x4", 1, 1, 2, 3), w, b, none), "of rank 4, want rank 2 or 3"},
		{"weight rank", call(x, b, nil, none), "w: got shape (4) of rank 1, want rank 2"},
		{"inner", call(x, node(g, "w2", 4, 3), nil, none), "w: got shape (4, 3), want (3, 3)"},
		{"transposed", call(x, w, b, ops.LinearConfig{TransposeWeight: true}), "w: got shape (3, 4), want (3, 3)"},
		{"bias", call(x, w, node(g, "b2", 3), none), "b: got shape (3), want (4)"},
		{"bias rank", call(x, w, node(g, "b3", 1, 4), none), "b: got shape (1, 4) of rank 2, want rank 1"},
		{"activation", call(x, w, b, ops.LinearConfig{Activation: 9}), "Activation: got 9, want 0 (none) to 4 (silu)"},
		{"input", call(x, w, b, ops.LinearConfig{Input: 9}), "got 9, want 0 (none) to 4 (silu) (Input)"},
		{"negative", call(x, w, b, ops.LinearConfig{Activation: -1}), "Activation: got -1"},
	})
	n, err := ops.Linear(x, w, b, none)
	require.NoError(t, err)
	wrongSize(t, n)
}

func TestLinearAllocs(t *testing.T) {
	for _, cfg := range []ops.LinearConfig{{}, {Activation: ops.ActGELU}} {
		checkAllocs(t, linearCase(cfg, true, 8, 4, 8), linearCase(cfg, true, 256, 256, 256))
	}
}

// The gradient before the activation lives in scratch that later runs use again.
func TestLinearScratchIsReused(t *testing.T) {
	c := linearCase(ops.LinearConfig{Activation: ops.ActGELU}, true, 256, 256, 64)
	c.run(t, tensor.Float32, c.build)
	before := parallel.ScratchBytes()
	for range 5 {
		c.run(t, tensor.Float32, c.build)
	}
	require.LessOrEqual(t, parallel.ScratchBytes(), before+256*256*4)
}

func ExampleLinear() {
	g := G.NewGraph()
	matrix := func(name string, rows, cols int, data ...float32) *G.Node {
		return G.NewMatrix(g, tensor.Float32, G.WithName(name), G.WithShape(rows, cols),
			G.WithValue(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(data))))
	}
	x := matrix("x", 1, 2, 1, 2)
	w := matrix("w", 2, 3, 1, 0, -1, 0, 1, -1)
	y, err := ops.Linear(x, w, nil, ops.LinearConfig{Activation: ops.ActReLU})
	printRun(y, err)
	// Output:
	// [1.000 2.000 0.000]
}

func linearThreads(b *testing.B, threads int) {
	old, err := parallel.SetThreads(threads)
	require.NoError(b, err)
	b.Cleanup(func() { _, _ = parallel.SetThreads(old) })
}

// linearValues are x, w and b, the weights in as many copies as come from memory and not from a cache.
func linearValues(m, k, n, copies int) (x, b G.Value, ws []G.Value) {
	dense := func(data []float32, shape ...int) G.Value {
		return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
	}
	for range copies {
		ws = append(ws, dense(optest.Normal[float32](2, k*n, 0.02), k, n))
	}
	return dense(optest.Normal[float32](1, m*k, 1), m, k), dense(make([]float32, n), n), ws
}

// linearNode is the op for these sizes.
func linearNode(b *testing.B, m, k, n int, cfg ops.LinearConfig) (*G.ExprGraph, *G.Node) {
	g := G.NewGraph()
	y, err := ops.Linear(node(g, "x", m, k), node(g, "w", k, n), node(g, "b", n), cfg)
	require.NoError(b, err)
	return g, y
}

// BenchmarkLinear times the op with a bias, without the machine around it.
func BenchmarkLinear(b *testing.B) {
	for _, s := range [][3]int{{512, 768, 3072}, {512, 3072, 768}, {1, 768, 3072}, {64, 64, 64}} {
		for _, threads := range []int{1, 2} {
			m, k, n := s[0], s[1], s[2]
			b.Run(fmt.Sprintf("m=%d/k=%d/n=%d/threads=%d", m, k, n, threads), func(b *testing.B) {
				linearThreads(b, threads)
				copies := 1
				if m == 1 {
					copies = 256 << 20 / (4 * k * n)
				}
				_, y := linearNode(b, m, k, n, ops.LinearConfig{})
				x, bias, ws := linearValues(m, k, n, copies)
				i := 0
				each := optest.FLOPs(2*float64(m)*float64(k)*float64(n), threads).Run(b, func() {
					if _, err := y.Op().Do(x, ws[i%len(ws)], bias); err != nil {
						b.Fatal(err)
					}
					i++
				})
				if m == 1 {
					b.ReportMetric(4*float64(k)*float64(n)/each, "GB/s")
				}
			})
		}
	}
}

// BenchmarkLinearActivation times the op with an activation and what it keeps for the backward pass.
func BenchmarkLinearActivation(b *testing.B) {
	const m, k, n = 512, 768, 3072
	for a := ops.ActNone; a <= ops.ActSiLU; a++ {
		for _, noGrad := range []bool{false, true} {
			b.Run(fmt.Sprintf("act=%v/nograd=%v", a, noGrad), func(b *testing.B) {
				linearThreads(b, parallel.Threads())
				_, y := linearNode(b, m, k, n, ops.LinearConfig{Activation: a, NoGrad: noGrad})
				x, bias, ws := linearValues(m, k, n, 1)
				in := []G.Value{x, ws[0], bias}
				if y.Op().Arity() == 4 {
					in = append(in, tensor.New(tensor.WithShape(m, n), tensor.Of(tensor.Float32)))
				}
				optest.FLOPs(2*float64(m)*float64(k)*float64(n), parallel.Threads()).Run(b, func() {
					if _, err := y.Op().Do(in...); err != nil {
						b.Fatal(err)
					}
				})
			})
		}
	}
}

// BenchmarkLinearBackward times all three gradients: twice the multiplications of the forward pass.
func BenchmarkLinearBackward(b *testing.B) {
	const m, k, n = 512, 768, 3072
	for _, a := range []ops.Activation{ops.ActNone, ops.ActReLU, ops.ActGELU, ops.ActGELUTanh} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("m=%d/k=%d/n=%d/act=%v/threads=%d", m, k, n, a, threads), func(b *testing.B) {
				linearThreads(b, threads)
				g, y := linearNode(b, m, k, n, ops.LinearConfig{Activation: a})
				var inputs G.Nodes
				for it := g.From(y.ID()); it.Next(); {
					inputs = append(inputs, it.Node().(*G.Node))
				}
				grads, err := y.Op().(G.SDOp).SymDiff(inputs, y, node(g, "gradient", m, n))
				require.NoError(b, err)
				x, bias, ws := linearValues(m, k, n, 1)
				// Memory that was never written is backed by one page of zeros: products read it at another speed.
				dense := func(shape ...int) G.Value {
					return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(optest.Normal[float32](3, tensor.Shape(shape).TotalSize(), 1)))
				}
				given := map[*G.Node]G.Value{inputs[0]: x, inputs[1]: ws[0], inputs[2]: bias}
				var in []G.Value
				for it := g.From(grads[0].ID()); it.Next(); {
					n := it.Node().(*G.Node)
					v := given[n]
					if v == nil {
						v = dense(n.Shape()...)
					}
					in = append(in, v)
				}
				optest.FLOPs(4*float64(m)*float64(k)*float64(n), threads).Run(b, func() {
					if _, err := grads[0].Op().Do(in...); err != nil {
						b.Fatal(err)
					}
				})
			})
		}
	}
}

// A weight that was transposed after its node was made would be read in the wrong order.
func TestLinearOfAWeightTransposedLater(t *testing.T) {
	g := G.NewGraph()
	x, w := optest.Seeded("x", 1, 2, 3).Node(g, tensor.Float32), optest.Seeded("w", 2, 3, 4).Node(g, tensor.Float32)
	y, err := ops.Linear(x, w, nil, ops.LinearConfig{})
	require.NoError(t, err)
	require.NoError(t, w.Value().(*tensor.Dense).Reshape(4, 3))
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.ErrorContains(t, vm.RunAll(), "ops.Linear: input 1: got a value of shape (4, 3), want (3, 4)")
	require.NotNil(t, y)
}
