package op

import (
	"math"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// countUp fills its result with the number of times it ran, or fails.
type countUp struct {
	Base
	runs int
	fail bool
	seen []float32 // what the memory held when it came
}

func (o *countUp) Do(...G.Value) (G.Value, error) {
	if o.fail {
		return nil, errTest
	}
	out, data := NewUnset[float32](o.OutShape())
	o.seen = append(o.seen, data[0])
	o.runs++
	for i := range data {
		data[i] = float32(o.runs)
	}
	return out, nil
}

var errTest = errorString("no")

type errorString string

func (e errorString) Error() string { return string(e) }

func TestRecycler(t *testing.T) {
	defer Poison()()
	g := G.NewGraph()
	x := G.NewVector(g, tensor.Float32, G.WithName("x"), G.WithShape(1), G.WithValue(tensor.New(tensor.WithShape(1), tensor.WithBacking([]float32{1}))))
	made := func(name string, n int) (*G.Node, *countUp) {
		o := &countUp{Base: NewBase(name, nil, tensor.Shape{n}, tensor.Float32, x)}
		node, err := G.ApplyOp(o, x)
		require.NoError(t, err)
		return node, o
	}
	kept, _ := made("kept", 7919)
	_, last := made("last", 7907)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	r := NewRecycler(g, nil, G.Nodes{kept})

	require.NoError(t, vm.RunAll())
	vm.Reset()
	first := kept.Value().(*tensor.Dense)
	r.Release()
	r.Release() // what was handed back is not handed back again
	a, _ := NewUnset[float32](tensor.Shape{7907})
	b, _ := NewUnset[float32](tensor.Shape{7907})
	require.NotSame(t, &a.Data().([]float32)[0], &b.Data().([]float32)[0])
	require.Equal(t, float32(1), first.Data().([]float32)[7918], "what is kept stays")

	require.NoError(t, vm.RunAll())
	vm.Reset()
	require.Equal(t, float32(1), first.Data().([]float32)[0], "what is kept stays")
	r.Release()
	zeroed, data := New[float32](tensor.Shape{7907})
	require.NotNil(t, zeroed)
	for _, v := range data {
		require.Zero(t, v, "New is zeroed though its memory was used before")
	}

	// A run that fails leaves nothing new behind.
	last.fail = true
	require.Error(t, vm.RunAll())
	vm.Reset()
	r.Release()
	c, _ := NewUnset[float32](tensor.Shape{7907})
	d, _ := NewUnset[float32](tensor.Shape{7907})
	require.NotSame(t, &c.Data().([]float32)[0], &d.Data().([]float32)[0])
	require.False(t, math.IsNaN(float64(first.Data().([]float32)[0])))
}

// onCard is an op whose result lies in memory that its machine manages, as that of ops on a card does.
type onCard struct {
	Base
	memory []float32
}

func (o *onCard) Do(...G.Value) (G.Value, error) {
	return tensor.New(tensor.WithShape(o.OutShape()...), tensor.Of(tensor.Float32),
		tensor.FromMemory(uintptr(unsafe.Pointer(&o.memory[0])), uintptr(4*len(o.memory)))), nil
}

func TestMemoryOfCardsIsNotRecycled(t *testing.T) {
	defer Poison()()
	g := G.NewGraph()
	x := G.NewVector(g, tensor.Float32, G.WithName("x"), G.WithShape(1), G.WithValue(tensor.New(tensor.WithShape(1), tensor.WithBacking([]float32{1}))))
	o := &onCard{NewBase("card", nil, tensor.Shape{3}, tensor.Float32, x), make([]float32, 3)}
	n, err := G.ApplyOp(o, x)
	require.NoError(t, err)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	r := NewRecycler(g, nil, nil)
	require.NoError(t, vm.RunAll())
	require.NotNil(t, n.Value())
	vm.Reset()
	r.Release()
	require.Equal(t, make([]float32, 3), o.memory, "nobody may write there")
}

func TestAfterKeepsItsMemory(t *testing.T) {
	require.False(t, (&afterOp{}).FreshResult())
	require.True(t, (&sideOp{}).FreshResult())
}

// passOn adds 1 and notes where its result lies.
type passOn struct {
	Base
	at *float32
}

func (o *passOn) Do(in ...G.Value) (G.Value, error) {
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	out, data := NewUnset[float32](o.OutShape())
	x, err := Data[float32](in[0])
	if err != nil {
		return nil, err
	}
	for i := range data {
		data[i] = x[i] + 1
	}
	o.at = &data[0]
	return out, nil
}

// chain is a graph x → n passOn nodes, after each of which between may put another node.
func chain(t *testing.T, n int, between func(i int, n *G.Node) *G.Node) (g *G.ExprGraph, nodes G.Nodes, ops []*passOn) {
	g = G.NewGraph()
	x := G.NewVector(g, tensor.Float32, G.WithName("x"), G.WithShape(5), G.WithValue(tensor.New(tensor.WithShape(5), tensor.WithBacking(make([]float32, 5)))))
	for i := range n {
		o := &passOn{Base: NewBase("pass", i, tensor.Shape{5}, tensor.Float32, x)}
		node, err := G.ApplyOp(o, x)
		require.NoError(t, err)
		nodes, ops = append(nodes, node), append(ops, o)
		if x = node; between != nil {
			x = between(i, node)
		}
	}
	return g, append(nodes, x), ops
}

func TestResultsGoBackDuringARun(t *testing.T) {
	defer Poison()()
	g, nodes, ops := chain(t, 6, nil)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	r := NewRecycler(g, G.Nodes{nodes[1], nodes[5]}, nil)
	for run := range 3 {
		stop := r.Watch()
		require.NoError(t, vm.RunAll())
		stop()
		vm.Reset()
		require.Equal(t, []float32{6, 6, 6, 6, 6}, nodes[5].Value().Data(), "run %d", run)
		require.Equal(t, []float32{2, 2, 2, 2, 2}, nodes[1].Value().Data(), "run %d: it is read outside", run)
		// 1 is computed from 0, which is free when 2 begins.
		require.Same(t, ops[0].at, ops[2].at)
		require.Same(t, ops[2].at, ops[4].at)
		require.NotSame(t, ops[2].at, ops[3].at)
		require.Equal(t, 1, nodes[0].Value().(*tensor.Dense).Size(), "it has no memory any more")
		r.Release()
	}
	// Without Watch everything stays until Release.
	require.NoError(t, vm.RunAll())
	vm.Reset()
	require.Equal(t, []float32{1, 1, 1, 1, 1}, nodes[0].Value().Data())
}

// second is its second input, when the first is there.
type second struct{ Base }

func (o *second) Do(in ...G.Value) (G.Value, error) {
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	out, data := NewUnset[float32](o.OutShape())
	x, err := Data[float32](in[1])
	copy(data, x)
	return out, err
}

// TestResultsThatOthersShare: Gorgonia's ops write into their inputs and look into their memory. What such an op made of an early
// result is read at the end.
func TestResultsThatOthersShare(t *testing.T) {
	defer Poison()()
	one := func() *G.Node { return G.NewConstant(float32(1)) }
	for name, c := range map[string]struct {
		of    func(nodes G.Nodes) *G.Node // the first nodes of the chain
		want  float32
		first int // the chain's nodes that there are before
	}{
		"in place": {func(n G.Nodes) *G.Node { return G.Must(G.Add(n[0], one())) }, 2, 1},
		"view":     {func(n G.Nodes) *G.Node { return G.Must(G.Reshape(n[0], tensor.Shape{5, 1})) }, 1, 1},
		"two views": {func(n G.Nodes) *G.Node {
			return G.Must(G.Reshape(G.Must(G.Reshape(n[0], tensor.Shape{5, 1})), tensor.Shape{1, 5}))
		}, 1, 1},
		"two results": {func(n G.Nodes) *G.Node { return G.Must(G.Add(n[1], n[2])) }, 5, 3},
		"of two":      {func(n G.Nodes) *G.Node { return G.Must(G.HadamardProd(n[2], G.Must(G.Add(n[1], n[2])))) }, 15, 3},
	} {
		t.Run(name, func(t *testing.T) {
			var other *G.Node
			var before G.Nodes
			g, nodes, _ := chain(t, 9, func(i int, n *G.Node) *G.Node {
				if before = append(before, n); len(before) == c.first {
					other = c.of(before)
				}
				return n
			})
			end := nodes[8]
			o := &second{NewBase("second", nil, tensor.Shape{5}, tensor.Float32, end, other)}
			total, err := G.ApplyOp(o, end, other)
			require.NoError(t, err)
			vm := G.NewTapeMachine(g)
			defer vm.Close()
			r := NewRecycler(g, G.Nodes{total}, nil)
			for run := range 3 {
				stop := r.Watch()
				require.NoError(t, vm.RunAll())
				stop()
				vm.Reset()
				require.Equal(t, []float32{c.want, c.want, c.want, c.want, c.want}, total.Value().Data(), "run %d", run)
				r.Release()
			}
		})
	}
}

// TestWhatIsKeptByOthersStays: a kept node's value may be a view of a result, or the result itself, written in place.
func TestWhatIsKeptByOthersStays(t *testing.T) {
	defer Poison()()
	one := G.NewConstant(float32(1))
	for name, of := range map[string]func(n *G.Node) *G.Node{
		"view":     func(n *G.Node) *G.Node { return G.Must(G.Reshape(n, tensor.Shape{5, 1})) },
		"in place": func(n *G.Node) *G.Node { return G.Must(G.Add(n, one)) },
		"two views": func(n *G.Node) *G.Node {
			return G.Must(G.Reshape(G.Must(G.Reshape(n, tensor.Shape{5, 1})), tensor.Shape{1, 5}))
		},
	} {
		g, nodes, _ := chain(t, 2, nil)
		kept := of(nodes[1])
		vm := G.NewTapeMachine(g)
		defer vm.Close()
		r := NewRecycler(g, nil, G.Nodes{kept})
		stop := r.Watch()
		require.NoError(t, vm.RunAll())
		stop()
		vm.Reset()
		want := append([]float32(nil), kept.Value().Data().([]float32)...)
		value := kept.Value()
		r.Release()
		require.Equal(t, want, value.Data(), name)
	}
}

func TestIdleMemoryIsFreed(t *testing.T) {
	const n = 7901 * 8
	held := func() int {
		idle.Lock()
		defer idle.Unlock()
		return len(idle.pieces[poolKey{4, n}])
	}
	Lend(n, func(a []float32) {
		Lend(n, func(b []float32) { require.NotSame(t, &a[0], &b[0]) })
	})
	require.Equal(t, 2, held())
	Lend(n, func([]float32) { require.Equal(t, 1, held()) })
	require.Eventually(t, func() bool { runtime.GC(); return held() == 0 }, 10*time.Second, time.Millisecond)
}

// TestLargerMemory: a result gets memory that is larger where there is none of its size, and it goes back as a whole.
func TestLargerMemory(t *testing.T) {
	const n = 7877 * 8
	var whole *float32
	Lend(n, func(data []float32) { whole = &data[0] })
	for range 3 {
		d, data := NewUnset[float32](tensor.Shape{n/3 + 1})
		require.Same(t, whole, &data[0])
		require.Equal(t, n/3+1, cap(data))
		recycleAny(d.Data()) // a tensor knows its length alone
		Lend(n, func(data []float32) {
			require.Same(t, whole, &data[0])
			data[n-1] = 1
		})
	}
	Lend(n/3-1, func(data []float32) { require.NotSame(t, whole, &data[0], "not for less than a third") })

	// What is never handed back is forgotten, and memory that comes to lie there is nobody else's.
	_, data := NewUnset[float32](tensor.Shape{n - 1})
	require.Same(t, whole, &data[0])
	lent := func() int {
		idle.Lock()
		defer idle.Unlock()
		return len(idle.whole)
	}
	require.Equal(t, 1, lent())
	whole, data = nil, nil
	require.Eventually(t, func() bool { runtime.GC(); return lent() == 0 }, 10*time.Second, time.Millisecond)
}
