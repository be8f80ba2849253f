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

// refCrossEntropy is the definition, summed in T.
func refCrossEntropy[T kernel.Float](logits []T, vocab int, targets []int, cfg ops.CrossEntropyConfig) T {
	var total T
	count := 0
	for r, t := range targets {
		if cfg.Ignore && t == cfg.IgnoreIndex {
			continue
		}
		count++
		row := logits[r*vocab : (r+1)*vocab]
		top := row[0]
		for _, z := range row {
			top = max(top, z)
		}
		var sum, mean T
		for _, z := range row {
			sum += T(math.Exp(float64(z - top)))
			mean += z / T(vocab)
		}
		lse := top + T(math.Log(float64(sum)))
		eps := T(cfg.LabelSmoothing)
		total += (1-eps)*(lse-row[t]) + T(cfg.ZLoss)*lse*lse
		if eps > 0 {
			total += eps * (lse - mean)
		}
	}
	if cfg.Reduction == ops.ReduceMean && count > 0 {
		total /= T(count)
	}
	return total
}

// crossEntropyCase multiplies the loss by (1, 1), for nodeCase wants a tensor.
func crossEntropyCase(cfg ops.CrossEntropyConfig, targets []int, shape ...int) nodeCase {
	vocab := shape[len(shape)-1]
	c := nodeCase{
		name: fmt.Sprintf("shape=%v/%+v", shape, cfg),
		inputs: []optest.Input{
			optest.Seeded("logits", 1, shape...),
			{Name: "targets", Shape: shape[:len(shape)-1], Ints: targets},
		},
		want: func(in [][]float64) []float64 {
			l := refCrossEntropy(in[0], vocab, targets, cfg)
			return []float64{l, l}
		},
		naive: func(in [][]float32) []float32 {
			l := refCrossEntropy(in[0], vocab, targets, cfg)
			return []float32{l, l}
		},
	}
	c.build = func(in []*G.Node) (*G.Node, error) {
		loss, err := ops.CrossEntropy(in[0], in[1], cfg)
		if err != nil {
			return nil, err
		}
		return twice(loss)
	}
	// Gorgonia's SoftMax runs along the wrong axis of a single column.
	if len(shape) == 2 && vocab > 1 && cfg == (ops.CrossEntropyConfig{}) {
		c.plain = func(in []*G.Node) (*G.Node, error) { return plainCrossEntropy(in[0], targets) }
	}
	return c
}

func twice(loss *G.Node) (*G.Node, error) {
	ones := optest.Input{Name: "ones", Shape: []int{2}, Data: []float64{1, 1}}
	return G.Mul(ones.Node(loss.Graph(), loss.Dtype()), loss)
}

// plainCrossEntropy is −mean Σ onehot·ln softmax of Gorgonia's nodes.
func plainCrossEntropy(logits *G.Node, targets []int) (*G.Node, error) {
	shape := logits.Shape()
	onehot := make([]float64, shape.TotalSize())
	for r, t := range targets {
		onehot[r*shape[1]+t] = -1 / float64(shape[0])
	}
	p, err := G.SoftMax(logits)
	if err != nil {
		return nil, err
	}
	w := optest.Input{Name: "onehot", Shape: shape, Data: onehot}.Node(logits.Graph(), logits.Dtype())
	return twice(G.Must(G.Sum(G.Must(G.HadamardProd(w, G.Must(G.Log(p)))))))
}

func TestCrossEntropy(t *testing.T) {
	crossEntropyCase(ops.CrossEntropyConfig{}, []int{2, 0, 4}, 3, 5).check(t)
	crossEntropyCase(ops.CrossEntropyConfig{}, []int{0, 0}, 2, 1).check(t)
	crossEntropyCase(ops.CrossEntropyConfig{}, optest.Ints(1, 59, 97), 59, 97).check(t)
	crossEntropyCase(ops.CrossEntropyConfig{}, optest.Ints(1, 6, 1025), 2, 3, 1025).check(t)
	ignore := []int{-100, 3, -100, 1, 6, 0}
	for _, cfg := range []ops.CrossEntropyConfig{
		{Ignore: true, IgnoreIndex: -100},
		{Ignore: true, IgnoreIndex: -100, Reduction: ops.ReduceSum},
		{Ignore: true, IgnoreIndex: -100, LabelSmoothing: 0.1},
		{Ignore: true, IgnoreIndex: -100, ZLoss: 0.01},
		{Ignore: true, IgnoreIndex: -100, LabelSmoothing: 0.2, ZLoss: 0.03, Reduction: ops.ReduceSum},
	} {
		crossEntropyCase(cfg, ignore, 2, 3, 7).check(t)
	}
	crossEntropyCase(ops.CrossEntropyConfig{Ignore: true, IgnoreIndex: 2}, []int{2, 1, 2, 0}, 4, 3).check(t)
}

// crossEntropyGrad runs the loss as the cost itself and returns it with its gradient.
func crossEntropyGrad(t *testing.T, dt tensor.Dtype, logits optest.Input, targets []int, cfg ops.CrossEntropyConfig) (loss, grad []float64) {
	g := G.NewGraph()
	z := logits.Node(g, dt)
	y, err := ops.CrossEntropy(z, optest.Input{Name: "targets", Shape: []int{len(targets)}, Ints: targets}.Node(g, dt), cfg)
	require.NoError(t, err)
	require.True(t, y.IsScalar())
	d, err := G.Grad(y, z)
	require.NoError(t, err)
	var l, dz G.Value
	G.Read(y, &l)
	G.Read(d[0], &dz)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	return optest.Values(t, l), optest.Values(t, dz)
}

func TestCrossEntropyAsTheCost(t *testing.T) {
	logits := optest.Input{Name: "logits", Shape: []int{1, 2}, Data: []float64{0, math.Log(3)}}
	for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
		loss, grad := crossEntropyGrad(t, dt, logits, []int{0}, ops.CrossEntropyConfig{})
		optest.Close(t, "loss", loss, []float64{math.Log(4)}, 1e-6)
		optest.Close(t, "gradient", grad, []float64{-0.75, 0.75}, 1e-6)

		g := G.NewGraph()
		z := logits.Node(g, dt)
		_, err := ops.CrossEntropy(z, optest.Input{Name: "targets", Shape: []int{1}, Ints: []int{0}}.Node(g, dt), ops.CrossEntropyConfig{})
		require.NoError(t, err)
		vm := G.NewLispMachine(g)
		require.NoError(t, vm.RunAll())
		d, err := z.Grad()
		require.NoError(t, err)
		optest.Close(t, "gradient on a LispMachine", optest.Values(t, d), []float64{-0.75, 0.75}, 1e-6)
		require.NoError(t, vm.Close())
	}
}

func TestCrossEntropyAllIgnored(t *testing.T) {
	for _, r := range []ops.Reduction{ops.ReduceMean, ops.ReduceSum} {
		loss, grad := crossEntropyGrad(t, tensor.Float32, optest.Seeded("logits", 1, 2, 3), []int{-1, -1},
			ops.CrossEntropyConfig{Ignore: true, IgnoreIndex: -1, LabelSmoothing: 0.1, ZLoss: 0.1, Reduction: r})
		require.Equal(t, []float64{0}, loss)
		require.Equal(t, make([]float64, 6), grad)
	}
}

// An ignored row may hold anything.
func TestCrossEntropyIgnoredRowIsNotRead(t *testing.T) {
	nan := math.NaN()
	logits := optest.Input{Name: "logits", Shape: []int{2, 2}, Data: []float64{nan, nan, 0, 0}}
	loss, grad := crossEntropyGrad(t, tensor.Float32, logits, []int{-1, 1}, ops.CrossEntropyConfig{Ignore: true, IgnoreIndex: -1})
	optest.Close(t, "loss", loss, []float64{math.Ln2}, 1e-6)
	optest.Close(t, "gradient", grad, []float64{0, 0, 0.5, -0.5}, 1e-6)
}

func TestCrossEntropyOfExtremeLogits(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, c := range []struct {
		name   string
		row    []float64
		target int
		cfg    ops.CrossEntropyConfig
		loss   float64
		grad   []float64
	}{
		{"large", []float64{3e38, 3e38, -3e38}, 0, ops.CrossEntropyConfig{}, 0, []float64{-0.5, 0.5, 0}}, // ln 2 is far below an ulp
		{"very negative", []float64{-1e30, -1e30 + 1e29}, 0, ops.CrossEntropyConfig{}, 1e29, []float64{-1, 1}},
		{"excluded class", []float64{1, math.Inf(-1), 1}, 0, ops.CrossEntropyConfig{}, math.Ln2, []float64{-0.5, 0, 0.5}},
		{"excluded class with z-loss", []float64{0, math.Inf(-1), 0}, 0, ops.CrossEntropyConfig{ZLoss: 1}, math.Ln2 + math.Ln2*math.Ln2,
			[]float64{-0.5 + math.Ln2, 0, 0.5 + math.Ln2}},
		{"excluded target", []float64{0, math.Inf(-1)}, 1, ops.CrossEntropyConfig{}, inf, []float64{1, -1}},
		{"excluded class smoothed", []float64{0, math.Inf(-1)}, 0, ops.CrossEntropyConfig{LabelSmoothing: 0.5}, inf, []float64{0.25, -0.25}},
		{"no class", []float64{math.Inf(-1), math.Inf(-1)}, 0, ops.CrossEntropyConfig{}, nan, []float64{nan, nan}},
		{"infinite", []float64{inf, 0}, 0, ops.CrossEntropyConfig{}, nan, []float64{nan, nan}},
		{"nan", []float64{0, nan}, 0, ops.CrossEntropyConfig{}, nan, []float64{nan, nan}},
	} {
		t.Run(c.name, func(t *testing.T) {
			logits := optest.Input{Name: "logits", Shape: []int{1, len(c.row)}, Data: c.row}
			loss, grad := crossEntropyGrad(t, tensor.Float32, logits, []int{c.target}, c.cfg)
			tol := 1e-6
			if !math.IsInf(c.loss, 0) && !math.IsNaN(c.loss) {
				tol = 1e-6 * max(1, c.loss)
			}
			optest.Close(t, "loss", loss, []float64{c.loss}, tol)
			optest.Close(t, "gradient", grad, c.grad, 1e-6)
		})
	}
}

// Logits whose sum leaves float32, under label smoothing: the loss is ln 2 and lost in their size.
func TestCrossEntropySmoothsLogitsWhoseSumOverflows(t *testing.T) {
	for _, x := range []float32{3e38, -3e38} {
		g := G.NewGraph()
		z := G.NewMatrix(g, tensor.Float32, G.WithName("z"), G.WithValue(tensor.New(tensor.WithBacking([]float32{x, x}), tensor.WithShape(1, 2))))
		y := G.NewVector(g, tensor.Int, G.WithName("y"), G.WithValue(tensor.New(tensor.WithBacking([]int{1}), tensor.WithShape(1))))
		loss, err := ops.CrossEntropy(z, y, ops.CrossEntropyConfig{LabelSmoothing: 0.1})
		require.NoError(t, err)
		m := G.NewTapeMachine(g)
		require.NoError(t, m.RunAll())
		require.NoError(t, m.Close())
		require.InDelta(t, 0, loss.Value().Data().(float32), 1e31)
	}
}

func TestCrossEntropyNaNStaysInItsRow(t *testing.T) {
	logits := optest.Input{Name: "logits", Shape: []int{2, 2}, Data: []float64{math.NaN(), 0, 0, 0}}
	_, grad := crossEntropyGrad(t, tensor.Float32, logits, []int{0, 0}, ops.CrossEntropyConfig{Reduction: ops.ReduceSum})
	optest.Close(t, "gradient", grad, []float64{math.NaN(), math.NaN(), -0.5, 0.5}, 1e-6)
}

func TestCrossEntropyTargetOutOfRange(t *testing.T) {
	g := G.NewGraph()
	z := optest.Seeded("logits", 1, 2, 3).Node(g, tensor.Float32)
	for _, bad := range []int{3, -1} {
		y, err := ops.CrossEntropy(z, nodeOf(g, tensor.Int, "targets", 2), ops.CrossEntropyConfig{Ignore: true, IgnoreIndex: -100})
		require.NoError(t, err)
		_, err = y.Op().Do(z.Value(), tensor.New(tensor.WithBacking([]int{-100, bad})), tensor.New(tensor.WithShape(2, 2), tensor.Of(tensor.Float32)))
		require.EqualError(t, err, fmt.Sprintf("ops.CrossEntropy: targets: got %d at element 1, want 0 to 2", bad))
		wrongSize(t, y)
	}
}

func TestCrossEntropyHashes(t *testing.T) {
	base := ops.CrossEntropyConfig{Ignore: true, IgnoreIndex: 1, LabelSmoothing: 0.1, ZLoss: 0.1, Reduction: ops.ReduceSum}
	variants := []ops.CrossEntropyConfig{base}
	for _, edit := range []func(c *ops.CrossEntropyConfig){
		func(c *ops.CrossEntropyConfig) { c.Ignore, c.IgnoreIndex = false, 0 },
		func(c *ops.CrossEntropyConfig) { c.Ignore, c.IgnoreIndex = true, 0 },
		func(c *ops.CrossEntropyConfig) { c.LabelSmoothing = 0.2 },
		func(c *ops.CrossEntropyConfig) { c.ZLoss = 0.2 },
		func(c *ops.CrossEntropyConfig) { c.Reduction = ops.ReduceMean },
	} {
		c := base
		edit(&c)
		variants = append(variants, c)
	}
	var builds []func(in []*G.Node) (*G.Node, error)
	for _, cfg := range variants {
		builds = append(builds, func(in []*G.Node) (*G.Node, error) { return ops.CrossEntropy(in[0], in[1], cfg) })
	}
	// Each loss has a side of its own, so equal ones stay apart.
	checkHashes(t, []optest.Input{optest.Seeded("logits", 1, 2, 3), {Name: "targets", Shape: []int{2}, Ints: []int{0, 1}}}, false, builds...)
}

func TestCrossEntropyErrors(t *testing.T) {
	g := G.NewGraph()
	z, targets := node(g, "logits", 2, 3, 4), nodeOf(g, tensor.Int, "targets", 2, 3)
	call := func(z, targets *G.Node, cfg ops.CrossEntropyConfig) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.CrossEntropy(z, targets, cfg) }
	}
	with := func(cfg ops.CrossEntropyConfig) func() (*G.Node, error) { return call(z, targets, cfg) }
	checkErrors(t, "ops.CrossEntropy", []buildError{
		{"nil logits", call(nil, targets, ops.CrossEntropyConfig{}), "logits: got a nil node"},
		{"nil targets", call(z, nil, ops.CrossEntropyConfig{}), "targets: got a nil node"},
		{"graphs", call(z, nodeOf(G.NewGraph(), tensor.Int, "targets", 2, 3), ops.CrossEntropyConfig{}), "got nodes of two graphs"},
		{"rank", call(node(g, "flat", 4), targets, ops.CrossEntropyConfig{}), "logits: got shape (4) of rank 1, want rank 2 or 3"},
		{"integers", call(nodeOf(g, tensor.Int, "int", 2, 3, 4), targets, ops.CrossEntropyConfig{}), "logits: got dtype int"},
		{"floats", call(z, node(g, "float", 2, 3), ops.CrossEntropyConfig{}), "targets: got dtype float32, want int"},
		{"shape", call(z, nodeOf(g, tensor.Int, "other", 3, 2), ops.CrossEntropyConfig{}), "targets: got shape (3, 2), want (2, 3)"},
		{"index", with(ops.CrossEntropyConfig{IgnoreIndex: -100}), "IgnoreIndex: got -100 without Ignore, want 0"},
		{"smoothing", with(ops.CrossEntropyConfig{LabelSmoothing: 1}), "LabelSmoothing: got 1, want a number in [0, 1)"},
		{"negative smoothing", with(ops.CrossEntropyConfig{LabelSmoothing: -0.1}), "LabelSmoothing: got -0.1"},
		{"smoothing NaN", with(ops.CrossEntropyConfig{LabelSmoothing: math.NaN()}), "LabelSmoothing: got NaN"},
		{"z-loss", with(ops.CrossEntropyConfig{ZLoss: -1}), "ZLoss: got -1"},
		{"z-loss infinite", with(ops.CrossEntropyConfig{ZLoss: math.Inf(1)}), "ZLoss: got +Inf"},
		{"z-loss NaN", with(ops.CrossEntropyConfig{ZLoss: math.NaN()}), "ZLoss: got NaN"},
		{"reduction", with(ops.CrossEntropyConfig{Reduction: 2}), "Reduction: got Reduction(2), want mean or sum"},
	})
}

func TestCrossEntropyAllocs(t *testing.T) {
	checkAllocs(t, crossEntropyCase(ops.CrossEntropyConfig{}, []int{1, 0}, 2, 3),
		crossEntropyCase(ops.CrossEntropyConfig{}, optest.Ints(1, 256, 1000), 256, 1000))
}

func ExampleCrossEntropy() {
	g := G.NewGraph()
	logits := G.NewMatrix(g, tensor.Float32, G.WithName("logits"), G.WithShape(2, 2),
		G.WithValue(tensor.New(tensor.WithShape(2, 2), tensor.WithBacking([]float32{0, 0, 5, 0}))))
	targets := G.NewVector(g, tensor.Int, G.WithName("targets"), G.WithShape(2),
		G.WithValue(tensor.New(tensor.WithBacking([]int{0, -100}))))
	loss, err := ops.CrossEntropy(logits, targets, ops.CrossEntropyConfig{Ignore: true, IgnoreIndex: -100})
	if err != nil {
		fmt.Println(err)
		return
	}
	grads, err := G.Grad(loss, logits)
	if err != nil {
		fmt.Println(err)
		return
	}
	var l, d G.Value
	G.Read(loss, &l)
	G.Read(grads[0], &d)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.4f %.2f\n", l.Data(), d.Data())
	// Output: 0.6931 [-0.50 0.50 0.00 0.00]
}

func BenchmarkCrossEntropy(b *testing.B) {
	const rows, vocab = 256, 50257
	g := G.NewGraph()
	z := optest.Seeded("logits", 1, rows, vocab).Node(g, tensor.Float32)
	targets := optest.Input{Name: "targets", Shape: []int{rows}, Ints: optest.Ints(1, rows, vocab)}.Node(g, tensor.Float32)
	loss, err := ops.CrossEntropy(z, targets, ops.CrossEntropyConfig{})
	require.NoError(b, err)
	side := tensor.New(tensor.WithShape(rows, 2), tensor.Of(tensor.Float32))
	in := []G.Value{z.Value(), targets.Value(), side}
	b.Run(fmt.Sprintf("forward/rows=%d/vocab=%d", rows, vocab), func(b *testing.B) {
		b.SetBytes(4 * rows * vocab)
		for b.Loop() {
			if _, err := loss.Op().Do(in...); err != nil {
				b.Fatal(err)
			}
		}
	})
	grads, err := G.Grad(loss, z)
	require.NoError(b, err)
	b.Run(fmt.Sprintf("backward/rows=%d/vocab=%d", rows, vocab), func(b *testing.B) {
		b.SetBytes(8 * rows * vocab)
		one := G.NewF32(1)
		for b.Loop() {
			if _, err := grads[0].Op().Do(append(in, one, one)...); err != nil {
				b.Fatal(err)
			}
		}
	})
}
