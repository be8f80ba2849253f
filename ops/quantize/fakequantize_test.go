package quantize_test

import (
	"fmt"
	"math"
	"strings"
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

// fakeCase is one configuration of FakeQuantize. Inputs are x, and the scales if they are learned.
type fakeCase struct {
	cfg    quantize.FakeQuantizeConfig
	inputs []optest.Input
}

func newFake(cfg quantize.FakeQuantizeConfig, scales []float64, scaleShape []int, shape ...int) fakeCase {
	c := fakeCase{cfg: cfg, inputs: []optest.Input{optest.Seeded("x", 1, shape...)}}
	c.inputs[0].Data = optest.Float64s(narrow(c.inputs[0].Data))
	if scales != nil {
		c.inputs = append(c.inputs, optest.Input{Name: "scale", Shape: scaleShape, Data: optest.Float64s(narrow(scales))})
	}
	return c
}

func (c fakeCase) build(in []*G.Node) (*G.Node, error) {
	cfg := c.cfg
	if len(in) > 1 {
		cfg.Scale = in[1]
	}
	return quantize.FakeQuantize(in[0], cfg)
}

// run returns x̂ and the gradients of Σ weights·x̂, and dOut, which is weights.
func (c fakeCase) run(t testing.TB, dt tensor.Dtype, machine string) (got [][]float64, dOut []float64) {
	t.Helper()
	g := G.NewGraph()
	var in G.Nodes
	for _, i := range c.inputs {
		in = append(in, i.Node(g, dt))
	}
	y, err := c.build(in)
	require.NoError(t, err)
	dOut = optest.Float64s(narrow(optest.Normal[float64](99, y.Shape().TotalSize(), 1)))
	weights := optest.Input{Name: "weights", Shape: y.Shape(), Data: dOut}
	loss := G.Must(G.Sum(G.Must(G.HadamardProd(y, weights.Node(g, dt)))))
	if machine == "lisp" {
		vm := G.NewLispMachine(g)
		defer vm.Close()
		require.NoError(t, vm.RunAll())
		got = append(got, optest.Values(t, y.Value()))
		for _, n := range in {
			d, err := n.Grad()
			require.NoError(t, err)
			got = append(got, optest.Values(t, d))
		}
		return got, dOut
	}
	grads, err := G.Grad(loss, in...)
	require.NoError(t, err)
	reads := make([]G.Value, 1+len(grads))
	for i, n := range append(G.Nodes{y}, grads...) {
		G.Read(n, &reads[i])
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	defer op.Poison()() // results of the second run lie in memory of the first, full of NaN
	results := op.NewRecycler(g, nil, nil)
	for range 2 {
		require.NoError(t, vm.RunAll())
		got = nil
		for _, v := range reads {
			got = append(got, optest.Values(t, v))
		}
		vm.Reset()
		results.Release()
	}
	require.Equal(t, c.inputs[0].Data, optest.Values(t, in[0].Value()), "x is unchanged")
	return got, dOut
}

// both runs both machines, demands the same of them, and of threads.
func (c fakeCase) both(t testing.TB, dt tensor.Dtype) (got [][]float64, dOut []float64) {
	t.Helper()
	got, dOut = c.run(t, dt, "tape")
	lisp, _ := c.run(t, dt, "lisp")
	require.Equal(t, got, lisp)
	old := parallel.Threads()
	defer parallel.SetThreads(old)
	for _, n := range []int{1, 7} {
		_, err := parallel.SetThreads(n)
		require.NoError(t, err)
		again, _ := c.run(t, dt, "tape")
		require.Equal(t, got, again, "%d threads", n)
	}
	return got, dOut
}

// What training sees is what Quantize stores, bit for bit, and gradients pass.
func TestFakeQuantizeIsTheCodec(t *testing.T) {
	for _, cfg := range configs() {
		for _, transposed := range []bool{false, true} {
			cfg.Transposed = transposed
			for _, s := range [][2]int{{70, 37}, {1, 1}, {33, 16}} {
				c := newFake(quantize.FakeQuantizeConfig{Weights: cfg}, nil, nil, s[0], s[1])
				w := narrow(c.inputs[0].Data)
				for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
					got, dOut := c.both(t, dt)
					require.Equal(t, unpack(t, pack(t, dense(w, s[0], s[1]), cfg)), narrow(got[0]), "%v", cfg)
					require.Equal(t, dOut, got[1], "straight through")
				}
			}
		}
	}
}

func TestFakeQuantizeClips(t *testing.T) {
	for _, cfg := range integerConfigs() {
		c := newFake(quantize.FakeQuantizeConfig{Weights: cfg, Clip: true}, nil, nil, 140, 19)
		got, dOut := c.both(t, tensor.Float32)
		p := packWith(t, dense(narrow(c.inputs[0].Data), 140, 19), cfg, quantize.Rounding{Method: quantize.Clipped})
		require.Equal(t, unpack(t, p), narrow(got[0]), "%v", cfg)
		beyond := 0
		for i, x := range c.inputs[0].Data {
			want := dOut[i]
			if math.Abs(x-got[0][i]) > step(p, i/19, i%19)*0.5001 {
				want = 0
				beyond++
			}
			require.Equal(t, want, got[1][i], "%v %d", cfg, i)
		}
		if cfg.Scheme == quantize.INT4 && cfg.Granularity != quantize.PerGroup {
			require.Positive(t, beyond)
		}
	}
}

// With learned scales: the values of Fixed, and the gradients of Esser et al. in plain loops.
func TestFakeQuantizeLearnsScales(t *testing.T) {
	const in, out = 70, 18
	for _, cfg := range integerConfigs() {
		if cfg.Asymmetric {
			continue
		}
		for _, transposed := range []bool{false, true} {
			cfg.Transposed = transposed
			shape := []int{in, out}
			if transposed {
				shape = []int{out, in}
			}
			base := newFake(quantize.FakeQuantizeConfig{Weights: cfg}, nil, nil, shape...)
			w := dense(narrow(base.inputs[0].Data), shape...)
			first := packWith(t, w, cfg, quantize.Rounding{Method: quantize.Clipped})
			scales := optest.Float64s(first.Scales.Data().([]float32))
			for i := range scales {
				scales[i] *= 0.7 // so that much is clipped
			}
			c := newFake(base.cfg, scales, first.Scales.Shape(), shape...)
			fixed := quantize.Rounding{Method: quantize.Fixed, Scales: dense(narrow(scales), first.Scales.Shape()...)}
			for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
				got, dOut := c.both(t, dt)
				stored := unpack(t, packWith(t, w, cfg, fixed))
				if dt == tensor.Float32 {
					require.Equal(t, stored, narrow(got[0]))
				} else {
					optest.Close(t, "values", stored, got[0], 1e-6*largest(got[0]))
				}
				q := 127.0
				if cfg.Scheme == quantize.INT4 {
					q = 7
				}
				dx, ds, n := make([]float64, in*out), make([]float64, len(scales)), make([]float64, len(scales))
				for i, x := range c.inputs[0].Data {
					row, col := i/out, i%out
					if transposed {
						row, col = i%in, i/in
					}
					at := 0
					switch cfg.Granularity {
					case quantize.PerChannel:
						at = col
					case quantize.PerGroup:
						at = row/first.Config.GroupSize*out + col
					}
					n[at]++
					switch v := x / c.inputs[1].Data[at]; {
					case v >= q:
						ds[at] += q * dOut[i]
					case v <= -q:
						ds[at] -= q * dOut[i]
					default:
						dx[i] = dOut[i]
						ds[at] += (math.RoundToEven(v) - v) * dOut[i]
					}
				}
				for i := range ds {
					ds[i] /= math.Sqrt(n[i] * q)
				}
				require.Equal(t, dx, got[1])
				tol := 1e-12
				if dt == tensor.Float32 {
					tol = 1e-6
				}
				optest.Close(t, "ds", got[2], ds, tol*(1+largest(ds)))
				require.Contains(t, dx, 0.0)
			}
		}
	}
}

// Rows are rounded as MatMul rounds them: a product with the same weights is the same but for the order of sums.
func TestFakeQuantizeOfRowsIsMatMuls(t *testing.T) {
	const rows, in, out = 37, 45, 20
	c := newFake(quantize.FakeQuantizeConfig{Rows: true}, nil, nil, rows, in)
	packed := pack(t, dense(optest.Normal[float32](2, in*out, 1), in, out), quantize.Config{Scheme: quantize.INT8})
	for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
		got, dOut := c.both(t, dt)
		require.Equal(t, dOut, got[1])
		run := func(x []float64, input quantize.Input) []float64 {
			g := G.NewGraph()
			w, err := packed.Nodes(g, "w")
			require.NoError(t, err)
			y, err := quantize.MatMul(optest.Input{Name: "x", Shape: []int{rows, in}, Data: x}.Node(g, dt), w, quantize.MatMulConfig{Input: input})
			require.NoError(t, err)
			vm := G.NewTapeMachine(g)
			defer vm.Close()
			require.NoError(t, vm.RunAll())
			return optest.Values(t, y.Value())
		}
		want := run(c.inputs[0].Data, quantize.InputINT8)
		optest.Close(t, "product", run(got[0], quantize.InputFull), want, 2e-6*largest(want))
		for r := range rows {
			row := got[0][r*in : (r+1)*in]
			require.InDelta(t, largest(c.inputs[0].Data[r*in:(r+1)*in]), largest(row), 1e-6)
		}
	}
}

// A learned scale of inputs is one for all.
func TestFakeQuantizeLearnsTheScaleOfRows(t *testing.T) {
	const s = 0.0125
	c := newFake(quantize.FakeQuantizeConfig{Rows: true}, []float64{s}, []int{1}, 4, 33, 9)
	scale := c.inputs[1].Data[0]
	for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
		got, dOut := c.both(t, dt)
		var ds float64
		for i, x := range c.inputs[0].Data {
			v := x / scale
			r := min(max(math.RoundToEven(v), -127), 127)
			require.InDelta(t, scale*r, got[0][i], 1e-7)
			if math.Abs(v) >= 127 {
				require.Zero(t, got[1][i])
				ds += r * dOut[i]
			} else {
				require.Equal(t, dOut[i], got[1][i])
				ds += (r - v) * dOut[i]
			}
		}
		require.InDelta(t, ds/math.Sqrt(9*127), got[2][0], 1e-5*(1+math.Abs(ds)))
	}
}

func TestFakeQuantizeKeepsNaNInItsRow(t *testing.T) {
	for _, scales := range [][]float64{nil, {0.1}} {
		c := newFake(quantize.FakeQuantizeConfig{Rows: true}, scales, []int{1}, 3, 8)
		c.inputs[0].Data[9] = math.NaN()
		for i, v := range (optest.Graph{Inputs: c.inputs, Build: c.build}).Run(t, tensor.Float32) {
			if math.IsNaN(v) {
				require.Equal(t, 1, i/8)
				if scales != nil {
					require.Equal(t, 9, i)
				}
			}
		}
	}
}

// Training with rounded weights finds weights whose codes err less than the codes of the best weights do, and the codes give
// the same outputs as training saw.
func TestTrainingForCodes(t *testing.T) {
	const rows, in, out = 256, 24, 8
	w := optest.Normal[float64](1, in*out, 0.3)
	x := outliers(rows, in)
	mix := optest.Normal[float64](5, in*in, 0.3)
	for i := range in {
		mix[i*in+i] += 1
	}
	x = product(x, mix, rows, in, in)
	want := product(x, w, rows, in, out)
	weights := quantize.Config{Scheme: quantize.INT4}
	m, err := quantize.NewMoments(in)
	require.NoError(t, err)
	require.NoError(t, m.Add(dense(x, rows, in)))
	exact := dense(append([]float64(nil), w...), in, out)
	nearest := outputError(t, exact, pack(t, exact, weights), m)
	for _, learned := range []bool{false, true} {
		g := G.NewGraph()
		params := G.Nodes{optest.Input{Name: "w", Shape: []int{in, out}, Data: append([]float64(nil), w...)}.Node(g, tensor.Float64)}
		cfg := quantize.FakeQuantizeConfig{Weights: weights}
		if learned {
			first := packWith(t, exact, weights, quantize.Rounding{Method: quantize.Clipped})
			cfg.Scale = optest.Input{Name: "s", Shape: first.Scales.Shape(), Data: optest.Float64s(first.Scales.Data().([]float32))}.Node(g, tensor.Float64)
			params = append(params, cfg.Scale)
		}
		rounded, err := quantize.FakeQuantize(params[0], cfg)
		require.NoError(t, err)
		y, err := ops.Linear(optest.Input{Name: "x", Shape: []int{rows, in}, Data: x}.Node(g, tensor.Float64), rounded, nil, ops.LinearConfig{})
		require.NoError(t, err)
		target := optest.Input{Name: "target", Shape: []int{rows, out}, Data: want}.Node(g, tensor.Float64)
		loss := G.Must(G.Mean(G.Must(G.Square(G.Must(G.Sub(y, target))))))
		_, err = G.Grad(loss, params...)
		require.NoError(t, err)
		vm := G.NewTapeMachine(g, G.BindDualValues(params...))
		solver, err := ops.NewAdamW(ops.AdamWConfig{LR: 0.004})
		require.NoError(t, err)
		for range 150 {
			require.NoError(t, vm.RunAll())
			require.NoError(t, solver.Step(G.NodesToValueGrads(params)))
			vm.Reset()
		}
		require.NoError(t, vm.RunAll())
		r := quantize.Rounding{}
		if learned {
			r = quantize.Rounding{Method: quantize.Fixed, Scales: cfg.Scale.Value().(*tensor.Dense)}
		}
		p := packWith(t, params[0].Value().(*tensor.Dense), weights, r)
		optest.Close(t, "codes", unpack(t, p), optest.Values(t, rounded.Value()), 1e-6)
		got := outputError(t, exact, p, m)
		require.Less(t, got, 0.6*nearest, "learned scales %v", learned)
		require.NoError(t, vm.Close())
	}
}

func TestFakeQuantizeHashes(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 32, 32).Node(g, tensor.Float32)
	one := optest.Seeded("one", 1, 1).Node(g, tensor.Float32)
	per := optest.Seeded("per", 1, 1, 32).Node(g, tensor.Float32)
	all := []quantize.FakeQuantizeConfig{{Rows: true}, {Rows: true, Scale: one}, {Weights: quantize.Config{Scheme: quantize.INT8}, Scale: per},
		{Weights: quantize.Config{Scheme: quantize.INT8}, Clip: true}}
	for _, cfg := range configs() {
		all = append(all, quantize.FakeQuantizeConfig{Weights: cfg})
		cfg.Transposed = true
		all = append(all, quantize.FakeQuantizeConfig{Weights: cfg})
	}
	seen := map[uint32]bool{}
	for _, cfg := range all {
		n, err := quantize.FakeQuantize(x, cfg)
		require.NoError(t, err)
		require.False(t, seen[n.Op().Hashcode()], "%+v", cfg)
		seen[n.Op().Hashcode()] = true
		again, err := quantize.FakeQuantize(x, cfg)
		require.NoError(t, err)
		require.Equal(t, n.ID(), again.ID())
	}
}

func TestFakeQuantizeErrors(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 4, 3).Node(g, tensor.Float32)
	scale := optest.Seeded("s", 1, 1, 3).Node(g, tensor.Float32)
	int8s := quantize.Config{Scheme: quantize.INT8}
	for want, c := range map[string]struct {
		x   *G.Node
		cfg quantize.FakeQuantizeConfig
	}{
		"x: got a nil node":                     {nil, quantize.FakeQuantizeConfig{}},
		"x: got dtype int":                      {G.NewVector(g, tensor.Int, G.WithName("i"), G.WithShape(2)), quantize.FakeQuantizeConfig{Rows: true}},
		"x: got shape (4) of rank 1, want rank": {optest.Seeded("v", 1, 4).Node(g, tensor.Float32), quantize.FakeQuantizeConfig{}},
		"x: got shape ()":                       {G.NewScalar(g, tensor.Float32, G.WithName("sc")), quantize.FakeQuantizeConfig{Rows: true}},
		"Scheme: got 9":                         {x, quantize.FakeQuantizeConfig{Weights: quantize.Config{Scheme: 9}}},
		"Rows: got Weights int8 per-channel":    {x, quantize.FakeQuantizeConfig{Rows: true, Weights: int8s}},
		"got Clip true and Scale false":         {x, quantize.FakeQuantizeConfig{Clip: true}},
		"got Clip and a Scale":                  {x, quantize.FakeQuantizeConfig{Weights: int8s, Clip: true, Scale: scale}},
		"Scale: got shape (1, 3) of rank 2":     {x, quantize.FakeQuantizeConfig{Rows: true, Scale: scale}},
		"want symmetric weights":                {x, quantize.FakeQuantizeConfig{Weights: quantize.Config{Scheme: quantize.INT8, Asymmetric: true}, Scale: scale}},
		"Scale: got dtype float64":              {x, quantize.FakeQuantizeConfig{Weights: int8s, Scale: optest.Seeded("s64", 1, 1, 3).Node(g, tensor.Float64)}},
		"Scale: got shape (1, 4), want (1, 3)":  {x, quantize.FakeQuantizeConfig{Weights: int8s, Scale: optest.Seeded("s4", 1, 1, 4).Node(g, tensor.Float32)}},
	} {
		n, err := quantize.FakeQuantize(c.x, c.cfg)
		require.Nil(t, n)
		require.ErrorContains(t, err, "quantize.FakeQuantize: ")
		require.ErrorContains(t, err, want)
	}
	// What only a run can know.
	n, err := quantize.FakeQuantize(x, quantize.FakeQuantizeConfig{Weights: int8s, Scale: scale})
	require.NoError(t, err)
	for want, in := range map[string][]G.Value{
		"x: got 3 elements, want 12":     {dense([]float32{1, 2, 3}, 3), dense([]float32{1, 1, 1}, 1, 3)},
		"Scale: got 2 elements, want 3":  {dense(make([]float32, 12), 4, 3), dense([]float32{1, 1}, 1, 2)},
		"Scale: got -1 at element 1":     {dense(make([]float32, 12), 4, 3), dense([]float32{1, -1, 1}, 1, 3)},
		"w[0, 1]: got NaN":               {dense(append([]float32{0, float32(math.NaN())}, make([]float32, 10)...), 4, 3), dense([]float32{1, 1, 1}, 1, 3)},
		"got 1 inputs, want 2":           {dense(make([]float32, 12), 4, 3)},
		"x: op: got a tensor of float64": {dense(make([]float64, 12), 4, 3), dense([]float32{1, 1, 1}, 1, 3)},
	} {
		_, err := n.Op().Do(in...)
		require.Error(t, err)
		require.True(t, strings.HasPrefix(err.Error(), "quantize.FakeQuantize: "), "%v", err)
		require.ErrorContains(t, err, want)
	}
}

// One graph may run from several goroutines, x may be a view, and a warm run allocates the same at any size.
func TestFakeQuantizeRuns(t *testing.T) {
	int4s := quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerGroup}
	for _, cfg := range []quantize.FakeQuantizeConfig{{Weights: int4s}, {Rows: true}, {Weights: quantize.Config{Scheme: quantize.BF16}}} {
		c := newFake(cfg, nil, nil, 70, 20)
		want, _ := c.run(t, tensor.Float32, "tape")
		g := G.NewGraph()
		y, err := c.build([]*G.Node{c.inputs[0].Node(g, tensor.Float32)})
		require.NoError(t, err)
		spread := make([]float32, 2*70*20)
		for i, v := range c.inputs[0].Data {
			spread[2*i], spread[2*i+1] = float32(v), float32(math.NaN())
		}
		view, err := dense(spread, 70, 20, 2).Slice(nil, nil, G.S(0))
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				v, err := y.Op().Do(view)
				require.NoError(t, err)
				require.Equal(t, want[0], optest.Values(t, v))
			})
		}
		wg.Wait()
		allocs := func(rows, cols int) float64 {
			c := newFake(cfg, nil, nil, rows, cols)
			g := G.NewGraph()
			y, err := c.build([]*G.Node{c.inputs[0].Node(g, tensor.Float32)})
			require.NoError(t, err)
			x := op.NewLike(dense(make([]float32, rows*cols), rows, cols))
			return testing.AllocsPerRun(5, func() {
				if _, err := y.Op().Do(x); err != nil {
					t.Fatal(err)
				}
			})
		}
		require.InDelta(t, allocs(8, 8), allocs(200, 150), 2, "%+v", cfg)
	}
}

func ExampleFakeQuantize() {
	g := G.NewGraph()
	w := G.NewMatrix(g, tensor.Float32, G.WithName("w"), G.WithShape(3, 1), G.WithValue(dense([]float32{0.7, 0.31, -0.26}, 3, 1)))
	rounded, err := quantize.FakeQuantize(w, quantize.FakeQuantizeConfig{Weights: quantize.Config{Scheme: quantize.INT4}})
	if err != nil {
		fmt.Println(err)
		return
	}
	grads, err := G.Grad(G.Must(G.Sum(G.Must(G.Square(rounded)))), w)
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
	fmt.Printf("%.1f %.1f\n", rounded.Value().Data(), grads[0].Value().Data())
	// Output:
	// [0.7 0.3 -0.3] [1.4 0.6 -0.6]
}

// A matrix that was reshaped after its node was made has other groups.
func TestFakeQuantizeOfAMatrixReshapedLater(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 32, 64).Node(g, tensor.Float32)
	_, err := quantize.FakeQuantize(x, quantize.FakeQuantizeConfig{})
	require.NoError(t, err)
	require.NoError(t, x.Value().(*tensor.Dense).Reshape(64, 32))
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.ErrorContains(t, vm.RunAll(), "quantize.FakeQuantize: input 0: got a value of shape (64, 32), want (32, 64)")
}
