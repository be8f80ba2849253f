package cu

import (
	"fmt"
	"slices"
	"sync"

	"stheno/cudamodules"
)

func ptr(p DevicePtr) cudamodules.Ptr { return cudamodules.Ptr(p) }

// Module is a file of kernels of a card. Machines that load the same text share one, and the driver compiles it when one of its kernels
// is first launched.
type Module struct {
	m   *sharedModule
	on  *shared
	use *sync.Once // ends this use of it
}

// Function is a kernel.
type Function struct {
	m    *cudamodules.Module
	name string
}

// LoadData gives the module of PTX text on the current card.
func LoadData(ptx string) (Module, error) {
	inUse.Lock()
	defer inUse.Unlock()
	s := inUse.contexts[inUse.current]
	if s == nil {
		return Module{}, errNoContext
	}
	m := s.module(ptx)
	m.users++
	return Module{m, s, new(sync.Once)}, nil
}

// module is the module of PTX text on a card. inUse is locked.
func (s *shared) module(ptx string) *sharedModule {
	m := s.modules[ptx]
	if m == nil {
		name := nameOf(ptx)
		m = &sharedModule{Module: s.Later(name, ptx), name: name, text: ptx, entries: cudamodules.EntriesOf(ptx)}
		if s.modules == nil {
			s.modules = map[string]*sharedModule{}
		}
		s.modules[ptx] = m
	}
	return m
}

// sharedModule is a module and how many machines have it.
type sharedModule struct {
	*cudamodules.Module
	name, text string
	entries    []string // kernels
	users      int
}

// nameOf is what errors call PTX text.
func nameOf(ptx string) string {
	for _, name := range append(cudamodules.Modules(), cudamodules.WarpgroupModule) {
		if text, err := cudamodules.PTX(name); err == nil && text == ptx {
			return name
		}
	}
	return "module"
}

// Unload ends this use of the module. The last one gives it back.
func (m Module) Unload() (err error) {
	if m.m == nil {
		return nil
	}
	m.use.Do(func() {
		inUse.Lock()
		defer inUse.Unlock()
		if m.m.users--; m.m.users == 0 {
			delete(m.on.modules, m.m.text)
			err = m.m.Close()
		}
	})
	return err
}

// Function finds a kernel in the module's text.
func (m Module) Function(name string) (Function, error) {
	if m.m == nil {
		return Function{}, errNoContext
	}
	if !slices.Contains(m.m.entries, name) {
		return Function{}, fmt.Errorf("cu: module %s: got kernel %q, want one of its entries", m.m.name, name)
	}
	return Function{m.m.Module, name}, nil
}

// Stream is always the default stream here.
type Stream struct{}

// NoStream is the default stream.
var NoStream Stream
