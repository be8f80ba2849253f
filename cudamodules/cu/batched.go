package cu

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"stheno/cudamodules"
)

// Context is what runs functions on a card's behalf.
type Context interface {
	CUDAContext() CUContext
	Do(func() error) error
	Error() error
	Work() <-chan func() error
	ErrChan() chan error
	Close() error
}

// Ctx is a Context. The driver may be called from any goroutine, so Do calls its function where it is.
type Ctx struct {
	c    CUContext
	work chan func() error
	errs chan error
	once sync.Once
}

// CtxFromCUContext wraps a context. Closing it ends the use that MakeContext began.
func CtxFromCUContext(_ Device, c CUContext, _ ...ContextFlags) *Ctx {
	return &Ctx{c: c, work: make(chan func() error), errs: make(chan error, 1)}
}

// CUDAContext is the context.
func (c *Ctx) CUDAContext() CUContext { return c.c }

// Do calls f.
func (c *Ctx) Do(f func() error) error { return f() }

// Error is nil: errors belong to who called Do.
func (c *Ctx) Error() error { return nil }

// Work is never sent anything.
func (c *Ctx) Work() <-chan func() error { return c.work }

// ErrChan is for errors of Work.
func (c *Ctx) ErrChan() chan error { return c.errs }

// Close ends the use of the card, once.
func (c *Ctx) Close() (err error) {
	c.once.Do(func() { err = leave(c.c.device) })
	return err
}

// BatchedContext has the name and methods of a queue of calls, but makes each call at once. Copies of one are the same context.
type BatchedContext struct {
	Context
	Device
	s *batchState
}

type batchState struct {
	available chan struct{}

	mu     sync.Mutex
	err    error
	closed bool
	begun  bool             // whether the engine has come as far as to ask for work
	skip   map[uintptr]bool // memory of the host that is not copied
}

// NewBatchedContext makes one on a card in use.
func NewBatchedContext(c Context, d Device) *BatchedContext {
	return &BatchedContext{c, d, &batchState{available: make(chan struct{})}}
}

// Eager says that calls are made at once, so that nobody needs to call DoWork for fear of a queue.
func (b *BatchedContext) Eager() bool { return true }

// WorkAvailable is closed with the context, and never sent anything: no work waits.
func (b *BatchedContext) WorkAvailable() <-chan struct{} {
	b.s.mu.Lock()
	b.s.begun = true
	b.s.mu.Unlock()
	return b.s.available
}

// Signal does nothing: no work waits.
func (b *BatchedContext) Signal() {}

// Cleanup begins the end of an engine. One that could not get its memory has never asked for work: its Close would wait forever for a loop
// that was not started, unless there is no context.
func (b *BatchedContext) Cleanup() {
	if b.s == nil || b.Context == nil {
		return
	}
	b.s.mu.Lock()
	begun := b.s.begun
	b.s.mu.Unlock()
	if !begun {
		b.Context.Close()
		b.Context = nil
	}
}

// DoWork waits until the card has done what it was given.
func (b *BatchedContext) DoWork() {
	b.call("DoWork", func(c *cudamodules.Context) error { return c.Synchronize() })
}

// Errors returns what has gone wrong since it was last asked.
func (b *BatchedContext) Errors() error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	err := b.s.err
	b.s.err = nil
	return err
}

// Error is Errors.
func (b *BatchedContext) Error() error { return b.Errors() }

func (b *BatchedContext) fail(what string, err error) {
	if err == nil {
		return
	}
	b.s.mu.Lock()
	b.s.err = errors.Join(b.s.err, fmt.Errorf("cu: %s: %w", what, err))
	b.s.mu.Unlock()
}

// call runs f on the card's context and keeps its error. After Close it does nothing.
func (b *BatchedContext) call(what string, f func(c *cudamodules.Context) error) {
	b.s.mu.Lock()
	closed := b.s.closed
	b.s.mu.Unlock()
	if closed {
		return
	}
	c, err := contextOf(b.Device)
	if err == nil {
		err = f(c)
	}
	b.fail(what, err)
}

// Close ends the use of the card.
func (b *BatchedContext) Close() error {
	b.s.mu.Lock()
	closed := b.s.closed
	b.s.closed = true
	b.s.mu.Unlock()
	if closed {
		return nil
	}
	close(b.s.available)
	return b.Context.Close()
}

// Memcpy copies n bytes within the card.
func (b *BatchedContext) Memcpy(dst, src DevicePtr, n int64) {
	b.call("Memcpy", func(c *cudamodules.Context) error { return c.Copy(ptr(dst), ptr(src), n, nil) })
}

// Skip has MemcpyHtoD let memory that begins at src be from now on: whoever reads it on the card reads it where it is.
func (b *BatchedContext) Skip(src uintptr) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.s.skip == nil {
		b.s.skip = map[uintptr]bool{}
	}
	b.s.skip[src] = true
}

// MemcpyHtoD copies n bytes to the card, but for what Skip was told of.
func (b *BatchedContext) MemcpyHtoD(dst DevicePtr, src unsafe.Pointer, n int64) {
	b.s.mu.Lock()
	skipped := b.s.skip[uintptr(src)]
	b.s.mu.Unlock()
	if skipped {
		return
	}
	b.call("MemcpyHtoD", func(c *cudamodules.Context) error { return c.CopyIn(ptr(dst), src, n) })
}

// MemcpyDtoH copies n bytes from the card, once they are written.
func (b *BatchedContext) MemcpyDtoH(dst unsafe.Pointer, src DevicePtr, n int64) {
	b.call("MemcpyDtoH", func(c *cudamodules.Context) error { return c.CopyOut(dst, ptr(src), n) })
}

// MemAlloc takes memory of the card.
func (b *BatchedContext) MemAlloc(n int64) (DevicePtr, error) {
	c, err := contextOf(b.Device)
	if err != nil {
		return 0, err
	}
	p, err := c.Alloc(n)
	return DevicePtr(p), err
}

// MemFree gives it back.
func (b *BatchedContext) MemFree(p DevicePtr) {
	b.call("MemFree", func(c *cudamodules.Context) error { return c.Free(ptr(p)) })
}

// LaunchAndSync starts a kernel. params are the addresses of its parameters. What comes after it on the card waits for it; the host
// does not.
func (b *BatchedContext) LaunchAndSync(f Function, gx, gy, gz, bx, by, bz, shared int, _ Stream, params []unsafe.Pointer) {
	if f.m == nil {
		b.fail("LaunchAndSync", errors.New("got no function: is its module loaded?"))
		return
	}
	b.call("LaunchAndSync", func(*cudamodules.Context) error {
		kernel, err := f.m.Function(f.name)
		if err != nil {
			return err
		}
		return kernel.LaunchPointers(cudamodules.Geometry{Grid: [3]int{gx, gy, gz}, Block: [3]int{bx, by, bz}, Shared: shared}, params)
	})
}
