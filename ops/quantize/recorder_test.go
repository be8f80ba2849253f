package quantize_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops/quantize"
)

func ints(x ...int) *tensor.Dense { return tensor.New(tensor.WithShape(len(x)), tensor.WithBacking(x)) }

func newRecorder(t testing.TB, cfg quantize.RecorderConfig) *quantize.Recorder {
	t.Helper()
	r, err := quantize.NewRecorder(cfg)
	require.NoError(t, err)
	return r
}

// tapped is tanh(x) with a tap on x and one on the result, and its mean.
func tapped(t testing.TB, r *quantize.Recorder, dt tensor.Dtype, x optest.Input) (*G.ExprGraph, *G.Node, *G.Node) {
	g := G.NewGraph()
	in := x.Node(g, dt)
	require.NoError(t, r.Tap("in", in))
	y := G.Must(G.Tanh(in))
	require.NoError(t, r.Tap("out", y))
	return g, in, G.Must(G.Mean(y))
}

// The taps run on both machines, see what flows, and leave gradients alone.
func TestRecorderOnBothMachines(t *testing.T) {
	x := optest.Seeded("x", 1, 2, 5, 7)
	want := &quantize.Stats{}
	require.NoError(t, want.Observe(dense(x.Data, 2, 5, 7), 0.9))
	var grads [][]float64
	for _, machine := range []string{"tape", "lisp", "untapped"} {
		r := newRecorder(t, quantize.RecorderConfig{})
		g, in, loss := tapped(t, r, tensor.Float64, x)
		if machine == "untapped" {
			g = G.NewGraph()
			in = x.Node(g, tensor.Float64)
			loss = G.Must(G.Mean(G.Must(G.Tanh(in))))
		}
		var grad G.Value
		var err error
		if machine == "lisp" {
			vm := G.NewLispMachine(g)
			require.NoError(t, vm.RunAll())
			grad, err = in.Grad()
			require.NoError(t, err)
			vm.Close()
		} else {
			nodes, err := G.Grad(loss, in)
			require.NoError(t, err)
			G.Read(nodes[0], &grad)
			vm := G.NewTapeMachine(g)
			require.NoError(t, vm.RunAll())
			vm.Close()
		}
		grads = append(grads, optest.Values(t, grad))
		if machine == "untapped" {
			_, err := r.Stats("in")
			require.ErrorContains(t, err, `quantize.Stats: layer "in": got no runs`)
			continue
		}
		require.Equal(t, []string{"in", "out"}, r.Layers())
		got, err := r.Stats("in")
		require.NoError(t, err)
		require.Equal(t, want, got, machine)
		got, err = r.Stats("out")
		require.NoError(t, err)
		require.Equal(t, math.Tanh(want.Max), got.Max)
		r.Reset()
		_, err = r.Stats("in")
		require.ErrorContains(t, err, "got no runs")
	}
	require.Equal(t, grads[2], grads[0])
	optest.Close(t, "lisp", grads[1], grads[2], 1e-15)
}

// Several graphs and machines may record at the same time, and one node may be tapped twice: all adds up.
func TestRecorderAddsUp(t *testing.T) {
	r := newRecorder(t, quantize.RecorderConfig{Moments: true})
	want := &quantize.Stats{}
	m, err := quantize.NewMoments(6)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 4 {
		x := optest.Seeded("x", uint64(i), 3+i, 6)
		for range 2 {
			require.NoError(t, want.Observe(dense(x.Data, 3+i, 6), 0.9))
			require.NoError(t, m.Add(dense(x.Data, 3+i, 6)))
		}
		wg.Go(func() {
			g, in, _ := tapped(t, r, tensor.Float64, x)
			require.NoError(t, r.Tap("in", in))
			vm := G.NewTapeMachine(g)
			defer vm.Close()
			require.NoError(t, vm.RunAll())
		})
	}
	wg.Wait()
	got, err := r.Stats("in")
	require.NoError(t, err)
	require.Equal(t, []any{want.Runs, want.Count, want.Min, want.Max, want.AbsMax, want.Histogram},
		[]any{got.Runs, got.Count, got.Min, got.Max, got.AbsMax, got.Histogram})
	require.Equal(t, m.Rows(), got.Moments.Rows())
	for i := range 6 {
		for j := range 6 {
			require.InDelta(t, m.At(i, j), got.Moments.At(i, j), 1e-12)
		}
	}
}

// The second moments are XᵀX, over blocks of rows and of columns too.
func TestMoments(t *testing.T) {
	for _, s := range [][2]int{{1, 1}, {7, 5}, {1100, 33}, {40, 300}} {
		rows, n := s[0], s[1]
		x := optest.Normal[float32](1, rows*n, 1)
		m64, err := quantize.NewMoments(n)
		require.NoError(t, err)
		m32, err := quantize.NewMoments(n)
		require.NoError(t, err)
		require.NoError(t, m64.Add(dense(optest.Float64s(x), rows, n)))
		require.NoError(t, m32.Add(dense(x, rows, n)))
		require.Equal(t, rows, m32.Rows())
		for i := 0; i < n; i += max(1, n/20) {
			for j := range n {
				var want, abs float64
				for r := range rows {
					p := float64(x[r*n+i]) * float64(x[r*n+j])
					want, abs = want+p, abs+math.Abs(p)
				}
				require.InDelta(t, want, m64.At(i, j), 1e-13*abs)
				require.Equal(t, m64.At(i, j), m64.At(j, i))
				require.InDelta(t, want, m32.At(i, j), 1e-5*abs)
			}
		}
		require.NoError(t, m64.Merge(m64))
		require.Equal(t, 2*rows, m64.Rows())
	}
	_, err := quantize.NewMoments(0)
	require.ErrorContains(t, err, "quantize.NewMoments: got 0 channels")
	m, err := quantize.NewMoments(2)
	require.NoError(t, err)
	require.ErrorContains(t, m.Add(dense([]float64{1, 2, 3}, 1, 3)), "got shape (1, 3), want 2 channels")
	require.ErrorContains(t, m.Add(dense([]float64{1, math.Inf(1)}, 1, 2)), "got +Inf at element 1")
	require.ErrorContains(t, m.Add(nil), "got nil")
	require.ErrorContains(t, m.Merge(nil), "got moments of 0 channels, want 2")
	require.Zero(t, m.Rows())
	require.Zero(t, m.At(0, 0))
}

// What is not finite stops the run, names the layer and is not recorded.
func TestRecorderRefusesNaN(t *testing.T) {
	r := newRecorder(t, quantize.RecorderConfig{Moments: true})
	x := optest.Seeded("x", 1, 2, 3)
	x.Data[4] = math.NaN()
	g, _, _ := tapped(t, r, tensor.Float32, x)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.ErrorContains(t, vm.RunAll(), `quantize.Tap: layer "in": quantize.Observe: got NaN at element 4`)
	_, err := r.Stats("in")
	require.ErrorContains(t, err, "got no runs")
}

func TestRecorderErrors(t *testing.T) {
	for _, m := range []float64{-1, 1, math.NaN()} {
		_, err := quantize.NewRecorder(quantize.RecorderConfig{Momentum: m})
		require.ErrorContains(t, err, fmt.Sprintf("quantize.NewRecorder: Momentum: got %v", m))
	}
	r := newRecorder(t, quantize.RecorderConfig{})
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 2, 3).Node(g, tensor.Float32)
	require.NoError(t, r.Tap("a", x))
	for want, err := range map[string]error{
		"x: got a nil node":      r.Tap("b", nil),
		"layer: got no name":     r.Tap("", x),
		"got a nil Recorder":     (*quantize.Recorder)(nil).Tap("a", x),
		"got dtype int":          r.Tap("b", G.NewVector(g, tensor.Int, G.WithName("i"), G.WithShape(2))),
		"got shape ()":           r.Tap("b", G.NewScalar(g, tensor.Float32, G.WithName("s"))),
		"got 4 channels, want 3": r.Tap("a", optest.Seeded("y", 1, 2, 4).Node(g, tensor.Float32)),
	} {
		require.ErrorContains(t, err, "quantize.Tap: ")
		require.ErrorContains(t, err, want)
	}
	require.Equal(t, []string{"a"}, r.Layers())
	_, err := r.Stats("b")
	require.ErrorContains(t, err, `quantize.Stats: layer "b": got a layer that was not tapped, want one of ["a"]`)
}

func ExampleRecorder() {
	r, err := quantize.NewRecorder(quantize.RecorderConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	g := G.NewGraph()
	x := G.NewMatrix(g, tensor.Float32, G.WithName("x"), G.WithShape(2, 2), G.WithValue(dense([]float32{1, -2, 0.5, 4}, 2, 2)))
	if err := r.Tap("block0.mlp", x); err != nil {
		fmt.Println(err)
		return
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	s, err := r.Stats("block0.mlp")
	if err != nil {
		fmt.Println(err)
		return
	}
	scale, _, err := s.Scale(quantize.ObserverConfig{Observer: quantize.MSE})
	fmt.Printf("%d numbers, channels up to %v, scale %.4f %v\n", s.Count, s.AbsMax, scale, err)
	// Output:
	// 4 numbers, channels up to [1 4], scale 0.0315 <nil>
}
