package quantize_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/ops"
	"stheno/ops/quantize"
)

// matMulCase is one configuration of the node. Inputs are x, and the bias if there is one.
type matMulCase struct {
	weights *quantize.Packed
	inputs  []optest.Input
	cfg     quantize.MatMulConfig
	biased  bool
}

func newCase(t testing.TB, weights quantize.Config, cfg quantize.MatMulConfig, biased bool, out int, shape ...int) matMulCase {
	in := shape[len(shape)-1]
	c := matMulCase{cfg: cfg, biased: biased, inputs: []optest.Input{optest.Seeded("x", 1, shape...)}}
	c.weights = pack(t, dense(optest.Normal[float32](2, in*out, 1/math.Sqrt(float64(in))), in, out), weights)
	if biased {
		c.inputs = append(c.inputs, optest.Seeded("b", 3, out))
	}
	return c
}

func (c matMulCase) String() string {
	return fmt.Sprintf("%v/x=%v/out=%d/bias=%v/act=%v/input=%v", c.weights.Config, c.inputs[0].Shape, c.weights.Out, c.biased, c.cfg.Activation, c.cfg.Input)
}

func (c matMulCase) build(in []*G.Node) (*G.Node, error) {
	w, err := c.weights.Nodes(in[0].Graph(), "w")
	if err != nil {
		return nil, err
	}
	cfg := c.cfg
	if c.biased {
		cfg.Bias = in[1]
	}
	return quantize.MatMul(in[0], w, cfg)
}

// plain is the same function by ops.Linear over the dequantized weights.
func (c matMulCase) plain(t testing.TB) func(in []*G.Node) (*G.Node, error) {
	w := optest.Input{Name: "dequantized", Shape: []int{c.weights.In, c.weights.Out}, Data: optest.Float64s(unpack(t, c.weights))}
	return func(in []*G.Node) (*G.Node, error) {
		var bias *G.Node
		if c.biased {
			bias = in[1]
		}
		return ops.Linear(in[0], w.Node(in[0].Graph(), in[0].Dtype()), bias, ops.LinearConfig{Activation: c.cfg.Activation})
	}
}

// graph builds y and the gradients of Σ weights·y with respect to the inputs.
func (c matMulCase) graph(t testing.TB, dt tensor.Dtype, build func(in []*G.Node) (*G.Node, error)) (*G.ExprGraph, G.Nodes) {
	g := G.NewGraph()
	var in G.Nodes
	for _, i := range c.inputs {
		in = append(in, i.Node(g, dt))
	}
	y, err := build(in)
	require.NoError(t, err)
	weights := optest.Input{Name: "weights", Shape: y.Shape(), Data: optest.Normal[float64](99, y.Shape().TotalSize(), 1)}
	loss := G.Must(G.Sum(G.Must(G.HadamardProd(y, weights.Node(g, dt)))))
	grads, err := G.Grad(loss, in...)
	require.NoError(t, err)
	return g, append(G.Nodes{y}, grads...)
}

func (c matMulCase) run(t testing.TB, dt tensor.Dtype, build func(in []*G.Node) (*G.Node, error)) [][]float64 {
	g, reads := c.graph(t, dt, build)
	values := make([]G.Value, len(reads))
	for i, n := range reads {
		G.Read(n, &values[i])
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	var first [][]float64
	for run := range 2 {
		require.NoError(t, vm.RunAll())
		var now [][]float64
		for _, v := range values {
			now = append(now, optest.Values(t, v))
		}
		if run == 0 {
			first = now
		}
		require.Equal(t, first, now, "a second run gives the same")
		vm.Reset()
	}
	return first
}

func largest(x []float64) float64 {
	var m float64
	for _, v := range x {
		m = math.Max(m, math.Abs(v))
	}
	return m
}

func narrow(x []float64) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}

// check demands what every node promises, against Linear over the same numbers.
func (c matMulCase) check(t *testing.T) {
	t.Run(c.String(), func(t *testing.T) {
		for i := range c.inputs { // so that float32 and float64 compute with the same numbers
			c.inputs[i].Data = optest.Float64s(narrow(c.inputs[i].Data))
		}
		exact := c.run(t, tensor.Float64, c.plain(t))
		got64, got32 := c.run(t, tensor.Float64, c.build), c.run(t, tensor.Float32, c.build)
		naive := c.run(t, tensor.Float32, c.plain(t))
		for i, want := range exact {
			if c.cfg.Input == quantize.InputINT8 && (i == 0 || c.cfg.Activation != ops.ActNone) {
				if i > 0 && c.cfg.Activation == ops.ActReLU {
					continue // its derivative jumps where rounding moves a sum across 0
				}
				// The rounding of x: half of 1/127 of its largest number, in each of the products of a sum.
				bar := largest(c.inputs[0].Data) / 254 * 4
				optest.Close(t, "float64", got64[i], want, bar)
				optest.Close(t, "float32", narrow(got32[i]), want, bar)
				continue
			}
			optest.Close(t, "float64", got64[i], want, 1e-12*(1+largest(want)))
			optest.Within(t, "float32", narrow(got32[i]), narrow(naive[i]), want, 2, 1e-6*(1+largest(want)))
		}
		c.checkViews(t, got32)
		c.checkThreads(t, got32)
		c.checkConcurrent(t, got32)
		if c.cfg.Input == quantize.InputFull {
			c.checkGradients(t)
		}
	})
}

// checkGradients compares with finite differences on both machines, with one reader and with several.
func (c matMulCase) checkGradients(t *testing.T) {
	optest.Graph{Inputs: c.inputs, Build: c.build}.CheckGradients(t, 1e-6)
	if c.weights.Out*c.inputs[0].Shape[0] == 1 {
		return
	}
	optest.Graph{Inputs: c.inputs, Build: func(in []*G.Node) (*G.Node, error) {
		y, err := c.build(in)
		if err != nil {
			return nil, err
		}
		a, b := G.Must(G.Sum(G.Must(G.Tanh(y)))), G.Must(G.Sum(G.Must(G.Sigmoid(y))))
		return G.Add(a, b)
	}}.CheckGradients(t, 1e-6)
}

// checkViews feeds x as every second number of a larger tensor.
func (c matMulCase) checkViews(t *testing.T, want [][]float64) {
	got := c.run(t, tensor.Float32, func(in []*G.Node) (*G.Node, error) {
		if in[0].Shape().TotalSize() > 1 {
			spread := make([]float32, 2*len(c.inputs[0].Data))
			for j, v := range c.inputs[0].Data {
				spread[2*j], spread[2*j+1] = float32(v), float32(math.NaN())
			}
			d := dense(spread, append(in[0].Shape().Clone(), 2)...)
			at := make([]tensor.Slice, d.Dims())
			at[d.Dims()-1] = G.S(0)
			view, err := d.Slice(at...)
			require.NoError(t, err)
			require.NoError(t, G.Let(in[0], view))
		}
		return c.build(in)
	})
	require.Equal(t, want, got, "views give the same bits")
}

func (c matMulCase) checkThreads(t *testing.T, want [][]float64) {
	old := parallel.Threads()
	defer parallel.SetThreads(old)
	for _, n := range []int{1, 2, 7} {
		_, err := parallel.SetThreads(n)
		require.NoError(t, err)
		require.Equal(t, want, c.run(t, tensor.Float32, c.build), "%d threads", n)
	}
}

// checkConcurrent runs the op itself from several goroutines: no state of a run may live on it.
func (c matMulCase) checkConcurrent(t *testing.T, want [][]float64) {
	g, reads := c.graph(t, tensor.Float32, c.build)
	y := reads[0]
	var wg sync.WaitGroup
	got, errs := make([][]float64, 4), make([]error, 4)
	for i := range got {
		wg.Go(func() {
			var in []G.Value
			for it := g.From(y.ID()); it.Next(); {
				n := it.Node().(*G.Node)
				if n.Op() != nil { // the kept values, fresh for each run
					in = append(in, op.NewLike(dense(make([]float32, n.Shape().TotalSize()), n.Shape()...)))
					continue
				}
				in = append(in, n.Value())
			}
			v, err := y.Op().Do(in...)
			if errs[i] = err; err == nil {
				got[i] = optest.Values(t, v)
			}
		})
	}
	wg.Wait()
	for i := range got {
		require.NoError(t, errs[i])
		require.Equal(t, want[0], got[i])
	}
}

func TestMatMul(t *testing.T) {
	for i, weights := range configs() {
		act := ops.Activation(i % 5)
		newCase(t, weights, quantize.MatMulConfig{Activation: act}, i%2 == 0, 21, 5, 70).check(t)
		newCase(t, weights, quantize.MatMulConfig{}, true, 17, 2, 3, 33).check(t)
		if weights.Scheme.HasScales() {
			newCase(t, weights, quantize.MatMulConfig{Activation: act, Input: quantize.InputINT8}, i%2 == 1, 21, 5, 70).check(t)
		}
	}
}

func TestMatMulAwkwardSizes(t *testing.T) {
	for i, s := range [][3]int{{1, 1, 1}, {1, 59, 97}, {1, 97, 1}, {2, 1, 33}, {31, 33, 1}, {97, 59, 65}, {1, 257, 63}, {130, 16, 64}} {
		for _, scheme := range []quantize.Scheme{quantize.FP16, quantize.BF16, quantize.INT8, quantize.INT4} {
			newCase(t, quantize.Config{Scheme: scheme}, quantize.MatMulConfig{Activation: ops.Activation(i % 5)}, true, s[2], s[0], s[1]).check(t)
		}
	}
}

// The nodes are seen by Read, and Let binds other weights.
func TestWeightsAreNodes(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 2, 40).Node(g, tensor.Float32)
	cfg := quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerGroup, Asymmetric: true}
	a := pack(t, dense(optest.Normal[float32](2, 40*18, 1), 40, 18), cfg)
	b := pack(t, dense(optest.Normal[float32](3, 40*18, 1), 40, 18), cfg)
	w, err := a.Nodes(g, "layer")
	require.NoError(t, err)
	for _, n := range []*G.Node{w.Codes, w.Scales, w.Zeros} {
		require.Contains(t, n.Name(), "layer.")
	}
	y, err := quantize.MatMul(x, w, quantize.MatMulConfig{NoGrad: true})
	require.NoError(t, err)
	var out, codes G.Value
	G.Read(y, &out)
	G.Read(w.Codes, &codes)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	results := map[*quantize.Packed][]float64{}
	for _, p := range []*quantize.Packed{a, b, a} {
		require.NoError(t, G.Let(w.Codes, p.Codes))
		require.NoError(t, G.Let(w.Scales, p.Scales))
		require.NoError(t, G.Let(w.Zeros, p.Zeros))
		require.NoError(t, vm.RunAll())
		require.Equal(t, p.Codes.Data(), codes.Data())
		got := optest.Values(t, out)
		if before, ok := results[p]; ok {
			require.Equal(t, before, got)
		}
		results[p] = got
		vm.Reset()
	}
	require.NotEqual(t, results[a], results[b])
	require.Contains(t, g.String()+y.String(), "quantize.MatMul")
}

func TestMatMulNoGrad(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 4, 9).Node(g, tensor.Float64)
	c := newCase(t, quantize.Config{Scheme: quantize.INT8}, quantize.MatMulConfig{Activation: ops.ActGELU, NoGrad: true}, false, 5, 4, 9)
	y, err := c.build([]*G.Node{x})
	require.NoError(t, err)
	require.Equal(t, 3, y.Op().Arity(), "no memory is kept for a backward pass")
	require.Equal(t, []bool{false, false, false}, y.Op().(G.SDOp).DiffWRT(3))
	G.Must(G.Sum(y))
	vm := G.NewLispMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	grad, err := x.Grad()
	require.NoError(t, err)
	require.Zero(t, largest(optest.Values(t, grad)))
}

func TestMatMulHashes(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 2, 64).Node(g, tensor.Float32)
	bias := optest.Seeded("b", 1, 16).Node(g, tensor.Float32)
	seen := map[uint32]string{}
	add := func(w *quantize.Weights, cfg quantize.MatMulConfig) {
		n, err := quantize.MatMul(x, w, cfg)
		require.NoError(t, err)
		what := fmt.Sprintf("%+v %+v", w.Config, cfg)
		require.Empty(t, seen[n.Op().Hashcode()], what)
		seen[n.Op().Hashcode()] = what
		again, err := quantize.MatMul(x, w, cfg)
		require.NoError(t, err)
		keeps := cfg.Activation > ops.ActReLU && !cfg.NoGrad
		require.Equal(t, !keeps, n.ID() == again.ID(), "%s: merges with its repetition", what)
	}
	square := dense(optest.Normal[float32](2, 64*64, 1), 64, 64)
	for _, cfg := range configs() {
		for _, transposed := range []bool{false, true} {
			cfg.Transposed = transposed
			w, err := pack(t, square, cfg).Nodes(g, "w"+cfg.String())
			require.NoError(t, err)
			add(w, quantize.MatMulConfig{})
		}
	}
	w, err := pack(t, dense(optest.Normal[float32](2, 64*16, 1), 64, 16), quantize.Config{Scheme: quantize.INT8}).Nodes(g, "w")
	require.NoError(t, err)
	for _, cfg := range []quantize.MatMulConfig{{}, {Input: quantize.InputINT8}, {Bias: bias}, {NoGrad: true}, {Activation: ops.ActReLU},
		{Activation: ops.ActGELU}, {Activation: ops.ActGELU, NoGrad: true}, {Activation: ops.ActSiLU, NoGrad: true}} {
		add(w, cfg)
	}
}

func TestMatMulErrors(t *testing.T) {
	g := G.NewGraph()
	node := func(dt tensor.Dtype, name string, shape ...int) *G.Node {
		return G.NewTensor(g, dt, len(shape), G.WithName(name), G.WithShape(shape...))
	}
	x := node(tensor.Float32, "x", 2, 8)
	nodes := func(cfg quantize.Config) *quantize.Weights {
		w, err := pack(t, dense(make([]float32, 8*4), 8, 4), cfg).Nodes(g, "w"+cfg.String())
		require.NoError(t, err)
		return w
	}
	int8w, half := nodes(quantize.Config{Scheme: quantize.INT8}), nodes(quantize.Config{})
	with := func(change func(w *quantize.Weights)) *quantize.Weights {
		w := *int8w
		change(&w)
		return &w
	}
	none := quantize.MatMulConfig{}
	for _, c := range []struct {
		name string
		x    *G.Node
		w    *quantize.Weights
		cfg  quantize.MatMulConfig
		want string
	}{
		{"x", nil, int8w, none, "x: got a nil node"},
		{"w", x, nil, none, "w: got nil, want weights"},
		{"codes", x, with(func(w *quantize.Weights) { w.Codes = nil }), none, "w.Codes: got a nil node, want one of shape (1, 2, 64)"},
		{"scales", x, with(func(w *quantize.Weights) { w.Scales = nil }), none, "w.Scales: got a nil node"},
		{"no zeros", x, with(func(w *quantize.Weights) { w.Zeros = w.Codes }), none, "w.Zeros: got a node, want none for int8 per-channel"},
		{"zeros", x, with(func(w *quantize.Weights) { w.Config.Asymmetric = true }), none, "w.Zeros: got a nil node"},
		{"codes dtype", x, with(func(w *quantize.Weights) { w.Codes = half.Codes }), none, "w.Codes: got dtype uint16, want uint8 for int8"},
		{"codes shape", x, with(func(w *quantize.Weights) { w.Codes = node(tensor.Uint8, "c", 1, 3, 64) }), none, "w.Codes: got shape (1, 3, 64), want (1, 2, 64)"},
		{"scales shape", x, with(func(w *quantize.Weights) { w.Scales = node(tensor.Float32, "s", 4) }), none, "w.Scales: got shape (4) of rank 1, want rank 2"},
		{"scheme", x, with(func(w *quantize.Weights) { w.Config.Scheme = 7 }), none, "Scheme: got 7"},
		{"group", x, with(func(w *quantize.Weights) { w.Config.Granularity = quantize.PerGroup }), none, "got GroupSize 0, want 32"},
		{"sizes", x, with(func(w *quantize.Weights) { w.In = 0 }), none, "w: got 0 inputs and 4 outputs"},
		{"inputs", node(tensor.Float32, "x9", 2, 9), int8w, none, "x: got shape (2, 9) with 9 inputs, want 8"},
		{"rank", node(tensor.Float32, "x1", 8), int8w, none, "x: got shape (8) of rank 1, want rank 2 or 3"},
		{"dtype", node(tensor.Int, "i", 2, 8), int8w, none, "x: got dtype int, want float32 or float64"},
		{"graphs", G.NewTensor(G.NewGraph(), tensor.Float32, 2, G.WithName("x"), G.WithShape(2, 8)), int8w, none, "got nodes of two graphs"},
		{"bias", x, int8w, quantize.MatMulConfig{Bias: node(tensor.Float32, "b3", 3)}, "Bias: got shape (3), want (4)"},
		{"bias dtype", x, int8w, quantize.MatMulConfig{Bias: node(tensor.Float64, "b64", 4)}, "Bias: got dtype float64, want float32 as in x"},
		{"activation", x, int8w, quantize.MatMulConfig{Activation: 9}, "Activation: got 9, want 0 (none) to 4 (silu)"},
		{"input", x, int8w, quantize.MatMulConfig{Input: 2}, "Input: got 2, want 0 (full) or 1 (int8)"},
		{"integers", x, half, quantize.MatMulConfig{Input: quantize.InputINT8}, "Input: got int8 with weights in fp16, want full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := quantize.MatMul(c.x, c.w, c.cfg)
			require.Nil(t, n)
			require.ErrorContains(t, err, "quantize.MatMul: ")
			require.ErrorContains(t, err, c.want)
		})
	}
	_, err := pack(t, dense(make([]float32, 4), 2, 2), quantize.Config{}).Nodes(g, "")
	require.ErrorContains(t, err, "quantize.Nodes: got no name")
	_, err = (*quantize.Packed)(nil).Nodes(g, "w")
	require.ErrorContains(t, err, "quantize.Nodes: got no codes")
	_, err = pack(t, dense(make([]float32, 4), 2, 2), quantize.Config{}).Nodes(nil, "w")
	require.ErrorContains(t, err, "quantize.Nodes: got a nil graph")
}

// A value of another size than its node has is an error when the node runs.
func TestMatMulWrongSize(t *testing.T) {
	c := newCase(t, quantize.Config{Scheme: quantize.INT8, Asymmetric: true}, quantize.MatMulConfig{}, true, 4, 2, 8)
	g, reads := c.graph(t, tensor.Float32, c.build)
	var in []G.Value
	for it := g.From(reads[0].ID()); it.Next(); {
		in = append(in, it.Node().(*G.Node).Value())
	}
	_, err := reads[0].Op().Do(in...)
	require.NoError(t, err)
	for i := range in {
		bad := append([]G.Value(nil), in...)
		bad[i], _ = op.New[float32](tensor.Shape{3})
		_, err := reads[0].Op().Do(bad...)
		require.ErrorContains(t, err, "quantize.MatMul: ", "input %d", i)
		bad[i] = nil
		_, err = reads[0].Op().Do(bad...)
		require.ErrorContains(t, err, "quantize.MatMul: ", "input %d", i)
	}
	_, err = reads[0].Op().Do(in[:2]...)
	require.ErrorContains(t, err, "got 2 inputs, want 5")
}

func TestMatMulKeepsNaNInItsRow(t *testing.T) {
	for _, input := range []quantize.Input{quantize.InputFull, quantize.InputINT8} {
		c := newCase(t, quantize.Config{Scheme: quantize.INT4}, quantize.MatMulConfig{Input: input, Activation: ops.ActGELU}, true, 33, 8, 9)
		c.inputs[0].Data[2*9+4] = math.NaN()
		got := optest.Graph{Inputs: c.inputs, Build: c.build}.Run(t, tensor.Float32)
		for i, v := range got {
			require.Equal(t, i/33 == 2, math.IsNaN(v), "row %d", i/33)
		}
	}
}

// A warm run allocates as often at any size, and no copy of the weights.
func TestMatMulAllocs(t *testing.T) {
	for _, weights := range configs() {
		count := func(c matMulCase) float64 {
			g, _ := c.graph(t, tensor.Float32, c.build)
			vm := G.NewTapeMachine(g)
			defer vm.Close()
			run := func() {
				require.NoError(t, vm.RunAll())
				vm.Reset()
			}
			run()
			return testing.AllocsPerRun(3, run) / float64(len(g.AllNodes()))
		}
		cfg := quantize.MatMulConfig{Activation: ops.ActGELU}
		if weights.Scheme.HasScales() {
			cfg.Input = quantize.InputINT8
		}
		small, big := count(newCase(t, weights, cfg, true, 8, 4, 8)), count(newCase(t, weights, cfg, true, 200, 100, 150))
		require.LessOrEqual(t, small, 20.0, "%v", weights)
		require.InDelta(t, small, big, 1, "%v", weights)
	}
}

// Scratch is bounded by pieces of the weights, not by their number.
func TestMatMulHoldsNoCopy(t *testing.T) {
	const in, out = 768, 4096
	parallel.ReleaseScratch()
	before := parallel.ScratchBytes()
	c := newCase(t, quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerGroup}, quantize.MatMulConfig{}, false, out, 16, in)
	c.run(t, tensor.Float32, c.build)
	require.Less(t, parallel.ScratchBytes()-before, int64(4*in*out/4), "a quarter of the weights in float32")
}

func ExampleMatMul() {
	packed, err := quantize.Quantize(dense([]float32{1, 0, -1, 0, 1, -1}, 2, 3), quantize.Config{Scheme: quantize.INT8})
	if err != nil {
		fmt.Println(err)
		return
	}
	g := G.NewGraph()
	x := G.NewMatrix(g, tensor.Float32, G.WithName("x"), G.WithShape(1, 2), G.WithValue(dense([]float32{1, 2}, 1, 2)))
	w, err := packed.Nodes(g, "w")
	if err != nil {
		fmt.Println(err)
		return
	}
	y, err := quantize.MatMul(x, w, quantize.MatMulConfig{Activation: ops.ActReLU})
	if err != nil {
		fmt.Println(err)
		return
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.3f\n", y.Value().Data())
	// Output:
	// [1.000 2.000 0.000]
}
