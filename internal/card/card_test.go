//go:build cuda && linux && (amd64 || arm64)

package card_test

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/card"
)

// Memory that the host writes is read by kernels, and the other way; the card is given back with the last of it.
func TestSharedMemory(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	if s.Emulated() {
		t.Setenv(cudamodules.LibraryVar, s.Path())
	}
	before := 0
	if s.Emulated() {
		before = s.Held()
	}
	x, err := card.Alloc[float32](1000)
	require.NoError(t, err)
	y, err := card.Alloc[float64](1)
	require.NoError(t, err)
	require.True(t, card.Holds(uintptr(unsafe.Pointer(&x[0]))))
	require.False(t, card.Holds(uintptr(unsafe.Pointer(&x[1]))), "it begins elsewhere")
	for i := range x {
		x[i] = 2
	}
	require.NoError(t, card.Launch("elements", "squares_f32", cudamodules.Geometry{Block: [3]int{256}}, card.At(y), card.At(x), int64(len(x))))
	require.NoError(t, card.Synchronize())
	require.Equal(t, 4000.0, y[0])
	require.ErrorContains(t, card.Launch("elements", "absent", cudamodules.Geometry{}), "absent")
	require.NoError(t, card.Free(x))
	require.NoError(t, card.Free(x), "a second time does nothing")
	require.NoError(t, card.Free(make([]float32, 3)), "nor does memory of Go")
	require.NoError(t, card.Free(y))
	if s.Emulated() {
		require.Equal(t, before, s.Held())
	}
	_, err = card.Alloc[float32](0)
	require.EqualError(t, err, "card: got 0 numbers, want at least 1")
	_, err = card.Alloc[float64](1 << 40)
	require.ErrorIs(t, err, cudamodules.ErrOutOfMemory)
	if s.Emulated() {
		require.Equal(t, before, s.Held())
	}
}
