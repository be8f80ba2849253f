//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

// faults has kernels with the mistakes that the emulator must not let pass.
const faults = `
#include "common.cuh"
KERNEL(256, fine, (float *x, i64 n)) { for (i64 i = grid_first(); i < n; i += grid_stride()) x[i] = i; }
KERNEL(256, writes_beyond, (float *x, i64 n)) { x[n] = 1; }
KERNEL(256, reads_nothing, (float *x, i64 n)) { x[0] = x[n - 1]; }
KERNEL(256, shared_beyond, (float *x, i64 n)) { DYNAMIC_SHARED(float, s); s[n] = 1; x[0] = s[0]; }
KERNEL(256, shared_unwritten, (float *x, i64 n)) { __shared__ float s[4]; if (n < 0) s[0] = 1; x[0] = s[0]; }
KERNEL(256, divergent, (float *x, i64 n)) { if (threadIdx.x < 32) __syncthreads(); x[0] = 1; }
KERNEL(256, half_shuffle, (float *x, i64 n)) { if (threadIdx.x < 16) x[0] = shuffle_xor(1.f, 1); else __syncthreads(); }
KERNEL(256, other_parameters, (float *x, i64 n, double)) { x[0] = n; }
`

const faultsPTX = `
.version 7.0
.target sm_80
.visible .entry fine( .param .u64 fine_param_0, .param .u64 fine_param_1 )
.visible .entry writes_beyond( .param .u64 .ptr .align 1 a, .param .u64 b )
.visible .entry reads_nothing( .param .u64 a, .param .u64 b )
.visible .entry shared_beyond( .param .u64 a, .param .u64 b )
.visible .entry shared_unwritten( .param .u64 a, .param .u64 b )
.visible .entry divergent( .param .u64 a, .param .u64 b )
.visible .entry half_shuffle( .param .u64 a, .param .u64 b )
.visible .entry other_parameters( .param .u64 a, .param .u64 b )
`

func openFaults(t *testing.T) (*emulator.Session, *cudamodules.Module, cudamodules.Ptr) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "faults.cu"), []byte(faults), 0o644))
	for _, h := range []string{"common.cuh"} {
		data, err := os.ReadFile(filepath.Join("../src", h))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, h), data, 0o644))
	}
	s := emulator.Open(t, emulator.Config{Source: dir})
	m, err := s.LoadPTX("faults", faultsPTX)
	require.NoError(t, err)
	p, err := s.Alloc(16)
	require.NoError(t, err)
	return s, m, p
}

func TestFaultsOfKernelsShow(t *testing.T) {
	s, m, p := openFaults(t)
	launch := func(name string, threads int) error {
		f, err := m.Function(name)
		require.NoError(t, err)
		return f.Launch(cudamodules.Geometry{Block: [3]int{threads}, Shared: 64}, p, int64(4))
	}
	x := make([]float32, 4)
	require.NoError(t, launch("reads_nothing", 1))
	require.NoError(t, cudamodules.Download(s.Context, x, p))
	require.True(t, x[0] != x[0], "memory that nobody wrote is NaN: %v", x[0])
	require.NoError(t, launch("shared_unwritten", 1))
	require.NoError(t, cudamodules.Download(s.Context, x, p))
	require.True(t, x[0] != x[0], "shared memory that nobody wrote is NaN: %v", x[0])
	require.NoError(t, launch("fine", 32))
	require.NoError(t, cudamodules.Download(s.Context, x, p))
	require.Equal(t, []float32{0, 1, 2, 3}, x)

	require.ErrorIs(t, launch("fine", 257), cudamodules.ErrLaunch, "more threads than the kernel's bound")
	require.ErrorContains(t, launch("divergent", 64), "a barrier that some threads never reached")
	require.ErrorContains(t, launch("half_shuffle", 32), "threads that wait for each other")
	f, err := m.Function("shared_beyond")
	require.NoError(t, err)
	require.ErrorContains(t, f.Launch(cudamodules.Geometry{Shared: 4}, p, int64(40)), "a write beyond dynamic shared memory")
	_, err = m.Function("other_parameters")
	require.ErrorContains(t, err, "the parameters of other_parameters in PTX are not those of the source")
	_, err = m.Function("absent")
	require.ErrorContains(t, err, "CUDA_ERROR_NOT_FOUND")
	_, err = s.LoadPTX("text", "no such thing")
	require.ErrorIs(t, err, cudamodules.ErrBadPTX)

	require.NoError(t, launch("writes_beyond", 1))
	require.ErrorContains(t, s.Free(p), "a kernel wrote outside of its memory")
	require.ErrorIs(t, s.Close(), cudamodules.ErrLaunch, "as on a card, every later call fails")
}

func TestNothingIsHeldAfterClose(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	if !s.Emulated() {
		t.Skip("a real card does not say what it holds")
	}
	before := s.Held()
	_, err := s.Alloc(100)
	require.NoError(t, err)
	_, err = s.Kernel("norm", "rmsnorm_f32")
	require.NoError(t, err)
	_, err = s.Load("quantized")
	require.NoError(t, err)
	_, err = s.Stream()
	require.NoError(t, err)
	_, err = s.Event()
	require.NoError(t, err)
	require.Equal(t, before+4, s.Held())
	_, err = s.Alloc(1 << 40)
	require.ErrorIs(t, err, cudamodules.ErrOutOfMemory)
	require.NoError(t, s.Close())
	require.Equal(t, before-1, s.Held(), "the context itself is given back too")
}

// Every kernel in the PTX is in the library, with the same parameters.
func TestEveryKernelIsEmulated(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	modules := cudamodules.Modules()
	if s.Emulated() {
		_, err := s.Kernel(cudamodules.WarpgroupModule, "attention_pack_f32")
		require.ErrorContains(t, err, "CUDA_ERROR_NO_BINARY_FOR_GPU", "a card of another compute capability")
		s.Capability(t, 90)
		modules = append(modules, cudamodules.WarpgroupModule)
	}
	for _, module := range modules {
		names, err := cudamodules.Entries(module)
		require.NoError(t, err)
		for _, name := range names {
			_, err := s.Kernel(module, name)
			require.NoError(t, err)
		}
	}
}

func TestBuildErrors(t *testing.T) {
	_, err := emulator.Build(emulator.Config{Modules: []string{"absent"}})
	require.ErrorContains(t, err, "emulator: got modules [absent]")
	t.Setenv("CXX", "no-such-compiler")
	_, err = emulator.Build(emulator.Config{})
	require.ErrorIs(t, err, emulator.ErrNoCompiler)
}
