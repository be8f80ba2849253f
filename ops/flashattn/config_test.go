package flashattn

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
)

// nodes makes the inputs of a small attention: batch 2, 4 query rows, 5 keys, 4 heads on 2 key heads, d 3, dv 6.
func nodes(g *G.ExprGraph) (q, k, v *G.Node) {
	return optest.Seeded("q", 1, 2, 4, 4, 3).Node(g, tensor.Float32),
		optest.Seeded("k", 2, 2, 5, 2, 3).Node(g, tensor.Float32),
		optest.Seeded("v", 3, 2, 5, 2, 6).Node(g, tensor.Float32)
}

func ints(g *G.ExprGraph, name string, x ...int) *G.Node {
	return optest.Input{Name: name, Shape: []int{len(x)}, Ints: x}.Node(g, tensor.Float32)
}

func TestEveryFieldIsHashed(t *testing.T) {
	g := G.NewGraph()
	q, k, v := nodes(g)
	sinks := optest.Seeded("sinks", 4, 4).Node(g, tensor.Float32)
	bias := optest.Seeded("bias", 5, 1, 1, 4, 5).Node(g, tensor.Float32)
	step := optest.Input{Name: "step", Ints: []int{1}}.Node(g, tensor.Float32)
	configs := map[string]Config{
		"zero":         {},
		"Causal":       {Causal: true},
		"Window.Left":  {Window: Window{Limited: true, Left: 1, Right: -1}},
		"Window.Left2": {Window: Window{Limited: true, Left: 2, Right: -1}},
		"Window.Right": {Window: Window{Limited: true, Left: -1, Right: 1}},
		"Scale":        {Scale: 2},
		"Softcap":      {Softcap: 3},
		"ALiBi":        {ALiBi: true},
		"Dropout":      {Dropout: 0.5},
		"Dropout2":     {Dropout: 0.25},
		"Seed":         {Dropout: 0.5, Seed: 9},
		"Step":         {Dropout: 0.5, Step: step},
		"BFloat16":     {Precision: BFloat16},
		"Int8":         {Precision: Int8},
		"BlockQ":       {BlockQ: 7},
		"BlockKV":      {BlockKV: 7},
		"Sinks":        {Sinks: sinks},
		"Bias":         {Bias: bias},
	}
	seen := map[uint32]string{}
	for name, cfg := range configs {
		n, err := Attend(q, k, v, cfg)
		require.NoError(t, err, name)
		out, lse, err := AttendLSE(q, k, v, cfg)
		require.NoError(t, err, name)
		require.NotEqual(t, out.Op().Hashcode(), lse.Op().Hashcode())
		packed := g.From(out.ID())
		require.True(t, packed.Next())
		for kind, o := range map[string]G.Op{"Attend": n.Op(), "AttendLSE": packed.Node().(*G.Node).Op()} {
			h := o.Hashcode()
			require.Empty(t, seen[h], "%s of %s hashes like %s", kind, name, seen[h])
			seen[h] = kind + " of " + name
		}
	}
}

func TestPackedSequencesAreHashed(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 1, 4, 2, 3).Node(g, tensor.Float32)
	cu := ints(g, "cu", 0, 2, 4)
	a, err := Attend(x, x, x, Config{CuSeqlensQ: cu})
	require.NoError(t, err)
	b, err := Attend(x, x, x, Config{CuSeqlensQ: cu, CuSeqlensKV: cu})
	require.NoError(t, err)
	require.NotEqual(t, a.Op().Hashcode(), b.Op().Hashcode())
}

func TestWhatZeroStandsFor(t *testing.T) {
	a, err := Config{}.normal(16)
	require.NoError(t, err)
	b, err := Config{Scale: 0.25, Seed: 3, Window: Window{Limited: true, Left: -1, Right: -1}}.normal(16)
	require.NoError(t, err)
	require.Equal(t, a, b)
	require.Equal(t, sight{far, far}, a.sight())
	c, err := Config{Causal: true, Window: Sliding(4)}.normal(16)
	require.NoError(t, err)
	require.Equal(t, sight{3, 0}, c.sight())
}

func TestErrorsAtBuildTime(t *testing.T) {
	g := G.NewGraph()
	q, k, v := nodes(g)
	seeded := func(name string, shape ...int) *G.Node {
		return optest.Seeded(name, 9, shape...).Node(g, tensor.Float32)
	}
	q64, _, _ := G.NewTensor(g, tensor.Float64, 4, G.WithShape(2, 4, 4, 3), G.WithName("q64")), 0, 0
	one, wide := seeded("one", 1, 4, 2, 3), seeded("wide", 2, 4, 4, maxDim+1)
	other, _, _ := nodes(G.NewGraph())
	integer := ints(g, "i", 0, 4)
	for want, f := range map[string]func() (*G.Node, error){
		"q: got a nil node":                                         func() (*G.Node, error) { return Attend(nil, k, v, Config{}) },
		"got nodes of two graphs":                                   func() (*G.Node, error) { return Attend(other, k, v, Config{}) },
		"q: got dtype int, want float32 or float64":                 func() (*G.Node, error) { return Attend(integer, k, v, Config{}) },
		"k: got dtype float32, want float64 as in q":                func() (*G.Node, error) { return Attend(q64, k, v, Config{}) },
		"q: got shape (4, 4) of rank 2, want rank 4":                func() (*G.Node, error) { return Attend(seeded("m", 4, 4), k, v, Config{}) },
		"got batches 2 of q, 1 of k and 2 of v, want one batch":     func() (*G.Node, error) { return Attend(q, one, v, Config{}) },
		"v: got sequence length 4, want 5 as in k":                  func() (*G.Node, error) { return Attend(q, k, seeded("v4", 2, 4, 2, 6), Config{}) },
		"v: got 1 heads, want 2 as in k":                            func() (*G.Node, error) { return Attend(q, k, seeded("v1", 2, 5, 1, 6), Config{}) },
		"q: got 3 heads, want a multiple of the 2 heads of k":       func() (*G.Node, error) { return Attend(seeded("q3", 2, 4, 3, 3), k, v, Config{}) },
		"k: got head dimension 4, want 3 as in q":                   func() (*G.Node, error) { return Attend(q, seeded("k4", 2, 5, 2, 4), v, Config{}) },
		"q: got head dimension 257, want at most 256":               func() (*G.Node, error) { return Attend(wide, wide, wide, Config{}) },
		"Scale: got NaN, want a finite number":                      func() (*G.Node, error) { return Attend(q, k, v, Config{Scale: math.NaN()}) },
		"Scale: got +Inf, want a finite number":                     func() (*G.Node, error) { return Attend(q, k, v, Config{Scale: math.Inf(1)}) },
		"Softcap: got -1":                                           func() (*G.Node, error) { return Attend(q, k, v, Config{Softcap: -1}) },
		"Softcap: got NaN":                                          func() (*G.Node, error) { return Attend(q, k, v, Config{Softcap: math.NaN()}) },
		"Dropout: got 1":                                            func() (*G.Node, error) { return Attend(q, k, v, Config{Dropout: 1}) },
		"Dropout: got NaN":                                          func() (*G.Node, error) { return Attend(q, k, v, Config{Dropout: math.NaN()}) },
		"Window: got left -2 and right 0":                           func() (*G.Node, error) { return Attend(q, k, v, Config{Window: Window{true, -2, 0}}) },
		"Precision: got 3, want Float32, BFloat16 or Int8":          func() (*G.Node, error) { return Attend(q, k, v, Config{Precision: precisions}) },
		"BlockQ: got -1, want 0 to 16384":                           func() (*G.Node, error) { return Attend(q, k, v, Config{BlockQ: -1}) },
		"BlockKV: got 16385, want 0 to 16384":                       func() (*G.Node, error) { return Attend(q, k, v, Config{BlockKV: 16385}) },
		"Sinks: got shape (3), want (4)":                            func() (*G.Node, error) { return Attend(q, k, v, Config{Sinks: seeded("s3", 3)}) },
		"Bias: got shape (3, 1, 4, 5), want (1 or 2, 1 or 4, 4, 5)": func() (*G.Node, error) { return Attend(q, k, v, Config{Bias: seeded("b3", 3, 1, 4, 5)}) },
		"Bias: got shape (4, 5) of rank 2, want rank 4":             func() (*G.Node, error) { return Attend(q, k, v, Config{Bias: seeded("b2", 4, 5)}) },
		"q: got batch 2 with CuSeqlensQ, want 1":                    func() (*G.Node, error) { return Attend(q, k, v, Config{CuSeqlensQ: integer}) },
		"CuSeqlensQ: got dtype float32":                             func() (*G.Node, error) { return Attend(one, one, one, Config{CuSeqlensQ: seeded("f", 2)}) },
		"CuSeqlensQ: got 1 entries, want at least 2":                func() (*G.Node, error) { return Attend(one, one, one, Config{CuSeqlensQ: ints(g, "i1", 0)}) },
		"CuSeqlensKV: got shape (3), want (2)": func() (*G.Node, error) {
			return Attend(one, one, one, Config{CuSeqlensQ: integer, CuSeqlensKV: ints(g, "i3", 0, 1, 2)})
		},
		"CuSeqlensKV: got it without CuSeqlensQ": func() (*G.Node, error) { return Attend(one, one, one, Config{CuSeqlensKV: integer}) },
		"Step: got a node while Dropout is 0": func() (*G.Node, error) {
			return Attend(q, k, v, Config{Step: optest.Input{Name: "step", Ints: []int{1}}.Node(g, tensor.Float32)})
		},
		"Step: got shape (2) of rank 1, want rank 0": func() (*G.Node, error) { return Attend(q, k, v, Config{Dropout: 0.1, Step: integer}) },
	} {
		_, err := f()
		require.ErrorContains(t, err, "flashattn.Attend: ")
		require.ErrorContains(t, err, want)
	}
	_, _, err := AttendLSE(q, k, v, Config{Dropout: 2})
	require.ErrorContains(t, err, "flashattn.AttendLSE: Dropout: got 2")
}

func TestLengthsAreCheckedWhenTheyArrive(t *testing.T) {
	for want, cu := range map[string][2][]int{
		"CuSeqlensQ: got [1 4], want at least two entries, the first 0":           {{1, 4}, {0, 4}},
		"CuSeqlensQ: got 2 after 3 at entry 2, want entries that do not decrease": {{0, 3, 2}, {0, 1, 4}},
		"CuSeqlensKV: got a last entry of 5, want at most the sequence length 4":  {{0, 3, 4}, {0, 1, 5}},
	} {
		g := G.NewGraph()
		x := optest.Seeded("x", 1, 1, 4, 2, 3).Node(g, tensor.Float32)
		_, err := Attend(x, x, x, Config{CuSeqlensQ: ints(g, "cuQ", cu[0]...), CuSeqlensKV: ints(g, "cuKV", cu[1]...)})
		require.NoError(t, err)
		vm := G.NewTapeMachine(g)
		err = vm.RunAll()
		require.ErrorContains(t, err, "flashattn.Attend: "+want)
		vm.Close()
	}
	o, in := opOf(t, Config{}, 1, 4, 1, 2)
	_, err := o.Do(in[:3]...)
	require.ErrorContains(t, err, "flashattn.Attend: got 3 inputs, want 4")
	in[3] = G.NewF32(1)
	_, err = o.Do(in...)
	require.ErrorContains(t, err, "got a side of type *gorgonia.F32, want *tensor.Dense")
	in[3], _ = op.New[float32](tensor.Shape{1})
	_, err = o.Do(in...)
	require.ErrorContains(t, err, "flashattn.Attend: ")
}

func TestSlopes(t *testing.T) {
	require.Equal(t, []float64{0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625}, Slopes(8))
	got := Slopes(6)
	for i, want := range []float64{0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125} {
		require.InDelta(t, want, got[i], 1e-15)
	}
	require.Equal(t, []float64{0.00390625}, Slopes(1))
}

// Distances up to the largest int are as good as none.
func TestHugeWindowDoesNotWrapAround(t *testing.T) {
	for _, w := range []Window{{true, -1, math.MaxInt}, {true, math.MaxInt, -1}, {true, math.MaxInt, math.MaxInt}, Sliding(math.MinInt)} {
		open := Window{Limited: true, Left: w.Left, Right: w.Right}
		if open.Left == math.MaxInt {
			open.Left = 1000
		}
		if open.Right == math.MaxInt {
			open.Right = 1000
		}
		for _, c := range []instance{
			{name: "few", batch: 1, seqQ: 4, seqKV: 9, heads: 1, kvHeads: 1, d: 3, dv: 2},
			{name: "many", batch: 1, seqQ: 9, seqKV: 4, heads: 1, kvHeads: 1, d: 3, dv: 2},
		} {
			v := generate(c)
			c.cfg.Window = open
			want, _ := build(c, v)
			want.forward()
			c.cfg.Window = w
			got, _ := build(c, v)
			got.forward()
			require.Equal(t, want.out.Data, got.out.Data, "%s %+v", c.name, w)
		}
	}
}

func TestForwardRefusesEmptyOperandsInPlaceOfNil(t *testing.T) {
	x := Contiguous(make([]float32, 12), 1, 4, 1, 3)
	for name, in := range map[string]Operands[float32]{
		"KeyLens": {KeyLens: []int{}}, "Positions": {Positions: []int{}}, "Sinks": {Sinks: []float32{}},
		"LSE": {LSE: []float32{}}, "Bias": {Bias: []float32{}, BiasBatch: 1, BiasHeads: 1},
	} {
		dst := Contiguous(make([]float32, 12), 1, 4, 1, 3)
		require.ErrorContains(t, Forward(dst, x, x, x, Config{}, in), name+": got 0 elements, want ")
	}
}
