package op

import (
	"math"
	"testing"
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
