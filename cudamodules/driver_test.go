package cudamodules

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func fakeContext(t *testing.T, f *fake) *Context {
	t.Helper()
	d, err := start(&f.api)
	require.NoError(t, err)
	dev, err := d.Device(0)
	require.NoError(t, err)
	c, err := dev.Context()
	require.NoError(t, err)
	return c
}

func TestOpenWithoutALibraryIsNoDriver(t *testing.T) {
	t.Setenv(LibraryVar, "/nonexistent/libcuda.so.1")
	_, err := Open()
	require.ErrorIs(t, err, ErrNoDriver)
	require.ErrorContains(t, err, "cudamodules: no CUDA driver on this machine")
}

func TestStartTellsFailuresApart(t *testing.T) {
	for name, c := range map[string]struct {
		arrange func(f *fake)
		kind    error
		message string
	}{
		"stub library":    {func(f *fake) { f.fail["cuInit"] = 34 }, ErrNoDriver, "cuInit: CUDA_ERROR_STUB_LIBRARY (34)"},
		"no device":       {func(f *fake) { f.fail["cuInit"] = 100 }, ErrNoDevice, "cuInit: CUDA_ERROR_NO_DEVICE (100)"},
		"no device left":  {func(f *fake) { f.count = 0 }, ErrNoDevice, "counts none"},
		"mismatch":        {func(f *fake) { f.fail["cuInit"] = 803 }, ErrOldDriver, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)"},
		"old":             {func(f *fake) { f.version = 11080 }, ErrOldDriver, "got version 11.8, want 12.0 or later"},
		"unknown failure": {func(f *fake) { f.fail["cuInit"] = 4711 }, nil, "CUresult 4711 (4711): text of the driver"},
	} {
		f := newFake()
		c.arrange(f)
		_, err := start(&f.api)
		require.ErrorContains(t, err, c.message, name)
		for _, kind := range []error{ErrNoDriver, ErrNoDevice, ErrOldDriver, ErrOutOfMemory, ErrLaunch} {
			require.Equal(t, kind == c.kind, errors.Is(err, kind), "%s: %v", name, kind)
		}
	}
}

func TestDevice(t *testing.T) {
	f := newFake()
	d, err := start(&f.api)
	require.NoError(t, err)
	require.Equal(t, 12040, d.Version())
	require.Equal(t, 1, d.Devices())
	dev, err := d.Device(0)
	require.NoError(t, err)
	require.Equal(t, "Fake 9000", dev.Name())
	require.EqualValues(t, 1<<30, dev.Memory())
	capability, err := dev.Capability()
	require.NoError(t, err)
	require.Equal(t, 75*10+76, capability)
	for _, i := range []int{-1, 1} {
		_, err = d.Device(i)
		require.ErrorIs(t, err, ErrNoDevice)
	}
}

// use calls everything once and closes all, in the given order; it stops at the first error.
func use(c *Context) (err error) {
	try := func(e error) {
		if err == nil {
			err = e
		}
	}
	p, e := c.Alloc(64)
	try(e)
	q, e := c.AllocManaged(64)
	try(e)
	if err != nil {
		return err
	}
	src := []float32{1, 2, 3}
	dst := make([]float32, 3)
	try(Upload(c, p, src))
	try(c.Set(q, 0, 64, nil))
	try(c.Copy(q, p, 12, nil))
	try(Download(c, dst, q))
	if err == nil && !reflect.DeepEqual(src, dst) {
		panic("copies")
	}
	m, e := c.LoadPTX("m", "text")
	try(e)
	if err != nil {
		return err
	}
	fn, e := m.Function("k")
	try(e)
	s, e := c.Stream()
	try(e)
	from, e := c.Event()
	try(e)
	to, e := c.Event()
	try(e)
	if err != nil {
		return err
	}
	try(from.Record(s))
	try(fn.Launch(Geometry{Block: [3]int{32}, Shared: 100 << 10, Stream: s}, p, int32(-5), int64(6), float32(7), 8.0, []byte{9, 10}))
	try(to.Record(s))
	try(to.Synchronize())
	_, e = to.Since(from)
	try(e)
	try(s.WaitFor(to))
	try(s.Synchronize())
	try(s.Wait(context.Background()))
	_, _, e = c.MemoryInfo()
	try(e)
	_, e = fn.Usage()
	try(e)
	try(c.Synchronize())
	try(to.Close())
	try(s.Close())
	try(m.Close())
	try(c.Free(q))
	return err
}

func TestEverythingIsGivenBack(t *testing.T) {
	f := newFake()
	var got []any
	f.kernels["k"] = func(argv *unsafe.Pointer) {
		p := unsafe.Slice(argv, 6)
		got = []any{*(*Ptr)(p[0]), *(*int32)(p[1]), *(*int64)(p[2]), *(*float32)(p[3]), *(*float64)(p[4]), *(*[2]byte)(p[5])}
	}
	c := fakeContext(t, f)
	require.NoError(t, use(c))
	require.Equal(t, []any{got[0], int32(-5), int64(6), float32(7), 8.0, [2]byte{9, 10}}, got)
	require.EqualValues(t, 64, c.Allocated(), "one of two is still held")
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.Empty(t, f.held)
	require.Zero(t, f.depth)
	_, err := c.Alloc(1)
	require.ErrorIs(t, err, ErrClosed)
}

// Each call of the driver fails once, with a code of its own: the error names both, and after Close nothing is held.
func TestEachCallMayFailAndNothingLeaks(t *testing.T) {
	probe := newFake()
	probe.kernels["k"] = func(*unsafe.Pointer) {}
	c := fakeContext(t, probe)
	require.NoError(t, use(c))
	require.NoError(t, c.Close())
	seen := 0
	for name := range probe.calls {
		switch name {
		case "cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuGetErrorString", "cuDevicePrimaryCtxRetain",
			"cuDeviceGet", "cuDeviceGetName", "cuDeviceTotalMem_v2":
			continue // before there is a context
		}
		seen++
		for _, code := range []Result{2, 719} {
			f := newFake()
			f.kernels["k"] = func(*unsafe.Pointer) {}
			c := fakeContext(t, f)
			f.fail[name] = code
			err := use(c)
			if name != "cuDevicePrimaryCtxRelease_v2" && name != "cuMemFree_v2" {
				require.ErrorContains(t, err, name+": "+code.String(), name)
			}
			closing := c.Close()
			if err == nil {
				require.ErrorContains(t, closing, name+": "+code.String(), name)
				err = closing
			}
			require.Equal(t, code == 2, errors.Is(err, ErrOutOfMemory), name)
			require.Equal(t, code == 719, errors.Is(err, ErrLaunch), name)
			delete(f.fail, name)
			if !closesNothing[name] {
				require.Empty(t, f.held, name)
			}
			if name != "cuCtxPopCurrent_v2" {
				require.Zero(t, f.depth, name)
			}
		}
	}
	require.Greater(t, seen, 20)
}

// closesNothing are the calls without which something stays held, whatever one does.
var closesNothing = map[string]bool{
	"cuCtxPushCurrent_v2": true, "cuMemFree_v2": true, "cuModuleUnload": true, "cuStreamDestroy_v2": true, "cuEventDestroy_v2": true,
	"cuDevicePrimaryCtxRelease_v2": true,
}

func TestBeforeAContextFailuresLeakNothing(t *testing.T) {
	for _, name := range []string{"cuDeviceGet", "cuDeviceGetName", "cuDeviceTotalMem_v2", "cuDevicePrimaryCtxRetain"} {
		f := newFake()
		d, err := start(&f.api)
		require.NoError(t, err)
		f.fail[name] = 2
		dev, err := d.Device(0)
		if err == nil {
			_, err = dev.Context()
		}
		require.ErrorIs(t, err, ErrOutOfMemory, name)
		require.Empty(t, f.held)
	}
}

func TestLaunchNamesTheKernelAndWhatIsWrong(t *testing.T) {
	f := newFake()
	f.kernels["k"] = func(*unsafe.Pointer) {}
	c := fakeContext(t, f)
	m, err := c.LoadPTX("mod", "")
	require.NoError(t, err)
	_, err = m.Function("absent")
	require.ErrorContains(t, err, "cudamodules: kernel mod.absent: cudamodules: cuModuleGetFunction: CUDA_ERROR_NOT_FOUND (500)")
	k, err := m.Function("k")
	require.NoError(t, err)
	require.ErrorContains(t, k.Launch(Geometry{}, 5), "kernel mod.k: parameter 0: got int, want Ptr")
	require.ErrorContains(t, k.Launch(Geometry{}, []byte{}), "parameter 0: got no bytes")
	err = k.Launch(Geometry{Block: [3]int{2048}}, int32(1))
	require.ErrorContains(t, err, "kernel mod.k, grid [1 1 1], block [2048 1 1]: cudamodules: cuLaunchKernel: CUDA_ERROR_INVALID_VALUE (1)")
	require.ErrorIs(t, err, ErrLaunch)
	require.ErrorContains(t, k.Launch(Geometry{Grid: [3]int{1, -1}}), "kernel mod.k: got grid [1 -1 0], block [0 0 0] and 0 bytes of shared memory, want 0 to")
	require.ErrorContains(t, k.Launch(Geometry{Grid: [3]int{1 << 31}}), "kernel mod.k: got grid [2147483648 0 0]")
	require.NoError(t, k.Launch(Geometry{Shared: 100 << 10}))
	require.NoError(t, k.Launch(Geometry{Shared: 99 << 10}))
	require.Equal(t, 1, f.calls["cuFuncSetAttribute"], "the limit is raised once")
}

func TestWaitEndsWithItsContext(t *testing.T) {
	f := newFake()
	c := fakeContext(t, f)
	s, err := c.Stream()
	require.NoError(t, err)
	f.pending = 3
	require.NoError(t, s.Wait(context.Background()))
	f.pending = 1 << 30
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Wait(ctx), context.DeadlineExceeded)
	f.pending = 0
	require.NoError(t, c.Close())
}

func TestNothingIsFreedTwice(t *testing.T) {
	f := newFake()
	c := fakeContext(t, f)
	p, err := c.Alloc(8)
	require.NoError(t, err)
	require.NoError(t, c.Free(p))
	require.NoError(t, c.Free(p))
	require.NoError(t, c.Free(0))
	require.Equal(t, 1, f.calls["cuMemFree_v2"])
	none, err := c.Alloc(0)
	require.NoError(t, err)
	require.Zero(t, none)
	_, err = c.Alloc(-1)
	require.ErrorContains(t, err, "got an allocation of -1 bytes")
	require.NoError(t, c.Close())
}

// A module is loaded once, by whoever first asks for a kernel, and unloaded once.
func TestModulesLoadOnDemand(t *testing.T) {
	f := newFake()
	f.kernels["rmsnorm_f32"] = func(*unsafe.Pointer) {}
	c := fakeContext(t, f)
	m, err := c.Load("norm")
	require.NoError(t, err)
	idle, err := c.Load("quantized")
	require.NoError(t, err)
	require.Zero(t, f.calls["cuModuleLoadData"], "nobody has asked for a kernel")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := m.Function("rmsnorm_f32"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, f.calls["cuModuleLoadData"])
	require.Equal(t, 1, f.calls["cuModuleGetFunction"])
	for range 2 {
		require.NoError(t, m.Close())
		require.NoError(t, idle.Close())
	}
	require.Equal(t, 1, f.calls["cuModuleUnload"])
	_, err = idle.Function("rounded_int8_f32")
	require.ErrorIs(t, err, ErrClosed)
	require.NoError(t, c.Close())
	require.Empty(t, f.held)
}

// What the driver says of a module comes with the name of the kernel that was asked for, and a failure is not kept.
func TestAModuleThatFailsIsTriedAgain(t *testing.T) {
	f := newFake()
	f.kernels["rmsnorm_f32"] = func(*unsafe.Pointer) {}
	c := fakeContext(t, f)
	m, err := c.Load("norm")
	require.NoError(t, err)
	for code, kind := range map[Result]error{2: ErrOutOfMemory, 218: ErrBadPTX, 222: ErrOldDriver} {
		f.fail["cuModuleLoadData"] = code
		_, err = m.Function("rmsnorm_f32")
		require.ErrorIs(t, err, kind)
		require.ErrorContains(t, err, "cudamodules: kernel norm.rmsnorm_f32: cudamodules: module norm: cudamodules: cuModuleLoadData: "+code.String())
		for _, other := range []error{ErrOutOfMemory, ErrBadPTX, ErrOldDriver, ErrLaunch} {
			require.Equal(t, kind == other, errors.Is(err, other))
		}
	}
	delete(f.fail, "cuModuleLoadData")
	_, err = m.Function("rmsnorm_f32")
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Empty(t, f.held)
}

func TestConcurrentUse(t *testing.T) {
	f := newFake()
	f.kernels["k"] = func(*unsafe.Pointer) {}
	c := fakeContext(t, f)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if err := use(c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, c.Close())
	require.Empty(t, f.held)
}

// What a call has made is given back, though Close comes between the driver's answer and the note of it, and a call that comes after is
// refused.
func TestCloseWaitsForCalls(t *testing.T) {
	f := newFake()
	inside, goOn := make(chan struct{}), make(chan struct{})
	alloc := f.api.memAlloc
	f.api.memAlloc = func(p *Ptr, n uintptr) Result {
		r := alloc(p, n)
		close(inside)
		<-goOn
		return r
	}
	c := fakeContext(t, f)
	failed := make(chan error, 2)
	go func() {
		_, err := c.Alloc(8)
		failed <- err
	}()
	<-inside
	closing := make(chan struct{})
	go func() {
		close(closing)
		failed <- c.Close()
	}()
	<-closing
	close(goOn)
	require.NoError(t, <-failed)
	require.NoError(t, <-failed)
	require.Empty(t, f.held)
	_, err := c.Alloc(8)
	require.ErrorIs(t, err, ErrClosed)
}

// Whoever allocates while another closes gets memory that Close gives back, or an error.
func TestCloseBesideAllocations(t *testing.T) {
	for range 50 {
		f := newFake()
		c := fakeContext(t, f)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					if _, err := c.Alloc(8); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		require.NoError(t, c.Close())
		wg.Wait()
		require.Empty(t, f.held)
	}
}
