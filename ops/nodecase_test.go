package ops_test

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
)

// nodeCase is one node with one configuration. check demands of it what every node of this package promises.
type nodeCase struct {
	name   string
	inputs []optest.Input
	build  func(in []*G.Node) (*G.Node, error)

	// want is the mathematics in plain loops, and naive the same code in float32. A nil want leaves the values to the
	// caller.
	want  func(in [][]float64) []float64
	naive func(in [][]float32) []float32

	// plain composes the same function of Gorgonia's own nodes, nil where they cannot express it.
	plain func(in []*G.Node) (*G.Node, error)
}

func (c nodeCase) check(t *testing.T) {
	t.Run(c.name, func(t *testing.T) {
		graph := optest.Graph{Inputs: c.inputs, Build: c.build}
		got64 := graph.Run(t, tensor.Float64)
		got32 := graph.Run(t, tensor.Float32)
		if c.want != nil {
			want := c.want(c.data64())
			optest.Close(t, "float64", got64, want, 1e-12*(1+absMax(want)))
			wide := c.want(c.data32wide())
			optest.Within(t, "float32", narrow(got32), c.naive(c.data32()), wide, 2, 2e-7*(1+absMax(wide)))
		}
		if c.plain != nil {
			theirs := optest.Graph{Inputs: c.inputs, Build: c.plain}.Run(t, tensor.Float64)
			optest.Close(t, "against Gorgonia's nodes", got64, theirs, 1e-11*(1+absMax(theirs)))
		}
		graph.CheckGradients(t, 1e-6)
		if len(got64) > 1 {
			c.twoConsumers().CheckGradients(t, 1e-6)
		}
		c.checkGradients32(t)
		c.checkViews(t)
		c.checkThreads(t)
		c.checkConcurrent(t)
		c.checkInputsUntouched(t)
	})
}

func (c nodeCase) data64() [][]float64 {
	var data [][]float64
	for _, in := range c.inputs {
		if in.Ints == nil {
			data = append(data, in.Data)
		}
	}
	return data
}

func (c nodeCase) data32() [][]float32 {
	var data [][]float32
	for _, d := range c.data64() {
		data = append(data, narrow(d))
	}
	return data
}

// data32wide is the data after rounding to float32, in float64, so that errors are the computation's alone.
func (c nodeCase) data32wide() [][]float64 {
	var data [][]float64
	for _, d := range c.data32() {
		data = append(data, optest.Float64s(d))
	}
	return data
}

// twoConsumers is Σ tanh(y) + Σ sigmoid(y) + Σ_i Σ tanh(x_i): the node and each input have two readers, some of which
// Gorgonia would run in place if it took the memory for free. (Its tanh of a single element
// fails on a LispMachine.)
func (c nodeCase) twoConsumers() optest.Graph {
	return optest.Graph{Inputs: c.inputs, Build: func(in []*G.Node) (*G.Node, error) {
		y, err := c.build(in)
		if err != nil {
			return nil, err
		}
		terms := G.Nodes{G.Must(G.Tanh(y)), G.Must(G.Sigmoid(y))}
		for i, n := range in {
			if c.inputs[i].Ints == nil && n.Shape().TotalSize() > 1 {
				terms = append(terms, G.Must(G.Tanh(n)))
			}
		}
		for i, n := range terms {
			terms[i] = G.Must(G.Sum(n))
		}
		return G.ReduceAdd(terms)
	}}
}

// run evaluates build and the gradients of Σ weights·y on a TapeMachine: y first, then one gradient per float input.
func (c nodeCase) run(t testing.TB, dt tensor.Dtype, build func(in []*G.Node) (*G.Node, error)) [][]float64 {
	g, reads := c.graph(t, dt, build)
	values := make([]G.Value, len(reads))
	for i, n := range reads {
		G.Read(n, &values[i])
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	out := make([][]float64, len(values))
	for i, v := range values {
		out[i] = optest.Values(t, v)
	}
	return out
}

// graph builds y and the gradients of Σ weights·y, and returns these nodes.
func (c nodeCase) graph(t testing.TB, dt tensor.Dtype, build func(in []*G.Node) (*G.Node, error)) (*G.ExprGraph, G.Nodes) {
	g := G.NewGraph()
	var in, wrt G.Nodes
	for _, i := range c.inputs {
		n := i.Node(g, dt)
		in = append(in, n)
		if i.Ints == nil && !i.Const {
			wrt = append(wrt, n)
		}
	}
	y, err := build(in)
	require.NoError(t, err)
	weights := optest.Input{Name: "weights", Shape: y.Shape(), Data: optest.Normal[float64](99, y.Shape().TotalSize(), 1)}
	loss := G.Must(G.Sum(G.Must(G.HadamardProd(y, weights.Node(g, dt)))))
	grads, err := G.Grad(loss, wrt...)
	require.NoError(t, err)
	return g, append(G.Nodes{y}, grads...)
}

// checkGradients32 holds the gradients in float32 to three times the error of Gorgonia's nodes, both against float64.
// The floor is a few roundings of the largest gradient, and all there is without such nodes.
func (c nodeCase) checkGradients32(t *testing.T) {
	rounded := c
	rounded.inputs = append([]optest.Input(nil), c.inputs...)
	for i, in := range c.inputs {
		if in.Ints == nil {
			rounded.inputs[i].Data = optest.Float64s(narrow(in.Data))
		}
	}
	want := rounded.run(t, tensor.Float64, c.build)
	got := c.run(t, tensor.Float32, c.build)
	plain := want
	if c.plain != nil {
		plain = c.run(t, tensor.Float32, c.plain)
	}
	for i := 1; i < len(want); i++ {
		optest.Within(t, fmt.Sprintf("float32 gradient %d", i), narrow(got[i]), narrow(plain[i]), want[i], 3, 1e-6*(1+absMax(want[i])))
	}
}

// checkViews feeds each float input as a view of every second number of a larger tensor.
func (c nodeCase) checkViews(t *testing.T) {
	want := c.run(t, tensor.Float32, c.build)
	got := c.run(t, tensor.Float32, func(in []*G.Node) (*G.Node, error) {
		for i, n := range in {
			if c.inputs[i].Ints != nil || n.Shape().TotalSize() == 1 {
				continue
			}
			spread := make([]float32, 2*len(c.inputs[i].Data))
			for j, v := range c.inputs[i].Data {
				spread[2*j], spread[2*j+1] = float32(v), float32(math.NaN())
			}
			d := tensor.New(tensor.WithShape(append(n.Shape().Clone(), 2)...), tensor.WithBacking(spread))
			at := make([]tensor.Slice, d.Dims())
			at[d.Dims()-1] = G.S(0)
			view, err := d.Slice(at...)
			require.NoError(t, err)
			require.True(t, view.Shape().Eq(n.Shape()))
			require.NoError(t, G.Let(n, view))
		}
		return c.build(in)
	})
	require.Equal(t, want, got, "views give the same bits")
}

// checkThreads demands the same bits at any thread count.
func (c nodeCase) checkThreads(t *testing.T) {
	old := parallel.Threads()
	defer parallel.SetThreads(old)
	var want [][]float64
	for _, n := range []int{1, 2, 3, 7} {
		_, err := parallel.SetThreads(n)
		require.NoError(t, err)
		got := c.run(t, tensor.Float32, c.build)
		if want == nil {
			want = got
		}
		require.Equal(t, want, got, "%d threads", n)
	}
}

// checkConcurrent evaluates one graph from several goroutines at a time by calling the ops themselves: no state of a run
// may live on an op.
func (c nodeCase) checkConcurrent(t *testing.T) {
	g, reads := c.graph(t, tensor.Float32, c.build)
	want := c.run(t, tensor.Float32, c.build)
	got := make([][][]float64, 4)
	errs := make([]error, len(got))
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			for range 3 {
				e := evaluation{g, map[int64]G.Value{}}
				got[i] = nil
				for _, n := range reads {
					v, err := e.value(n)
					if err != nil {
						errs[i] = err
						return
					}
					got[i] = append(got[i], optest.Values(t, v))
				}
			}
		})
	}
	wg.Wait()
	for i := range got {
		require.NoError(t, errs[i])
		require.Equal(t, want, got[i])
	}
}

// evaluation is a machine of its own: it writes nothing to the graph.
type evaluation struct {
	g    *G.ExprGraph
	done map[int64]G.Value
}

func (e evaluation) value(n *G.Node) (G.Value, error) {
	if v, ok := e.done[n.ID()]; ok {
		return v, nil
	}
	if n.Op() == nil {
		return n.Value(), nil
	}
	var in []G.Value
	for it := e.g.From(n.ID()); it.Next(); {
		v, err := e.value(it.Node().(*G.Node))
		if err != nil {
			return nil, err
		}
		in = append(in, v)
	}
	if n.Op().Arity() != len(in) {
		return nil, fmt.Errorf("%v: got %d children, want %d", n, len(in), n.Op().Arity())
	}
	v, err := n.Op().Do(in...)
	e.done[n.ID()] = v
	return v, err
}

// checkInputsUntouched runs the graph three times on one machine and demands the same result and unchanged inputs. The
// memory of a run's results is used again by the next, as models do: it comes back full of NaN.
func (c nodeCase) checkInputsUntouched(t *testing.T) {
	g, reads := c.graph(t, tensor.Float32, c.build)
	values := make([]G.Value, len(reads))
	for i, n := range reads {
		G.Read(n, &values[i])
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	defer op.Poison()()
	results := op.NewRecycler(g, nil, nil)
	var first [][]float64
	for run := range 3 {
		require.NoError(t, vm.RunAll())
		var now [][]float64
		for _, v := range values {
			now = append(now, optest.Values(t, v))
		}
		if run == 0 {
			first = now
		}
		require.Equal(t, first, now, "run %d", run)
		vm.Reset()
		results.Release()
	}
	for _, in := range c.inputs {
		if in.Ints == nil {
			n := g.ByName(in.Name)
			require.Len(t, n, 1)
			require.Equal(t, narrow(in.Data), narrow(optest.Values(t, n[0].Value())), "input %s is unchanged", in.Name)
		}
	}
}

// warmAllocs is the number of allocations per node of a run, forward and gradients, on a machine that has run before.
func (c nodeCase) warmAllocs(t *testing.T) float64 {
	g, _ := c.graph(t, tensor.Float32, c.build)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	run := func() {
		require.NoError(t, vm.RunAll())
		vm.Reset()
	}
	run()
	return testing.AllocsPerRun(5, run) / float64(len(g.AllNodes()))
}

// checkAllocs demands that warm runs at both sizes allocate alike, and at most 20 times a node: the machine itself takes
// 16 on average.
func checkAllocs(t *testing.T, small, large nodeCase) {
	t.Helper()
	a, b := small.warmAllocs(t), large.warmAllocs(t)
	require.LessOrEqual(t, a, 20.0)
	require.InDelta(t, a, b, 1, "allocations do not grow with the size")
}

// checkHashes demands that all builds, made on one graph from the same inputs, stay apart, and that each merges with its
// own repetition if mergeable.
func checkHashes(t *testing.T, inputs []optest.Input, mergeable bool, builds ...func(in []*G.Node) (*G.Node, error)) {
	t.Helper()
	g := G.NewGraph()
	var in []*G.Node
	for _, i := range inputs {
		in = append(in, i.Node(g, tensor.Float32))
	}
	seen := map[uint32]int{}
	for i, build := range builds {
		n, err := build(in)
		require.NoError(t, err)
		h := n.Op().Hashcode()
		if j, ok := seen[h]; ok {
			require.Failf(t, "equal hashes", "builds %d and %d", j, i)
		}
		seen[h] = i
		again, err := build(in)
		require.NoError(t, err)
		require.Equal(t, mergeable, n.ID() == again.ID(), "build %d merges with its repetition", i)
	}
}

// buildError is a call that must fail with a message holding all of want.
type buildError struct {
	name  string
	build func() (*G.Node, error)
	want  string
}

func checkErrors(t *testing.T, fn string, cases []buildError) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			n, err := c.build()
			require.Error(t, err)
			require.Nil(t, n)
			require.True(t, strings.HasPrefix(err.Error(), fn+": "), "%v begins with %s", err, fn)
			require.ErrorContains(t, err, c.want)
		})
	}
}

// node adds a float32 input of zeros.
func node(g *G.ExprGraph, name string, shape ...int) *G.Node {
	return nodeOf(g, tensor.Float32, name, shape...)
}

func nodeOf(g *G.ExprGraph, dt tensor.Dtype, name string, shape ...int) *G.Node {
	return G.NewTensor(g, dt, len(shape), G.WithName(name), G.WithShape(shape...))
}

// wrongSize binds a value of another size than its node to the first input and demands an error, not a panic or a result.
func wrongSize(t *testing.T, n *G.Node) {
	t.Helper()
	o, ok := n.Op().(op.Backwarder)
	require.True(t, ok)
	in := make([]G.Value, o.Arity())
	for i := range in {
		in[i], _ = op.New[float32](tensor.Shape{3})
	}
	_, err := o.Do(in...)
	require.ErrorContains(t, err, "got 3 elements, want")
	_, err = o.Do(in[:len(in)-1]...)
	require.ErrorContains(t, err, fmt.Sprintf("got %d inputs, want %d", len(in)-1, len(in)))
}

func absMax(x []float64) float64 {
	var m float64
	for _, v := range x {
		m = max(m, math.Abs(v))
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

// printRun runs y's graph and prints y's numbers, or what went wrong.
func printRun(y *G.Node, err error) {
	if err != nil {
		fmt.Println(err)
		return
	}
	var out G.Value
	G.Read(y, &out)
	vm := G.NewTapeMachine(y.Graph())
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.3f\n", out.Data())
}

// benchmarkDo times the op alone, without the machine around it, and reports bytes of input and output per second.
func benchmarkDo(b *testing.B, c nodeCase) {
	g := G.NewGraph()
	var in []*G.Node
	var values []G.Value
	bytes := 0
	for _, i := range c.inputs {
		n := i.Node(g, tensor.Float32)
		in, values = append(in, n), append(values, n.Value())
		bytes += 4 * n.Shape().TotalSize()
	}
	n, err := c.build(in)
	require.NoError(b, err)
	b.SetBytes(int64(bytes + 4*n.Shape().TotalSize()))
	for b.Loop() {
		if _, err := n.Op().Do(values...); err != nil {
			b.Fatal(err)
		}
	}
}
