package cudamodules

import (
	"reflect"
	"sync"
	"unsafe"
)

// fake is a driver in Go: it keeps count of what is held, and fails on request.
type fake struct {
	mu      sync.Mutex
	api     api
	version int32
	count   int32
	fail    map[string]Result // by the driver's name of the call
	calls   map[string]int
	held    map[uintptr]string
	memory  map[Ptr][]byte
	depth   int // of the stack of contexts
	next    uintptr
	pending int // so many queries of a stream say not ready
	shared  map[uintptr]int32
	kernels map[string]func(params *unsafe.Pointer)
	names   map[uintptr]string

	attributes map[Attribute]int32 // others are their own numbers
}

func newFake() *fake {
	f := &fake{
		version: 12040, count: 1, fail: map[string]Result{}, calls: map[string]int{}, held: map[uintptr]string{},
		memory: map[Ptr][]byte{}, next: 0x1000, shared: map[uintptr]int32{}, names: map[uintptr]string{},
		kernels: map[string]func(*unsafe.Pointer){},
	}
	f.api = api{
		init:             func(uint32) Result { return 0 },
		driverGetVersion: func(v *int32) Result { *v = f.version; return 0 },
		getErrorName:     func(Result, **byte) Result { return 1 },
		getErrorString: func(r Result, s **byte) Result {
			*s = &[]byte("text of the driver\x00")[0]
			return 0
		},
		deviceGetCount: func(n *int32) Result { *n = f.count; return 0 },
		deviceGet:      func(d *int32, i int32) Result { *d = i; return 0 },
		deviceGetName: func(s *byte, n int32, _ int32) Result {
			copy(unsafe.Slice(s, n), "Fake 9000\x00")
			return 0
		},
		deviceTotalMem: func(n *uintptr, _ int32) Result { *n = 1 << 30; return 0 },
		deviceGetAttribute: func(v *int32, a Attribute, _ int32) Result {
			var ok bool
			if *v, ok = f.attributes[a]; !ok {
				*v = int32(a)
			}
			return 0
		},
		ctxCreate: func(c *uintptr, _ uint32, _ int32) Result {
			*c = f.hold("context of its own")
			f.depth++
			return 0
		},
		ctxDestroy:      f.give,
		primaryRetain:   func(c *uintptr, _ int32) Result { *c = f.hold("context"); return 0 },
		primaryRelease:  func(int32) Result { return f.giveKind("context") },
		ctxPush:         func(uintptr) Result { f.depth++; return 0 },
		ctxPop:          func(*uintptr) Result { f.depth--; return 0 },
		ctxSynchronize:  func() Result { return 0 },
		memGetInfo:      func(a, b *uintptr) Result { *a, *b = 5, 7; return 0 },
		memAlloc:        func(p *Ptr, n uintptr) Result { *p = f.alloc(n); return 0 },
		memAllocManaged: func(p *Ptr, n uintptr, _ uint32) Result { *p = f.alloc(n); return 0 },
		memFree: func(p Ptr) Result {
			delete(f.memory, p)
			return f.give(uintptr(p))
		},
		memcpyHtoD: func(d Ptr, s unsafe.Pointer, n uintptr) Result {
			copy(f.memory[d], unsafe.Slice((*byte)(s), n))
			return 0
		},
		memcpyDtoH: func(d unsafe.Pointer, s Ptr, n uintptr) Result {
			copy(unsafe.Slice((*byte)(d), n), f.memory[s])
			return 0
		},
		memcpyDtoDAsync: func(d, s Ptr, n, _ uintptr) Result { copy(f.memory[d][:n], f.memory[s]); return 0 },
		memsetD8Async: func(d Ptr, v uint8, n, _ uintptr) Result {
			for i := range f.memory[d][:n] {
				f.memory[d][i] = v
			}
			return 0
		},
		moduleLoadData: func(m *uintptr, image *byte) Result { *m = f.hold("module"); return 0 },
		moduleUnload:   f.give,
		moduleGetFunction: func(fn *uintptr, _ uintptr, name string) Result {
			if f.kernels[name] == nil {
				return 500
			}
			f.next++
			*fn = f.next
			f.names[*fn] = name
			return 0
		},
		funcGetAttribute: func(v *int32, a funcAttribute, _ uintptr) Result { *v = 10 + int32(a); return 0 },
		funcSetAttribute: func(fn uintptr, _ funcAttribute, v int32) Result { f.shared[fn] = v; return 0 },
		launchKernel: func(fn uintptr, gx, gy, gz, bx, by, bz, shared uint32, _ uintptr, p, _ *unsafe.Pointer) Result {
			if int32(shared) > max(f.shared[fn], 48<<10) || bx*by*bz > 1024 {
				return 1
			}
			f.kernels[f.names[fn]](p)
			return 0
		},
		streamCreate:  func(s *uintptr, _ uint32) Result { *s = f.hold("stream"); return 0 },
		streamDestroy: f.give,
		streamQuery: func(uintptr) Result {
			if f.pending > 0 {
				f.pending--
				return notReady
			}
			return 0
		},
		streamSynchronize: func(uintptr) Result { return 0 },
		streamWaitEvent:   func(uintptr, uintptr, uint32) Result { return 0 },
		eventCreate:       func(e *uintptr, _ uint32) Result { *e = f.hold("event"); return 0 },
		eventDestroy:      f.give,
		eventRecord:       func(uintptr, uintptr) Result { return 0 },
		eventSynchronize:  func(uintptr) Result { return 0 },
		eventElapsed:      func(ms *float32, _, _ uintptr) Result { *ms = 1.5; return 0 },
	}
	f.intercept()
	return f
}

// intercept puts counting and failing before every call.
func (f *fake) intercept() {
	v := reflect.ValueOf(&f.api).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("cuda")
		field := reflect.NewAt(v.Field(i).Type(), unsafe.Pointer(v.Field(i).UnsafeAddr())).Elem()
		inner := reflect.ValueOf(field.Interface())
		field.Set(reflect.MakeFunc(field.Type(), func(in []reflect.Value) []reflect.Value {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.calls[name]++
			if r, ok := f.fail[name]; ok {
				return []reflect.Value{reflect.ValueOf(r)}
			}
			return inner.Call(in)
		}))
	}
}

func (f *fake) hold(kind string) uintptr {
	f.next += 0x100
	f.held[f.next] = kind
	return f.next
}

func (f *fake) alloc(n uintptr) Ptr {
	p := Ptr(f.hold("memory"))
	f.memory[p] = make([]byte, n)
	return p
}

func (f *fake) give(h uintptr) Result {
	if _, ok := f.held[h]; !ok {
		return 400
	}
	delete(f.held, h)
	return 0
}

func (f *fake) giveKind(kind string) Result {
	for h, k := range f.held {
		if k == kind {
			return f.give(h)
		}
	}
	return 201
}
