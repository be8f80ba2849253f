package cudamodules

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"
)

// Ptr is an address in device memory. The zero Ptr is nil.
type Ptr uintptr

// Context is a card in use. All methods may be called from any goroutine. Close releases the memory, modules, streams and events
// that are still held.
type Context struct {
	device *Device
	handle uintptr
	own    bool // it is nobody else's, and not the card's primary one

	// calls is read-locked by every call of the driver until what it has made is in held, so that Close finds all of it.
	calls  sync.RWMutex
	closed bool

	mu   sync.Mutex
	held map[resource]int64 // with the size of memory
}

// resource is something that Close has to give back.
type resource struct {
	kind   resourceKind
	handle uintptr
}

type resourceKind uint8

const (
	heldEvent resourceKind = iota
	heldStream
	heldMemory
	heldModule
)

// Context begins to use the card: its primary context, which other libraries in this process share.
func (d *Device) Context() (*Context, error) {
	c := &Context{device: d, held: map[resource]int64{}}
	a := d.driver.api
	if err := d.driver.check("cuDevicePrimaryCtxRetain", a.primaryRetain(&c.handle, d.id)); err != nil {
		return nil, err
	}
	return c, nil
}

// ownContext is a context that nobody shares: what goes wrong in it stays there.
func (d *Device) ownContext() (*Context, error) {
	c := &Context{device: d, own: true, held: map[resource]int64{}}
	a := d.driver.api
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := d.driver.check("cuCtxCreate_v2", a.ctxCreate(&c.handle, 0, d.id)); err != nil {
		return nil, err
	}
	// It is current on this thread now.
	var popped uintptr
	if err := d.driver.check("cuCtxPopCurrent_v2", a.ctxPop(&popped)); err != nil {
		return nil, errors.Join(err, d.driver.check("cuCtxDestroy_v2", a.ctxDestroy(c.handle)))
	}
	return c, nil
}

// Device is the card.
func (c *Context) Device() *Device { return c.device }

// do makes the context current on an OS thread and calls f.
func (c *Context) do(f func(a *api) error) error {
	c.calls.RLock()
	defer c.calls.RUnlock()
	if c.closed {
		return fmt.Errorf("cudamodules: context of %s: %w", c.device.name, ErrClosed)
	}
	return c.current(f)
}

func (c *Context) current(f func(a *api) error) error {
	d := c.device.driver
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := d.check("cuCtxPushCurrent_v2", d.api.ctxPush(c.handle)); err != nil {
		return err
	}
	err := f(d.api)
	var popped uintptr
	return errors.Join(err, d.check("cuCtxPopCurrent_v2", d.api.ctxPop(&popped)))
}

// call is do for one function of the driver.
func (c *Context) call(name string, f func(a *api) Result) error {
	return c.do(func(a *api) error { return c.device.driver.check(name, f(a)) })
}

// take is call for one that makes a resource, which f puts into its handle and Close has to give back. It is noted after a failure as
// well: the driver may have made it and failed after.
func (c *Context) take(name string, k resourceKind, size int64, f func(a *api, handle *uintptr) Result) (handle uintptr, err error) {
	err = c.do(func(a *api) error {
		r := f(a, &handle)
		if handle != 0 {
			c.mu.Lock()
			c.held[resource{k, handle}] = size
			c.mu.Unlock()
		}
		return c.device.driver.check(name, r)
	})
	return handle, err
}

// drop forgets a resource and says whether it was held, so that nothing is given back twice.
func (c *Context) drop(k resourceKind, handle uintptr) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.held[resource{k, handle}]
	delete(c.held, resource{k, handle})
	return ok
}

// Allocated is the number of bytes of device memory that are held.
func (c *Context) Allocated() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n int64
	for r, size := range c.held {
		if r.kind == heldMemory {
			n += size
		}
	}
	return n
}

// Close waits for what runs, calls of other goroutines included, and gives everything back. A second Close does nothing.
func (c *Context) Close() error {
	c.calls.Lock()
	defer c.calls.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.mu.Lock()
	held := c.held
	c.held = map[resource]int64{}
	c.mu.Unlock()

	check := c.device.driver.check
	err := c.current(func(a *api) error {
		errs := []error{check("cuCtxSynchronize", a.ctxSynchronize())}
		for kind := heldEvent; kind <= heldModule; kind++ {
			for r := range held {
				if r.kind == kind {
					errs = append(errs, check(release(a, r)))
				}
			}
		}
		return errors.Join(errs...)
	})
	a := c.device.driver.api
	if c.own {
		return errors.Join(err, check("cuCtxDestroy_v2", a.ctxDestroy(c.handle)))
	}
	return errors.Join(err, check("cuDevicePrimaryCtxRelease_v2", a.primaryRelease(c.device.id)))
}

func release(a *api, r resource) (string, Result) {
	switch r.kind {
	case heldEvent:
		return "cuEventDestroy_v2", a.eventDestroy(r.handle)
	case heldStream:
		return "cuStreamDestroy_v2", a.streamDestroy(r.handle)
	case heldMemory:
		return "cuMemFree_v2", a.memFree(Ptr(r.handle))
	default:
		return "cuModuleUnload", a.moduleUnload(r.handle)
	}
}

// give releases a resource once.
func (c *Context) give(k resourceKind, handle uintptr) error {
	c.calls.RLock()
	closed := c.closed
	c.calls.RUnlock()
	if handle == 0 || closed {
		return nil
	}
	return c.do(func(a *api) error {
		if !c.drop(k, handle) {
			return nil
		}
		return c.device.driver.check(release(a, resource{k, handle}))
	})
}

// Synchronize waits until everything that was started has ended, and returns the error of a kernel that failed.
func (c *Context) Synchronize() error {
	return c.call("cuCtxSynchronize", func(a *api) Result { return a.ctxSynchronize() })
}

// MemoryInfo says how many bytes of the card's memory are free, and how many there are.
func (c *Context) MemoryInfo() (free, total int64, err error) {
	var f, t uintptr
	err = c.call("cuMemGetInfo_v2", func(a *api) Result { return a.memGetInfo(&f, &t) })
	return int64(f), int64(t), err
}

// Alloc takes n bytes of device memory, at least 256-byte aligned, with arbitrary contents. 0 bytes are the nil Ptr.
func (c *Context) Alloc(n int64) (Ptr, error) {
	return c.alloc("cuMemAlloc_v2", n, func(a *api, p *uintptr) Result { return a.memAlloc((*Ptr)(p), uintptr(n)) })
}

// AllocManaged takes n bytes that both the card and the host may use, though not at the same time.
func (c *Context) AllocManaged(n int64) (Ptr, error) {
	const global = 1 // CU_MEM_ATTACH_GLOBAL
	return c.alloc("cuMemAllocManaged", n, func(a *api, p *uintptr) Result { return a.memAllocManaged((*Ptr)(p), uintptr(n), global) })
}

func (c *Context) alloc(name string, n int64, f func(a *api, p *uintptr) Result) (Ptr, error) {
	if n < 0 {
		return 0, fmt.Errorf("cudamodules: got an allocation of %d bytes, want at least 0", n)
	}
	if n == 0 {
		return 0, nil
	}
	p, err := c.take(name, heldMemory, n, f)
	if err != nil {
		return 0, fmt.Errorf("%w (%d bytes on %s)", err, n, c.device.name)
	}
	return Ptr(p), nil
}

// Free gives memory back. The nil Ptr, and memory that is not held, are left alone.
func (c *Context) Free(p Ptr) error { return c.give(heldMemory, uintptr(p)) }

// Number is what device memory holds.
type Number interface {
	~int8 | ~uint8 | ~int16 | ~uint16 | ~int32 | ~uint32 | ~int64 | ~uint64 | ~int | ~float32 | ~float64
}

// Upload copies src into device memory at dst, and returns when it is there.
func Upload[T Number](c *Context, dst Ptr, src []T) error {
	if len(src) == 0 {
		return nil
	}
	return c.CopyIn(dst, unsafe.Pointer(&src[0]), int64(len(src))*int64(unsafe.Sizeof(src[0])))
}

// Download copies device memory at src into dst, once what was started before has written it.
func Download[T Number](c *Context, dst []T, src Ptr) error {
	if len(dst) == 0 {
		return nil
	}
	return c.CopyOut(unsafe.Pointer(&dst[0]), src, int64(len(dst))*int64(unsafe.Sizeof(dst[0])))
}

// CopyIn copies n bytes from the host.
func (c *Context) CopyIn(dst Ptr, src unsafe.Pointer, n int64) error {
	return c.call("cuMemcpyHtoD_v2", func(a *api) Result { return a.memcpyHtoD(dst, src, uintptr(n)) })
}

// CopyOut copies n bytes to the host.
func (c *Context) CopyOut(dst unsafe.Pointer, src Ptr, n int64) error {
	return c.call("cuMemcpyDtoH_v2", func(a *api) Result { return a.memcpyDtoH(dst, src, uintptr(n)) })
}

// Copy copies n bytes within the device, on a stream (nil is the default one).
func (c *Context) Copy(dst, src Ptr, n int64, s *Stream) error {
	return c.call("cuMemcpyDtoDAsync_v2", func(a *api) Result { return a.memcpyDtoDAsync(dst, src, uintptr(n), s.raw()) })
}

// Set fills n bytes with one value, on a stream (nil is the default one).
func (c *Context) Set(dst Ptr, value byte, n int64, s *Stream) error {
	return c.call("cuMemsetD8Async", func(a *api) Result { return a.memsetD8Async(dst, value, uintptr(n), s.raw()) })
}
