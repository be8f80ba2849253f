//go:build cuda && linux && (amd64 || arm64)

package ops

import (
	"fmt"
	"math"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/card"
	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/optest"
)

// cardPair is a parameter and its gradient.
type cardPair struct {
	name        string
	value, grad *tensor.Dense
}

func (p *cardPair) Name() string           { return p.name }
func (p *cardPair) Value() G.Value         { return p.value }
func (p *cardPair) Grad() (G.Value, error) { return p.grad, nil }

// The steps on the card are those of the CPU, up to roundings, and parameters, gradients and moments stay there.
func TestAdamWOnTheCard(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	if s.Emulated() {
		t.Setenv(cudamodules.LibraryVar, s.Path())
	}
	testAdamWOnTheCard[float32](t, 3e-7)
	testAdamWOnTheCard[float64](t, 1e-15)
}

func testAdamWOnTheCard[T kernel.Float](t *testing.T, tol float64) {
	cfg := AdamWConfig{LR: 0.01, Clip: 1, WeightDecay: 0.1, NoDecay: func(name string) bool { return name == "p1" }}
	there, err := NewAdamW(cfg)
	require.NoError(t, err)
	here, err := NewAdamW(cfg)
	require.NoError(t, err)
	var ours, theirs []G.ValueGrad
	var memory [][]T
	for i, n := range []int{1, 100, 5000, 40000} {
		var slices [2][]T
		for j := range slices {
			x, err := card.Alloc[T](n)
			require.NoError(t, err)
			copy(x, optest.Normal[T](uint64(2*i+j), n, 1))
			slices[j], memory = x, append(memory, x)
		}
		on := func(x []T) *tensor.Dense { return tensor.New(tensor.WithShape(n), tensor.WithBacking(x)) }
		p := unsafe.Pointer(&slices[1][0])
		managed := tensor.New(tensor.Of(on(slices[1]).Dtype()), tensor.WithShape(n), tensor.FromMemory(uintptr(p), uintptr(n)*unsafe.Sizeof(T(0))))
		name := fmt.Sprintf("p%d", i)
		ours = append(ours, &cardPair{name, on(slices[0]), managed})
		theirs = append(theirs, &cardPair{name, on(append([]T(nil), slices[0]...)), on(append([]T(nil), slices[1]...))})
	}
	for step := range 3 {
		for i, p := range theirs { // the step zeroes gradients
			n := p.Value().Size()
			copy(memory[2*i+1], optest.Normal[T](uint64(10*step+i), n, 1))
			copy(op.Memory[T](p.(*cardPair).grad), memory[2*i+1])
		}
		require.NoError(t, there.Step(ours))
		require.Zero(t, memory[5][17])
		require.NoError(t, here.Step(theirs))
		require.InEpsilon(t, here.LastNorm(), there.LastNorm(), 1e-6)
		for i, p := range ours {
			require.True(t, card.Holds(there.moments[p.(*cardPair).name].m.Uintptr()), "moments are on the card")
			want := optest.Values(t, theirs[i].Value())
			optest.Close(t, "parameter", optest.Values(t, p.Value()), want, tol*4)
		}
	}
	// A state goes from one to the other.
	state := there.State()
	require.NoError(t, here.SetState(state))
	require.NoError(t, here.Step(theirs))

	// A gradient that is not finite changes nothing.
	before := optest.Values(t, ours[0].Value())
	memory[len(memory)-1][17] = T(math.NaN())
	err = there.Step(ours)
	require.ErrorIs(t, err, ErrNonFinite)
	require.ErrorContains(t, err, "the first at parameter p3")
	require.Equal(t, before, optest.Values(t, ours[0].Value()))
	for _, x := range memory {
		require.NoError(t, card.Free(x))
	}
}
