//go:build cuda

package op_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/cu"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/optest"
)

// gorgonia runs a graph of Gorgonia's own nodes, whose operators run on the card, and returns the values of the nodes that build
// makes.
func gorgonia(t *testing.T, dt tensor.Dtype, build func(x, y, w, v *G.Node) G.Nodes) [][]float64 {
	t.Helper()
	optest.Card(t)
	g := G.NewGraph()
	nodes := build(optest.Seeded("x", 1, 5, 7).Node(g, dt), optest.Seeded("y", 2, 5, 7).Node(g, dt),
		optest.Seeded("w", 3, 7, 3).Node(g, dt), optest.Seeded("v", 4, 7).Node(g, dt))
	values := make([]G.Value, len(nodes))
	for i, n := range nodes {
		G.Read(n, &values[i])
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	var out [][]float64
	for _, v := range values {
		out = append(out, optest.Values(t, v))
	}
	return out
}

func data(seed uint64, n int) []float64 { return optest.Normal[float64](seed, n, 1) }

// dense is a·b for a (m × k) and b (k × n).
func dense(a, b []float64, m, k, n int) []float64 {
	c := make([]float64, m*n)
	for i := range m {
		for j := range n {
			for p := range k {
				c[i*n+j] += a[i*k+p] * b[p*n+j]
			}
		}
	}
	return c
}

func TestGorgoniasOwnNodesOnTheCard(t *testing.T) {
	for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
		got := gorgonia(t, dt, func(x, y, w, v *G.Node) G.Nodes {
			return G.Nodes{
				G.Must(G.Mul(x, w)),
				G.Must(G.Mul(x, v)),
				G.Must(G.Add(x, y)),
				G.Must(G.HadamardDiv(x, y)),
				G.Must(G.Tanh(x)),
				G.Must(G.Exp(G.Must(G.Sub(x, y)))),
				// Gorgonia's engine gets the product of a vector with itself wrong.
				G.Must(G.OuterProd(v, G.Must(G.Neg(v)))),
				G.Must(G.Gt(x, y, true)),
			}
		})
		x, y, w, v := data(1, 35), data(2, 35), data(3, 21), data(4, 7)
		negative := make([]float64, len(v))
		for i := range v {
			negative[i] = -v[i]
		}
		each := func(f func(a, b float64) float64) []float64 {
			z := make([]float64, len(x))
			for i := range x {
				z[i] = f(x[i], y[i])
			}
			return z
		}
		want := [][]float64{
			dense(x, w, 5, 7, 3), dense(x, v, 5, 7, 1),
			each(func(a, b float64) float64 { return a + b }),
			each(func(a, b float64) float64 { return a / b }),
			each(func(a, _ float64) float64 { return math.Tanh(a) }),
			each(func(a, b float64) float64 { return math.Exp(a - b) }),
			dense(v, negative, 7, 1, 7),
			each(func(a, b float64) float64 {
				if a > b {
					return 1
				}
				return 0
			}),
		}
		tol := 1e-6
		if dt == tensor.Float64 {
			tol = 1e-14
		}
		for i := range want {
			most := 0.0
			for _, v := range want[i] {
				most = max(most, math.Abs(v))
			}
			optest.Close(t, fmt.Sprint("node ", i), got[i], want[i], 4*tol*(1+most))
		}
	}
}

// d(Σ x·w) = (1·wᵀ, xᵀ·1): products with transposed matrices, and the gradient of a sum, which Gorgonia does not ship kernels for.
func TestGorgoniasGradientsOnTheCard(t *testing.T) {
	got := gorgonia(t, tensor.Float64, func(x, y, w, v *G.Node) G.Nodes {
		grads, err := G.Grad(G.Must(G.Sum(G.Must(G.Mul(x, w)))), x, w)
		require.NoError(t, err)
		return grads
	})
	x, w := data(1, 35), data(3, 21)
	dx, dw := make([]float64, 35), make([]float64, 21)
	for i := range 5 {
		for p := range 7 {
			for j := range 3 {
				dx[i*7+p] += w[p*3+j]
				dw[p*3+j] += x[i*7+p]
			}
		}
	}
	optest.Close(t, "dx", got[0], dx, 1e-13)
	optest.Close(t, "dw", got[1], dw, 1e-13)
}

// Of all modules, machines load those whose kernels they launch, and share them.
func TestMachinesLoadWhatTheyLaunch(t *testing.T) {
	optest.Card(t)
	path := os.Getenv(cudamodules.LibraryVar)
	if !filepath.IsAbs(path) {
		t.Skip("a real card does not say what it has loaded")
	}
	before := emulator.Loaded(path)
	var machines []G.VM
	for i := range 2 {
		g := G.NewGraph()
		x := optest.Seeded("x", 1, 5, 7).Node(g, tensor.Float32)
		y := G.Must(G.Tanh(x))
		var v G.Value
		G.Read(y, &v)
		vm := G.NewTapeMachine(g)
		machines = append(machines, vm)
		require.Equal(t, before+i, emulator.Loaded(path))
		require.NoError(t, vm.RunAll())
		require.Equal(t, before+1, emulator.Loaded(path))
	}
	require.NoError(t, machines[0].Close())
	require.Equal(t, before+1, emulator.Loaded(path), "the other has it still")
	require.NoError(t, machines[1].Close())
	require.Equal(t, before, emulator.Loaded(path))
}

// Scratch that was given back is kept, but not when others then have no room.
func TestScratchMakesRoomOnTheCard(t *testing.T) {
	optest.Card(t)
	path := os.Getenv(cudamodules.LibraryVar)
	if !filepath.IsAbs(path) {
		t.Skip("a real card has room enough")
	}
	device, err := cu.GetDevice(0)
	require.NoError(t, err)
	ctx, err := device.MakeContext(cu.SchedAuto)
	require.NoError(t, err)
	b := cu.NewBatchedContext(cu.CtxFromCUContext(device, ctx, cu.SchedAuto), device)
	defer b.Close()
	const mib = 1 << 20
	defer emulator.Limit(path, 0)
	emulator.Limit(path, emulator.Limit(path, 0)+4*mib)
	before := emulator.Held(path)
	kept, err := b.Borrow(mib)
	require.NoError(t, err)
	idle, err := b.Borrow(2 * mib)
	require.NoError(t, err)
	b.Return(idle, 2*mib)
	again, err := b.Borrow(2 * mib)
	require.NoError(t, err)
	require.Equal(t, idle, again)
	_, err = b.Borrow(3 * mib) // takes 4
	require.ErrorIs(t, err, cu.OutOfMemory)
	b.Return(again, 2*mib)
	b.Return(kept, mib)
	large, err := b.Borrow(3 * mib)
	require.NoError(t, err)
	require.Equal(t, before+1, emulator.Held(path))
	b.Return(large, 3*mib)
}

// Machines come and go, several at a time, and the card's context goes with the last one.
func TestMachinesGiveTheCardBack(t *testing.T) {
	optest.Card(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				g := G.NewGraph()
				x := optest.Seeded("x", 1, 5, 7).Node(g, tensor.Float32)
				y := G.Must(G.Tanh(x))
				var v G.Value
				G.Read(y, &v)
				vm := G.NewTapeMachine(g)
				if err := vm.RunAll(); err != nil {
					t.Error(err)
				}
				if err := vm.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	_, err := cu.Of(0)
	require.ErrorContains(t, err, "cu: no context")
}
