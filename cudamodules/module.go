package cudamodules

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"unsafe"
)

// Module is a file of kernels. The driver compiles it for the card when it is loaded, which for Load and Later is when the first of its
// kernels is asked for. All methods may be called from any goroutine.
type Module struct {
	ctx  *Context
	name string
	text string

	mu     sync.Mutex
	handle uintptr // 0 until it is loaded
	closed bool
	funcs  map[string]*Function
}

// Later is a module of PTX text that is loaded when the first of its kernels is asked for. The name is for errors.
func (c *Context) Later(name, ptx string) *Module {
	return &Module{ctx: c, name: name, text: ptx, funcs: map[string]*Function{}}
}

// LoadPTX loads PTX text at once.
func (c *Context) LoadPTX(name, ptx string) (*Module, error) {
	m := c.Later(name, ptx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.load(); err != nil {
		return nil, err
	}
	return m, nil
}

// load has the driver compile the text, once. After a failure the next call tries again: memory may have become free. m.mu is held, so
// that whoever asks meanwhile waits for the one compilation.
func (m *Module) load() error {
	if m.closed {
		return fmt.Errorf("cudamodules: module %s: %w", m.name, ErrClosed)
	}
	if m.handle != 0 {
		return nil
	}
	image := append([]byte(m.text), 0)
	h, err := m.ctx.take("cuModuleLoadData", heldModule, 0, func(a *api, h *uintptr) Result { return a.moduleLoadData(h, &image[0]) })
	if err != nil {
		if h != 0 {
			err = errors.Join(err, m.ctx.give(heldModule, h))
		}
		return fmt.Errorf("cudamodules: module %s: %w", m.name, err)
	}
	m.handle = h
	return nil
}

// Close unloads the module, if it was loaded. Its functions may not be launched after it.
func (m *Module) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return m.ctx.give(heldModule, m.handle)
}

// Function finds a kernel by its name in the source, and loads the module if that has not been done.
func (m *Module) Function(name string) (*Function, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.load(); err != nil {
		return nil, fmt.Errorf("cudamodules: kernel %s.%s: %w", m.name, name, err)
	}
	if f := m.funcs[name]; f != nil {
		return f, nil
	}
	f := &Function{ctx: m.ctx, name: m.name + "." + name, dynamic: 48 << 10}
	err := m.ctx.call("cuModuleGetFunction", func(a *api) Result { return a.moduleGetFunction(&f.handle, m.handle, name) })
	if err != nil {
		return nil, fmt.Errorf("cudamodules: kernel %s: %w", f.name, err)
	}
	m.funcs[name] = f
	return f, nil
}

// Function is a kernel.
type Function struct {
	ctx    *Context
	name   string
	handle uintptr

	mu      sync.Mutex
	dynamic int // the most dynamic shared memory that the driver has been told of
}

// Name is module.kernel.
func (f *Function) Name() string { return f.name }

// Usage is what one thread or block of a kernel takes.
type Usage struct {
	Registers    int // a thread
	LocalBytes   int // a thread: spilled registers and arrays
	StaticShared int // bytes a block
	MaxThreads   int // a block
}

// Usage asks the driver what its compiler made of the kernel.
func (f *Function) Usage() (u Usage, err error) {
	err = f.ctx.do(func(a *api) error {
		for attribute, field := range map[funcAttribute]*int{
			funcRegisters: &u.Registers, funcLocalBytes: &u.LocalBytes, funcStaticShared: &u.StaticShared, funcMaxThreads: &u.MaxThreads,
		} {
			var v int32
			if err := f.ctx.device.driver.check("cuFuncGetAttribute", a.funcGetAttribute(&v, attribute, f.handle)); err != nil {
				return fmt.Errorf("cudamodules: kernel %s: %w", f.name, err)
			}
			*field = int(v)
		}
		return nil
	})
	return u, err
}

// Geometry says how a kernel is started. Zero dimensions count as 1.
type Geometry struct {
	Grid   [3]int  // blocks
	Block  [3]int  // threads a block
	Shared int     // bytes of dynamic shared memory a block; above 48 KB the limit is raised first
	Stream *Stream // nil is the default stream
}

// Launch starts a kernel with its parameters: Ptr, integers, floats, and arrays of bytes for structures passed by value. Their
// types must have the sizes that the kernel declares. It does not wait for the kernel.
func (f *Function) Launch(g Geometry, params ...any) error {
	p := packPool.Get().(*pack)
	defer packPool.Put(p)
	if err := p.set(params); err != nil {
		return fmt.Errorf("cudamodules: kernel %s: %w", f.name, err)
	}
	return f.launch(g, p.argv())
}

// LaunchPointers is Launch with the addresses of the parameters' values, each as large as the kernel declares it.
func (f *Function) LaunchPointers(g Geometry, params []unsafe.Pointer) error {
	if len(params) == 0 {
		return f.launch(g, nil)
	}
	return f.launch(g, &params[0])
}

func (f *Function) launch(g Geometry, argv *unsafe.Pointer) error {
	for i := range 3 {
		if min(g.Grid[i], g.Block[i], g.Shared) < 0 || max(g.Grid[i], g.Block[i], g.Shared) > math.MaxInt32 {
			return fmt.Errorf("cudamodules: kernel %s: got grid %v, block %v and %d bytes of shared memory, want 0 to %d each",
				f.name, g.Grid, g.Block, g.Shared, math.MaxInt32)
		}
	}
	for i := range 3 {
		g.Grid[i], g.Block[i] = max(g.Grid[i], 1), max(g.Block[i], 1)
	}
	err := f.ctx.do(func(a *api) error {
		if err := f.allow(a, g.Shared); err != nil {
			return err
		}
		return f.ctx.device.driver.check("cuLaunchKernel", a.launchKernel(f.handle,
			uint32(g.Grid[0]), uint32(g.Grid[1]), uint32(g.Grid[2]), uint32(g.Block[0]), uint32(g.Block[1]), uint32(g.Block[2]),
			uint32(g.Shared), g.Stream.raw(), argv, nil))
	})
	if err != nil {
		return fmt.Errorf("cudamodules: kernel %s, grid %v, block %v: %w", f.name, g.Grid, g.Block, err)
	}
	return nil
}

// allow raises the limit of dynamic shared memory to n bytes, if it is lower. The lock is held meanwhile: of two launches at once, the
// one that wants less would lower it again.
func (f *Function) allow(a *api, n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n <= f.dynamic {
		return nil
	}
	if err := f.ctx.device.driver.check("cuFuncSetAttribute", a.funcSetAttribute(f.handle, funcMaxDynamicShared, int32(n))); err != nil {
		return fmt.Errorf("%d bytes of shared memory: %w", n, err)
	}
	f.dynamic = n
	return nil
}

// pack holds the values of parameters, each at an 8-byte boundary, and their addresses: what cuLaunchKernel reads.
type pack struct {
	values []uint64
	at     []int
	argvs  []unsafe.Pointer
}

var packPool = sync.Pool{New: func() any { return new(pack) }}

func (p *pack) set(params []any) error {
	p.values, p.at, p.argvs = p.values[:0], p.at[:0], p.argvs[:0]
	for i, x := range params {
		p.at = append(p.at, len(p.values))
		switch x := x.(type) {
		case Ptr:
			p.values = append(p.values, uint64(x))
		case int64:
			p.values = append(p.values, uint64(x))
		case uint64:
			p.values = append(p.values, x)
		case int32:
			p.values = append(p.values, uint64(uint32(x)))
		case uint32:
			p.values = append(p.values, uint64(x))
		case float64:
			p.values = append(p.values, bits(x))
		case float32:
			p.values = append(p.values, uint64(bits(x)))
		case []byte:
			if len(x) == 0 {
				return fmt.Errorf("parameter %d: got no bytes, want at least one", i)
			}
			words := make([]uint64, (len(x)+7)/8)
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(x)), x)
			p.values = append(p.values, words...)
		default:
			return fmt.Errorf("parameter %d: got %T, want Ptr, an integer or float of 32 or 64 bits, or []byte", i, x)
		}
	}
	for _, at := range p.at {
		p.argvs = append(p.argvs, unsafe.Pointer(&p.values[at]))
	}
	return nil
}

func bits[T float32 | float64](x T) uint64 {
	var v uint64
	*(*T)(unsafe.Pointer(&v)) = x
	return v
}

func (p *pack) argv() *unsafe.Pointer {
	if len(p.argvs) == 0 {
		return nil
	}
	return &p.argvs[0]
}
