package ops_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/ops"
)

// fakeParam is a parameter without a graph, whose gradient adds up.
type fakeParam struct {
	name        string
	value, grad G.Value
	err         error
}

func (p *fakeParam) Name() string           { return p.name }
func (p *fakeParam) Value() G.Value         { return p.value }
func (p *fakeParam) Grad() (G.Value, error) { return p.grad, p.err }

func newFakeParam[T kernel.Float](name string, seed uint64, shape ...int) *fakeParam {
	value, v := op.New[T](shape)
	copy(v, optest.Normal[T](seed, len(v), 1))
	grad, _ := op.New[T](shape)
	return &fakeParam{name: name, value: value, grad: grad}
}

// setGrad writes new gradients of N(0, sigma²).
func setGrad[T kernel.Float](p *fakeParam, seed uint64, sigma float64) {
	g := op.Memory[T](p.grad.(*tensor.Dense))
	copy(g, optest.Normal[T](seed, len(g), sigma))
}

func memory[T kernel.Float](v G.Value) []T { return op.Memory[T](v.(*tensor.Dense)) }

func valueGrads(params []*fakeParam) []G.ValueGrad {
	var out []G.ValueGrad
	for _, p := range params {
		out = append(out, p)
	}
	return out
}

func newAdamW(t testing.TB, cfg ops.AdamWConfig) *ops.AdamW {
	t.Helper()
	s, err := ops.NewAdamW(cfg)
	require.NoError(t, err)
	return s
}

// refAdamW is algorithm 2 of the paper in T, with a constant rate and every default spelled out.
type refAdamW[T kernel.Float] struct {
	lr, b1, b2, eps, decay T
	t                      int
	m, v                   [][]T
}

func (r *refAdamW[T]) step(params, grads [][]T, decays []bool, clip float64) {
	if r.m == nil {
		for _, p := range params {
			r.m, r.v = append(r.m, make([]T, len(p))), append(r.v, make([]T, len(p)))
		}
	}
	var sum float64
	for _, g := range grads {
		for _, x := range g {
			sum += float64(x) * float64(x)
		}
	}
	scale := T(1)
	if norm := math.Sqrt(sum); clip > 0 && norm > clip {
		scale = T(clip / norm)
	}
	r.t++
	c1, c2 := T(1-math.Pow(float64(r.b1), float64(r.t))), T(1-math.Pow(float64(r.b2), float64(r.t)))
	for i, p := range params {
		decay := r.decay
		if !decays[i] {
			decay = 0
		}
		for j := range p {
			g := grads[i][j] * scale
			r.m[i][j] = r.b1*r.m[i][j] + (1-r.b1)*g
			r.v[i][j] = r.b2*r.v[i][j] + (1-r.b2)*g*g
			p[j] -= r.lr * decay * p[j]
			p[j] -= r.lr * (r.m[i][j] / c1) / (T(math.Sqrt(float64(r.v[i][j]/c2))) + r.eps)
		}
	}
}

// adamShapes are parameters below, at and beyond one chunk.
var adamShapes = [][]int{{1}, {7}, {128, 128}, {16385}, {59, 700}}

func TestAdamWAgainstReference(t *testing.T) {
	t.Run("float64", func(t *testing.T) { testAdamW[float64](t) })
	t.Run("float32", func(t *testing.T) { testAdamW[float32](t) })
}

func testAdamW[T kernel.Float](t *testing.T) {
	cfg := ops.AdamWConfig{LR: 0.01, WeightDecay: 0.1, Clip: 100, NoDecay: func(name string) bool { return name == "p1" }}
	s := newAdamW(t, cfg)
	var params []*fakeParam
	var exact [][]float64
	var naive [][]T
	decays := make([]bool, len(adamShapes))
	for i, shape := range adamShapes {
		p := newFakeParam[T](fmt.Sprintf("p%d", i), uint64(i), shape...)
		params = append(params, p)
		naive = append(naive, append([]T(nil), memory[T](p.value)...))
		exact = append(exact, optest.Float64s(memory[T](p.value)))
		decays[i] = i != 1
	}
	ref := refAdamW[float64]{lr: 0.01, b1: 0.9, b2: 0.999, eps: 1e-8, decay: 0.1}
	plain := refAdamW[T]{lr: 0.01, b1: 0.9, b2: 0.999, eps: 1e-8, decay: 0.1}
	for step := range 12 {
		// About 74,000 elements: the norm is below the limit in even steps and twice as large in odd ones.
		sigma := []float64{0.1, 0.75}[step%2]
		var grads [][]T
		var wide [][]float64
		var sum float64
		for i, p := range params {
			setGrad[T](p, uint64(100*step+i), sigma)
			g := memory[T](p.grad)
			grads, wide = append(grads, append([]T(nil), g...)), append(wide, optest.Float64s(g))
			for _, x := range wide[i] {
				sum += x * x
			}
		}
		ref.step(exact, wide, decays, 100)
		plain.step(naive, grads, decays, 100)
		require.NoError(t, s.Step(valueGrads(params)))
		require.InEpsilon(t, math.Sqrt(sum), s.LastNorm(), 1e-6)
		for i, p := range params {
			require.Equal(t, make([]T, len(grads[i])), memory[T](p.grad), "gradients are zeroed")
			if _, ok := any(T(0)).(float64); ok {
				optest.Close(t, p.name, memory[T](p.value), exact[i], 1e-13)
			} else {
				// The floor is two roundings of the largest parameters, of about 4.
				optest.Within(t, p.name, memory[T](p.value), naive[i], exact[i], 2, 1e-6)
			}
		}
	}
	require.Equal(t, 12, s.Steps())
}

// adamGraph is Σ (x⊙w − y)² + Σ w + b with the parameters w and b.
func adamGraph(t testing.TB) (g *G.ExprGraph, params G.Nodes, cost *G.Node) {
	g = G.NewGraph()
	w := optest.Seeded("w", 1, 3, 4).Node(g, tensor.Float64)
	x := optest.Seeded("x", 2, 3, 4).Node(g, tensor.Float64)
	y := optest.Seeded("y", 3, 3, 4).Node(g, tensor.Float64)
	b := G.NewScalar(g, tensor.Float64, G.WithName("b"), G.WithValue(2.0))
	diff := G.Must(G.Sub(G.Must(G.HadamardProd(x, w)), y))
	cost = G.Must(G.Add(G.Must(G.Sum(G.Must(G.Square(diff)))), G.Must(G.Sum(w))))
	cost = G.Must(G.Add(cost, G.Must(G.Square(b))))
	return g, G.Nodes{w, b}, cost
}

// trainAdamGraph makes steps of solver on a fresh graph and returns w and b.
func trainAdamGraph(t testing.TB, solver G.Solver, bind bool, steps int) []float64 {
	g, params, cost := adamGraph(t)
	_, err := G.Grad(cost, params...)
	require.NoError(t, err)
	var opts []G.VMOpt
	if bind {
		opts = append(opts, G.BindDualValues(params...))
	}
	vm := G.NewTapeMachine(g, opts...)
	defer vm.Close()
	for range steps {
		require.NoError(t, vm.RunAll())
		require.NoError(t, solver.Step(G.NodesToValueGrads(params)))
		vm.Reset()
	}
	return append(optest.Values(t, params[0].Value()), optest.Values(t, params[1].Value())...)
}

func TestAdamWWithoutDecayIsGorgoniasAdam(t *testing.T) {
	want := trainAdamGraph(t, G.NewAdamSolver(G.WithLearnRate(0.05), G.WithBeta1(0.8), G.WithBeta2(0.95), G.WithEps(1e-6)), true, 20)
	for _, bind := range []bool{true, false} {
		s := newAdamW(t, ops.AdamWConfig{LR: 0.05, Beta1: 0.8, Beta2: 0.95, Eps: 1e-6})
		optest.Close(t, fmt.Sprint("BindDualValues ", bind), trainAdamGraph(t, s, bind, 20), want, 1e-12)
	}
}

func TestAdamWOnALispMachine(t *testing.T) {
	want := trainAdamGraph(t, newAdamW(t, ops.AdamWConfig{}), true, 1)
	g, params, _ := adamGraph(t)
	vm := G.NewLispMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	require.NoError(t, newAdamW(t, ops.AdamWConfig{}).Step(G.NodesToValueGrads(params)))
	optest.Close(t, "parameters", append(optest.Values(t, params[0].Value()), optest.Values(t, params[1].Value())...), want, 1e-12)
	for _, p := range params {
		d, err := p.Grad()
		require.NoError(t, err)
		for _, x := range optest.Values(t, d) {
			require.Zero(t, x)
		}
	}
}

// Two runs before a step give the sum of their gradients.
func TestAdamWAccumulates(t *testing.T) {
	g, params, cost := adamGraph(t)
	_, err := G.Grad(cost, params...)
	require.NoError(t, err)
	vm := G.NewTapeMachine(g, G.BindDualValues(params...))
	defer vm.Close()
	s := newAdamW(t, ops.AdamWConfig{LR: 1e-12})
	norm := func(runs int) float64 {
		for range runs {
			require.NoError(t, vm.RunAll())
			vm.Reset()
		}
		require.NoError(t, s.Step(G.NodesToValueGrads(params)))
		return s.LastNorm()
	}
	once := norm(1)
	require.InEpsilon(t, 2*once, norm(2), 1e-9)
	require.InEpsilon(t, once, norm(1), 1e-9)
}

// Gorgonia gives the terms of a sum one gradient, and a term that is the cost the constant 1. Neither may be zeroed for the
// first of its parameters.
func TestAdamWSharedGradients(t *testing.T) {
	g := G.NewGraph()
	a := optest.Seeded("a", 1, 5).Node(g, tensor.Float64)
	b := optest.Seeded("b", 1, 5).Node(g, tensor.Float64)
	c := G.NewScalar(g, tensor.Float64, G.WithName("c"), G.WithValue(1.0))
	cost := G.Must(G.Add(G.Must(G.Sum(G.Must(G.Square(G.Must(G.Add(a, b)))))), c))
	_, err := G.Grad(cost, a, b, c)
	require.NoError(t, err)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	s := newAdamW(t, ops.AdamWConfig{LR: 0.1})
	for step := 1; step <= 5; step++ {
		require.NoError(t, vm.RunAll())
		require.NoError(t, s.Step(G.NodesToValueGrads(G.Nodes{a, b, c})))
		vm.Reset()
		require.Equal(t, a.Value().Data(), b.Value().Data(), "step %d", step)
		// A gradient of 1 at every step moves a parameter by the learning rate.
		require.InDelta(t, 1-0.1*float64(step), c.Value().Data(), 1e-6)
	}
	require.NotEqual(t, optest.Seeded("a", 1, 5).Data, a.Value().Data())
}

func TestAdamWGradientViews(t *testing.T) {
	p := newFakeParam[float32]("p", 1, 3, 2)
	wide, mem := op.New[float32](tensor.Shape{3, 4})
	copy(mem, optest.Normal[float32](2, 12, 1))
	view, err := wide.Slice(nil, G.S(0, 2))
	require.NoError(t, err)
	p.grad = view.(*tensor.Dense)
	s := newAdamW(t, ops.AdamWConfig{})
	require.ErrorContains(t, s.Step([]G.ValueGrad{p}), "ops.AdamW.Step: parameter p: got a gradient of type *tensor.Dense that is not contiguous")

	// As the value of a gradient node, which is not written, it is fine.
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 3, 2).Node(g, tensor.Float64)
	more := optest.Seeded("more", 2, 3, 1).Node(g, tensor.Float64)
	weights := optest.Seeded("weights", 3, 3, 3).Node(g, tensor.Float64)
	both, err := G.Concat(1, x, more)
	require.NoError(t, err)
	_, err = G.Grad(G.Must(G.Sum(G.Must(G.HadamardProd(both, weights)))), x)
	require.NoError(t, err)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	before := optest.Values(t, x.Value())
	require.NoError(t, s.Step([]G.ValueGrad{x}))
	for i, after := range optest.Values(t, x.Value()) {
		w := optest.Values(t, weights.Value())[i/2*3+i%2]
		require.InDelta(t, before[i]-math.Copysign(0.001, w), after, 1e-6)
	}
}

func TestAdamWAtAnyThreadCount(t *testing.T) {
	old := parallel.Threads()
	defer parallel.SetThreads(old)
	var want [][]float32
	for _, threads := range []int{1, 2, 3, 7} {
		_, err := parallel.SetThreads(threads)
		require.NoError(t, err)
		s := newAdamW(t, ops.AdamWConfig{Clip: 1, WeightDecay: 0.1})
		var params []*fakeParam
		for i, shape := range adamShapes {
			params = append(params, newFakeParam[float32](fmt.Sprint(i), uint64(i), shape...))
		}
		for step := range 3 {
			for i, p := range params {
				setGrad[float32](p, uint64(10*step+i), 1)
			}
			require.NoError(t, s.Step(valueGrads(params)))
		}
		var got [][]float32
		for _, p := range params {
			got = append(got, memory[float32](p.value))
		}
		got = append(got, []float32{float32(s.LastNorm())})
		if want == nil {
			want = got
		}
		require.Equal(t, want, got, "%d threads", threads)
	}
}

func TestAdamWNonFiniteGradient(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		s := newAdamW(t, ops.AdamWConfig{Clip: 1})
		params := []*fakeParam{newFakeParam[float32]("good", 1, 20000), newFakeParam[float32]("bad", 2, 20000), newFakeParam[float64]("wide", 3, 2)}
		good, broken := append([]float32(nil), memory[float32](params[0].value)...), append([]float32(nil), memory[float32](params[1].value)...)
		setGrad[float32](params[0], 1, 1)
		memory[float32](params[1].grad)[19999] = float32(bad)
		err := s.Step(valueGrads(params))
		require.ErrorIs(t, err, ops.ErrNonFinite)
		require.ErrorContains(t, err, "the first at parameter bad")
		require.Equal(t, good, memory[float32](params[0].value))
		require.Equal(t, broken, memory[float32](params[1].value))
		require.Zero(t, s.Steps())
		require.False(t, s.LastNorm() < math.Inf(1))
		require.Equal(t, make([]float32, 20000), memory[float32](params[1].grad))
		require.NoError(t, s.Step(valueGrads(params)), "training goes on")
		require.Equal(t, good, memory[float32](params[0].value), "the bad step left no moments")
	}
}

// Squares of these leave float32.
func TestAdamWHugeGradients(t *testing.T) {
	s := newAdamW(t, ops.AdamWConfig{LR: 0.1, Clip: 1})
	p := newFakeParam[float32]("p", 1, 2)
	copy(memory[float32](p.value), []float32{0, 0})
	copy(memory[float32](p.grad), []float32{3e30, -4e30})
	require.NoError(t, s.Step([]G.ValueGrad{p}))
	require.InEpsilon(t, 5e30, s.LastNorm(), 1e-6)
	optest.Close(t, "parameters", memory[float32](p.value), []float64{-0.1, 0.1}, 1e-6)
}

func TestAdamWClips(t *testing.T) {
	a, b := newAdamW(t, ops.AdamWConfig{Clip: 2}), newAdamW(t, ops.AdamWConfig{})
	p, q := newFakeParam[float64]("p", 1, 4), newFakeParam[float64]("p", 1, 4)
	for _, g := range [][]float64{{3, 0, 4, 0}, {0, 0.3, 0, 0.4}} {
		copy(memory[float64](p.grad), g)
		for i, x := range g {
			memory[float64](q.grad)[i] = x * min(1, 2/math.Hypot(math.Hypot(g[0], g[1]), math.Hypot(g[2], g[3])))
		}
		require.NoError(t, a.Step([]G.ValueGrad{p}))
		require.NoError(t, b.Step([]G.ValueGrad{q}))
		optest.Close(t, "parameters", memory[float64](p.value), memory[float64](q.value), 1e-15)
	}
}

func TestAdamWFollowsItsSchedule(t *testing.T) {
	s := newAdamW(t, ops.AdamWConfig{LR: 0.5, Schedule: ops.Schedule{Kind: ops.ScheduleLinear, Warmup: 2, Steps: 4}})
	require.Equal(t, 0.25, s.LR())
	p := newFakeParam[float64]("p", 1, 1)
	memory[float64](p.value)[0] = 0
	want := 0.0
	for _, lr := range []float64{0.25, 0.5, 0.25, 0, 0} {
		memory[float64](p.grad)[0] = 1
		require.NoError(t, s.Step([]G.ValueGrad{p}))
		require.Equal(t, lr, s.LR())
		want -= lr
		require.InDelta(t, want, memory[float64](p.value)[0], 1e-7)
	}
}

// A parameter that joins late moves like one that was there from the start did.
func TestAdamWParameterJoinsLate(t *testing.T) {
	s := newAdamW(t, ops.AdamWConfig{})
	first, late := newFakeParam[float64]("first", 1, 9), newFakeParam[float64]("late", 1, 9)
	var early []float64
	for step := range 8 {
		setGrad[float64](first, uint64(step%4), 1)
		model := []G.ValueGrad{first}
		if step >= 4 {
			setGrad[float64](late, uint64(step%4), 1)
			model = append(model, late)
		}
		require.NoError(t, s.Step(model))
		if step == 3 {
			early = append(early, memory[float64](first.value)...)
		}
	}
	require.Equal(t, early, memory[float64](late.value))
}

func TestAdamWResumesWithTheSameBits(t *testing.T) {
	cfg := ops.AdamWConfig{Clip: 1, WeightDecay: 0.1, Schedule: ops.Schedule{Kind: ops.ScheduleCosine, Warmup: 3, Steps: 20}}
	run := func(s *ops.AdamW, params []*fakeParam, from, to int) {
		for step := from; step < to; step++ {
			setGrad[float32](params[0], uint64(step), 1)
			setGrad[float64](params[1], uint64(step), 1)
			*params[2].grad.(*G.F32) = G.F32(step)
			require.NoError(t, s.Step(valueGrads(params)))
		}
	}
	fresh := func() []*fakeParam {
		return []*fakeParam{newFakeParam[float32]("a", 1, 100), newFakeParam[float64]("m.b", 2, 3, 4), {name: "c", value: G.NewF32(1), grad: G.NewF32(0)}}
	}
	straight, s := fresh(), newAdamW(t, cfg)
	run(s, straight, 0, 5)
	state := s.State()
	require.Len(t, state, 10)
	require.Equal(t, tensor.Shape{3, 4}, state["v.m.b"].Shape())
	stopped := fresh()
	for i, p := range straight[:2] {
		require.NoError(t, tensor.Copy(stopped[i].value.(*tensor.Dense), p.value.(*tensor.Dense)))
	}
	*stopped[2].value.(*G.F32) = *straight[2].value.(*G.F32)
	run(s, straight, 5, 10)

	resumed := newAdamW(t, cfg)
	require.NoError(t, resumed.SetState(state))
	require.Equal(t, 5, resumed.Steps())
	run(resumed, stopped, 5, 10)
	for i := range straight {
		require.Equal(t, straight[i].value.Data(), stopped[i].value.Data())
	}
	require.Equal(t, s.State(), resumed.State())
	require.NotEqual(t, state, resumed.State(), "SetState copies")
}

func TestAdamWStateErrors(t *testing.T) {
	s := newAdamW(t, ops.AdamWConfig{})
	p := newFakeParam[float32]("p", 1, 4)
	require.NoError(t, s.Step([]G.ValueGrad{p}))
	for _, c := range []struct {
		edit func(state map[string]*tensor.Dense)
		want string
	}{
		{func(m map[string]*tensor.Dense) { delete(m, "step") }, "step: got none, want a count of steps"},
		{func(m map[string]*tensor.Dense) { m["step"] = m["m.p"] }, "step: got float32"},
		{func(m map[string]*tensor.Dense) { m["step"] = tensor.New(tensor.WithBacking([]int64{-1})) }, "want one int64 of at least 0"},
		{func(m map[string]*tensor.Dense) { delete(m, "v.p") }, "v.p: got none, want a tensor"},
		{func(m map[string]*tensor.Dense) { delete(m, "steps.p") }, "steps.p: got none"},
		{func(m map[string]*tensor.Dense) { delete(m, "m.p") }, "got 3 entries, want 1"},
		{func(m map[string]*tensor.Dense) {
			m["m.p"] = tensor.New(tensor.WithShape(1), tensor.WithBacking([]float32{1}))
		}, "v.p: got float32 (4), want float32 (1) as in m.p"},
		{func(m map[string]*tensor.Dense) { m["m.p"] = tensor.New(tensor.WithBacking([]int{1, 2, 3, 4})) }, "m.p: got dtype int"},
		{func(m map[string]*tensor.Dense) {
			view, err := tensor.New(tensor.WithShape(4, 2), tensor.Of(tensor.Float32)).Slice(nil, G.S(0))
			require.NoError(t, err)
			m["v.p"] = view.(*tensor.Dense)
		}, "v.p: got a view or a column-major tensor"},
		{func(m map[string]*tensor.Dense) { m["other"] = m["m.p"] }, "got 5 entries, want 4"},
	} {
		state := s.State()
		c.edit(state)
		err := s.SetState(state)
		require.ErrorContains(t, err, c.want)
		require.ErrorContains(t, err, "ops.AdamW.SetState: ")
		require.Equal(t, 1, s.Steps())
	}
	require.ErrorContains(t, s.Step([]G.ValueGrad{newFakeParam[float32]("p", 1, 5)}), "parameter p: got float32 (5), want float32 (4) as in the state")
	require.ErrorContains(t, s.Step([]G.ValueGrad{newFakeParam[float64]("p", 1, 4)}), "parameter p: got float64 (4), want float32 (4)")
}

func TestAdamWErrors(t *testing.T) {
	for want, cfg := range map[string]ops.AdamWConfig{
		"LR: got -1":               {LR: -1},
		"LR: got NaN":              {LR: math.NaN()},
		"LR: got +Inf":             {LR: math.Inf(1)},
		"Beta1: got 1, want":       {Beta1: 1},
		"Beta2: got -0.5":          {Beta2: -0.5},
		"Eps: got -1e-08":          {Eps: -1e-8},
		"Eps: got NaN":             {Eps: math.NaN()},
		"WeightDecay: got -1":      {WeightDecay: -1},
		"Clip: got -1":             {Clip: -1},
		"Clip: got NaN":            {Clip: math.NaN()},
		"Schedule.Warmup: got -1,": {Schedule: ops.Schedule{Warmup: -1}},
	} {
		s, err := ops.NewAdamW(cfg)
		require.Nil(t, s)
		require.ErrorContains(t, err, "ops.NewAdamW: "+want)
	}

	g := G.NewGraph()
	ints := &fakeParam{name: "ints", value: tensor.New(tensor.WithBacking([]int{1})), grad: tensor.New(tensor.WithBacking([]int{1}))}
	narrow, wide := newFakeParam[float32]("p", 1, 4), newFakeParam[float64]("p", 1, 4)
	transposed := newFakeParam[float32]("p", 1, 4, 2)
	require.NoError(t, transposed.value.(*tensor.Dense).T())
	transposed.grad = newFakeParam[float32]("p", 1, 2, 4).grad
	for want, p := range map[string]G.ValueGrad{
		"parameter 1: got nil":                                                  nil,
		"parameter p: got no value":                                             &fakeParam{name: "p"},
		"parameter p: gradient: lost":                                           &fakeParam{name: "p", value: narrow.value, err: fmt.Errorf("lost")},
		"parameter p: got no gradient":                                          &fakeParam{name: "p", value: narrow.value},
		"parameter p: got a gradient of float64 (4), want float32 (4)":          &fakeParam{name: "p", value: narrow.value, grad: wide.grad},
		"parameter p: got a gradient of float32 (3), want float32 (4)":          &fakeParam{name: "p", value: narrow.value, grad: newFakeParam[float32]("p", 1, 3).grad},
		"parameter ints: got dtype int, want float32 or float64":                ints,
		"parameter good: got it twice":                                          newFakeParam[float32]("good", 1, 2),
		"parameter p: got a value of type *tensor.Dense that is not contiguous": transposed,
		"parameter x: gradient: No Gradient node/value found":                   optest.Seeded("x", 1, 2).Node(g, tensor.Float32),
	} {
		s := newAdamW(t, ops.AdamWConfig{})
		good := newFakeParam[float32]("good", 1, 2)
		setGrad[float32](good, 1, 1)
		before := append([]float32(nil), memory[float32](good.value)...)
		err := s.Step([]G.ValueGrad{good, p})
		require.ErrorContains(t, err, "ops.AdamW.Step: "+want)
		require.Equal(t, before, memory[float32](good.value), "no parameter has changed")
		require.Zero(t, s.Steps())
	}
}

func TestAdamWAllocs(t *testing.T) {
	count := func(n int) float64 {
		s := newAdamW(t, ops.AdamWConfig{Clip: 1})
		var params []*fakeParam
		for i := range 6 {
			params = append(params, newFakeParam[float32](fmt.Sprint(i), 1, n))
		}
		model := valueGrads(params)
		require.NoError(t, s.Step(model))
		return testing.AllocsPerRun(5, func() { require.NoError(t, s.Step(model)) })
	}
	small, large := count(3), count(50000)
	require.LessOrEqual(t, small, 20.0)
	require.InDelta(t, small, large, 1)
}

// A model of which token follows which, trained through Embedding, CrossEntropy and AdamW: with a matrix of its own for the
// output, and with the table once more, whose gradient then is a sum.
func TestAdamWTrainsABigramModel(t *testing.T) {
	const vocab, dim, n = 11, 16, 33
	for _, tied := range []bool{false, true} {
		var ends []float64
		for _, bind := range []bool{false, true} {
			g := G.NewGraph()
			table := optest.Input{Name: "table", Shape: []int{vocab, dim}, Data: optest.Normal[float64](1, vocab*dim, 0.3)}.Node(g, tensor.Float64)
			ids := optest.Input{Name: "ids", Shape: []int{n}, Ints: optest.Ints(1, n, vocab)}
			next := optest.Input{Name: "next", Shape: []int{n}}
			for _, id := range ids.Ints {
				next.Ints = append(next.Ints, (3*id+1)%vocab)
			}
			params := G.Nodes{table}
			h, err := ops.Embedding(table, ids.Node(g, tensor.Float64), ops.EmbeddingConfig{})
			require.NoError(t, err)
			mix := optest.Input{Name: "mix", Shape: []int{dim, dim}, Data: optest.Normal[float64](2, dim*dim, 0.3)}.Node(g, tensor.Float64)
			params = append(params, mix)
			h = G.Must(G.Mul(h, mix))
			out := G.Must(G.Transpose(table, 1, 0))
			if !tied {
				out = optest.Input{Name: "out", Shape: []int{dim, vocab}, Data: optest.Normal[float64](3, dim*vocab, 0.3)}.Node(g, tensor.Float64)
				params = append(params, out)
			}
			loss, err := ops.CrossEntropy(G.Must(G.Mul(h, out)), next.Node(g, tensor.Float64), ops.CrossEntropyConfig{})
			require.NoError(t, err)
			_, err = G.Grad(loss, params...)
			require.NoError(t, err)
			var l G.Value
			G.Read(loss, &l)
			var opts []G.VMOpt
			if bind {
				opts = append(opts, G.BindDualValues(params...))
			}
			vm := G.NewTapeMachine(g, opts...)
			s := newAdamW(t, ops.AdamWConfig{LR: 0.02, Clip: 1, Schedule: ops.Schedule{Kind: ops.ScheduleCosine, Warmup: 10, Steps: 300}})
			for step := range 300 {
				require.NoError(t, vm.RunAll())
				require.NoError(t, s.Step(G.NodesToValueGrads(params)))
				if step == 0 {
					require.Greater(t, optest.Values(t, l)[0], 1.5, "about ln 11 to begin with")
				}
				if step%50 == 0 {
					collect()
				}
				vm.Reset()
			}
			require.NoError(t, vm.Close())
			ends = append(ends, optest.Values(t, l)[0])
		}
		require.Less(t, ends[0], 0.05, "tied %v", tied)
		require.InDelta(t, ends[0], ends[1], 1e-9, "BindDualValues makes no difference")
	}
}

func ExampleNewAdamW() {
	g := G.NewGraph()
	w := G.NewVector(g, tensor.Float64, G.WithName("w"), G.WithShape(2), G.WithValue(tensor.New(tensor.WithBacking([]float64{5, -3}))))
	cost := G.Must(G.Sum(G.Must(G.Square(w))))
	if _, err := G.Grad(cost, w); err != nil {
		fmt.Println(err)
		return
	}
	solver, err := ops.NewAdamW(ops.AdamWConfig{
		LR: 0.5, Clip: 1,
		Schedule: ops.Schedule{Kind: ops.ScheduleCosine, Warmup: 5, Steps: 100},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	vm := G.NewTapeMachine(g, G.BindDualValues(w))
	defer vm.Close()
	for range 100 {
		if err := vm.RunAll(); err != nil {
			fmt.Println(err)
			return
		}
		if err := solver.Step(G.NodesToValueGrads(G.Nodes{w})); err != nil {
			fmt.Println(err)
			return
		}
		vm.Reset()
	}
	fmt.Printf("%.1f\n", w.Value().Data())
	// Output: [0.0 0.0]
}

// BenchmarkAdamW makes steps on the 7.08 million parameters of a GPT-2-small layer.
func BenchmarkAdamW(b *testing.B) {
	shapes := [][]int{{768}, {768}, {768, 2304}, {2304}, {768, 768}, {768}, {768}, {768}, {768, 3072}, {3072}, {3072, 768}, {768}}
	n := 0
	var model []G.ValueGrad
	for i, shape := range shapes {
		model = append(model, newFakeParam[float32](fmt.Sprint(i), uint64(i), shape...))
		n += tensor.Shape(shape).TotalSize()
	}
	for _, c := range []struct {
		name   string
		solver G.Solver
	}{
		{"stheno", newAdamW(b, ops.AdamWConfig{WeightDecay: 0.1, Clip: 1})},
		{"gorgonia", G.NewAdamSolver()},
	} {
		b.Run(fmt.Sprintf("params=%d/%s", n, c.name), func(b *testing.B) {
			// A step reads four arrays, one of them twice for the norm, and writes four.
			b.SetBytes(int64(n) * 4 * 9)
			for b.Loop() {
				if err := c.solver.Step(model); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAdamWRefusesANodeThatIsNil(t *testing.T) {
	s, err := ops.NewAdamW(ops.AdamWConfig{})
	require.NoError(t, err)
	require.ErrorContains(t, s.Step([]G.ValueGrad{(*G.Node)(nil)}), "parameter 0: got nil, want a node")
}
