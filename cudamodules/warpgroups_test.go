package cudamodules

import (
	"bytes"
	"context"
	"log"
	"math"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// hopper is a fake card of compute capability 9.0 whose kernels compute nothing.
func hopper(t *testing.T) (*fake, *Device) {
	t.Helper()
	f := newFake()
	f.attributes = map[Attribute]int32{ComputeCapabilityMajor: 9, ComputeCapabilityMinor: 0}
	for _, k := range []string{"attention_pack_f32", "attention_warpgroups_64_f32", "attention_warpgroups_128_f32"} {
		f.kernels[k] = func(*unsafe.Pointer) {}
	}
	d, err := start(&f.api)
	require.NoError(t, err)
	dev, err := d.Device(0)
	require.NoError(t, err)
	return f, dev
}

// A card that computes something else is found out, once, with nothing left on it.
func TestWarpgroupsThatAreWrongAreNotUsed(t *testing.T) {
	t.Setenv(WarpgroupsVar, "")
	var lines bytes.Buffer
	log.SetOutput(&lines)
	defer log.SetOutput(os.Stderr)
	f, dev := hopper(t)
	for range 2 {
		ok, why := dev.Warpgroups()
		require.False(t, ok)
		require.Contains(t, why, "the check failed: dim 64: result 0: got NaN, want ")
	}
	require.Equal(t, 1, f.calls["cuCtxCreate_v2"])
	require.Equal(t, 1, bytes.Count(lines.Bytes(), []byte("Fake 9000: attention by warpgroups is not used: the check failed: ")), lines.String())
	require.Empty(t, f.held)
	require.Zero(t, f.depth)
}

// Whatever call of the check fails, the answer is no, and nothing is left on the card.
func TestACheckOfWarpgroupsMayFail(t *testing.T) {
	t.Setenv(WarpgroupsVar, "check")
	log.SetOutput(&bytes.Buffer{})
	defer log.SetOutput(os.Stderr)
	for _, call := range []string{"cuCtxCreate_v2", "cuMemAlloc_v2", "cuMemcpyHtoD_v2", "cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel",
		"cuStreamCreate", "cuStreamQuery", "cuMemcpyDtoH_v2", "cuFuncSetAttribute"} {
		f, dev := hopper(t)
		f.fail[call] = 719
		ok, why := dev.Warpgroups()
		require.False(t, ok)
		require.Contains(t, why, call+": CUDA_ERROR_LAUNCH_FAILED (719)")
		require.Empty(t, f.held, call)
		require.Zero(t, f.depth, call)
	}
}

// A kernel that does not end is left alone with its context: whatever would wait for it, as freeing memory does, is not called.
func TestACheckOfWarpgroupsMayNotEnd(t *testing.T) {
	t.Setenv(WarpgroupsVar, "check")
	log.SetOutput(&bytes.Buffer{})
	defer log.SetOutput(os.Stderr)
	defer func(d time.Duration) { checkTime = d }(checkTime)
	checkTime = 20 * time.Millisecond
	f, dev := hopper(t)
	f.pending = math.MaxInt
	ok, why := dev.Warpgroups()
	require.False(t, ok)
	require.Contains(t, why, context.DeadlineExceeded.Error())
	require.Equal(t, 1, f.calls["cuCtxSynchronize"], "the one before the launch")
	for _, call := range []string{"cuMemFree_v2", "cuMemcpyDtoH_v2", "cuStreamDestroy_v2", "cuModuleUnload", "cuCtxDestroy_v2"} {
		require.Zero(t, f.calls[call], call)
	}
	require.Zero(t, f.depth)
}

func TestWarpgroupsVar(t *testing.T) {
	f, dev := hopper(t)
	for value, want := range map[string]struct {
		ok  bool
		why string
	}{
		"on":  {true, "STHENO_WARPGROUPS is on: not checked"},
		"off": {false, "STHENO_WARPGROUPS is off"},
		"yes": {false, `got STHENO_WARPGROUPS="yes", want on, off or check`},
	} {
		t.Setenv(WarpgroupsVar, value)
		ok, why := dev.Warpgroups()
		require.Equal(t, want.ok, ok, value)
		require.Equal(t, want.why, why)
	}
	f.attributes[ComputeCapabilityMajor] = 12
	for _, value := range []string{"on", "check"} {
		t.Setenv(WarpgroupsVar, value)
		ok, why := dev.Warpgroups()
		require.False(t, ok)
		require.Equal(t, "got compute capability 12.0, want 9.0", why)
	}
	require.Zero(t, f.calls["cuCtxCreate_v2"])
}
