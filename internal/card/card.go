//go:build cuda

package card

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unsafe"

	"stheno/cudamodules"
)

// The first card is in use, under a context of this package, as long as there is such memory.
var state struct {
	sync.Mutex
	ctx     *cudamodules.Context
	held    map[uintptr]bool
	modules map[string]*cudamodules.Module
}

// The types of cudamodules that callers name.
type (
	Number   = cudamodules.Number
	Ptr      = cudamodules.Ptr
	Geometry = cudamodules.Geometry
)

// Alloc takes memory for n numbers, with arbitrary contents.
func Alloc[T Number](n int) ([]T, error) {
	if n < 1 {
		return nil, fmt.Errorf("card: got %d numbers, want at least 1", n)
	}
	state.Lock()
	defer state.Unlock()
	if err := open(); err != nil {
		return nil, err
	}
	p, err := state.ctx.AllocManaged(int64(n) * int64(unsafe.Sizeof(*new(T))))
	if err != nil {
		closeUnused()
		return nil, err
	}
	state.held[uintptr(p)] = true
	// Not Go's memory: the collector lets it be.
	return unsafe.Slice((*T)(*(*unsafe.Pointer)(unsafe.Pointer(&p))), n), nil
}

func open() error {
	if state.ctx != nil {
		return nil
	}
	driver, err := cudamodules.Open()
	if err != nil {
		return err
	}
	device, err := driver.Device(0)
	if err != nil {
		return err
	}
	if state.ctx, err = device.Context(); err != nil {
		return err
	}
	state.held, state.modules = map[uintptr]bool{}, map[string]*cudamodules.Module{}
	return nil
}

// closeUnused gives the card back when no memory is left.
func closeUnused() error {
	if state.ctx == nil || len(state.held) > 0 {
		return nil
	}
	err := state.ctx.Close()
	state.ctx, state.modules = nil, nil
	return err
}

// Free gives memory of Alloc back. Nobody may touch it any more.
func Free[T Number](x []T) error {
	state.Lock()
	defer state.Unlock()
	p := uintptr(unsafe.Pointer(unsafe.SliceData(x)))
	if !state.held[p] {
		return nil
	}
	delete(state.held, p)
	err := state.ctx.Free(Ptr(p))
	if e := closeUnused(); err == nil {
		err = e
	}
	return err
}

// OutOfMemory reports whether an error says that the card has no room, which Gorgonia's engine has words of its own for.
func OutOfMemory(err error) bool {
	return errors.Is(err, cudamodules.ErrOutOfMemory) || err != nil && strings.Contains(err.Error(), "Free memory available")
}

// None reports whether an error says that there is no card, or no driver for it.
func None(err error) bool {
	return errors.Is(err, cudamodules.ErrNoDriver) || errors.Is(err, cudamodules.ErrNoDevice)
}

// Holds reports whether memory that begins at p is Alloc's.
func Holds(p uintptr) bool {
	state.Lock()
	defer state.Unlock()
	return state.held[p]
}

// At is the address of numbers, as a parameter of Launch.
func At[T Number](x []T) Ptr {
	return Ptr(uintptr(unsafe.Pointer(unsafe.SliceData(x))))
}

// Launch starts kernel module.name. Parameters are those of cudamodules.Function.Launch.
func Launch(module, name string, g Geometry, params ...any) error {
	state.Lock()
	defer state.Unlock()
	if err := open(); err != nil {
		return err
	}
	m := state.modules[module]
	if m == nil {
		var err error
		if m, err = state.ctx.Load(module); err != nil {
			return err
		}
		state.modules[module] = m
	}
	f, err := m.Function(name)
	if err != nil {
		return err
	}
	return f.Launch(g, params...)
}

// Synchronize waits for what was launched.
func Synchronize() error {
	state.Lock()
	defer state.Unlock()
	if state.ctx == nil {
		return nil
	}
	return state.ctx.Synchronize()
}
