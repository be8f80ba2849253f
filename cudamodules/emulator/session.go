//go:build linux && (amd64 || arm64)

package emulator

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"unsafe"

	"github.com/ebitengine/purego"

	"stheno/cudamodules"
)

// Session is the emulated card, or a real one, in use by a test.
type Session struct {
	*cudamodules.Context
	path    string
	modules map[string]*cudamodules.Module

	// Again, if it is not nil, is given every launch of Run, to repeat it.
	Again func(kernel string, launch func() error) error
}

// Open builds the library and opens a context on it. The test is skipped where there is no C++ compiler.
//
// If the environment variable STHENO_LIBCUDA is set, the driver of that name is opened instead: with libcuda.so.1 the tests of kernels run
// on a real card. Those with a cfg are skipped then.
func Open(t testing.TB, cfg Config) *Session {
	t.Helper()
	var path string
	var driver *cudamodules.Driver
	var err error
	if os.Getenv(cudamodules.LibraryVar) != "" {
		if cfg.Modules != nil || cfg.Defines != nil || cfg.Source != "" {
			t.Skipf("%s is set, and this is about the emulated card", cudamodules.LibraryVar)
		}
		driver, err = cudamodules.Open()
	} else {
		if path, err = Build(cfg); err == nil {
			driver, err = cudamodules.OpenLibrary(path)
		}
		if errors.Is(err, ErrNoCompiler) {
			t.Skip(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	device, err := driver.Device(0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := device.Context()
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{Context: ctx, path: path, modules: map[string]*cudamodules.Module{}}
	t.Cleanup(func() {
		if err := ctx.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Kernel loads one.
func (s *Session) Kernel(module, name string) (*cudamodules.Function, error) {
	m := s.modules[module]
	if m == nil {
		var err error
		if m, err = s.Load(module); err != nil {
			return nil, err
		}
		s.modules[module] = m
	}
	return m.Function(name)
}

// In is memory that a kernel reads, Out memory that it writes, InOut both: slices of numbers, as parameters of Run.
type (
	In    struct{ Data any }
	Out   struct{ Data any }
	InOut struct{ Data any }
)

// Run launches a kernel once, with In, Out and InOut in the place of pointers, and copies the results back.
func (s *Session) Run(module, kernel string, g cudamodules.Geometry, params ...any) (err error) {
	f, err := s.Kernel(module, kernel)
	if err != nil {
		return err
	}
	args := make([]any, len(params))
	after := func() error { return nil }
	var free []cudamodules.Ptr
	defer func() {
		for _, p := range free {
			err = errors.Join(err, s.Free(p))
		}
	}()
	for i, p := range params {
		args[i] = p
		var data any
		var in, out bool
		switch p := p.(type) {
		case In:
			data, in = p.Data, true
		case Out:
			data, out = p.Data, true
		case InOut:
			data, in, out = p.Data, true, true
		case nil:
			args[i] = cudamodules.Ptr(0)
			continue
		case int:
			args[i] = int64(p)
			continue
		default:
			continue
		}
		ptr, back, err := s.place(data, in)
		if err != nil {
			return err
		}
		free = append(free, ptr)
		args[i] = ptr
		if before := after; out {
			after = func() error { return errors.Join(before(), back(ptr)) }
		}
	}
	launch := func() error { return f.Launch(g, args...) }
	if err := launch(); err != nil {
		return err
	}
	if s.Again != nil {
		if err := s.Again(kernel, launch); err != nil {
			return err
		}
	}
	return after()
}

func (s *Session) place(data any, in bool) (cudamodules.Ptr, func(cudamodules.Ptr) error, error) {
	switch d := data.(type) {
	case []float32:
		return placeOf(s, d, in)
	case []float64:
		return placeOf(s, d, in)
	case []int64:
		return placeOf(s, d, in)
	case []int8:
		return placeOf(s, d, in)
	case []uint8:
		return placeOf(s, d, in)
	case []uint16:
		return placeOf(s, d, in)
	}
	return 0, nil, fmt.Errorf("emulator: got %T, want a slice of numbers", data)
}

func placeOf[T cudamodules.Number](s *Session, d []T, in bool) (cudamodules.Ptr, func(cudamodules.Ptr) error, error) {
	var zero T
	p, err := s.Alloc(int64(len(d)) * int64(unsafe.Sizeof(zero)))
	if err != nil {
		return 0, nil, err
	}
	if in {
		err = cudamodules.Upload(s.Context, p, d)
	}
	return p, func(p cudamodules.Ptr) error { return cudamodules.Download(s.Context, d, p) }, err
}

var controls struct {
	sync.Mutex
	byPath map[string]*control
}

type control struct {
	Schedule func(seed uint32)
	Remove   func(barrier int32)
	Held     func() int32
	Limit    func(bytes int64) int64
	Modules  func() int32
	Become   func(capability int32)
	Launches func(kernel string) int32
	Copied   func(toHost int32) int64
}

func controlOf(path string) *control {
	controls.Lock()
	defer controls.Unlock()
	if c := controls.byPath[path]; c != nil {
		return c
	}
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		panic(err) // Open has opened it
	}
	c := new(control)
	purego.RegisterLibFunc(&c.Schedule, h, "emulator_schedule")
	purego.RegisterLibFunc(&c.Remove, h, "emulator_remove_barrier")
	purego.RegisterLibFunc(&c.Held, h, "emulator_held")
	purego.RegisterLibFunc(&c.Launches, h, "emulator_launches")
	purego.RegisterLibFunc(&c.Become, h, "emulator_capability")
	purego.RegisterLibFunc(&c.Modules, h, "emulator_modules")
	purego.RegisterLibFunc(&c.Limit, h, "emulator_limit")
	purego.RegisterLibFunc(&c.Copied, h, "emulator_copied")
	if controls.byPath == nil {
		controls.byPath = map[string]*control{}
	}
	controls.byPath[path] = c
	return c
}

// Emulated says that this is not a real card.
func (s *Session) Emulated() bool { return s.path != "" }

// Path is the library of the emulated card, empty for a real one.
func (s *Session) Path() string { return s.path }

// Capability makes the emulated card one of that compute capability times ten, until the test ends; it is 80 otherwise. On a real card the
// test is skipped unless it is of that one.
func (s *Session) Capability(t testing.TB, capability int) {
	t.Helper()
	if s.Emulated() {
		Become(t, s.path, capability)
		return
	}
	got, err := s.Device().Capability()
	if err != nil {
		t.Fatal(err)
	}
	if got != capability {
		t.Skipf("the card has compute capability %d.%d, want %d.%d", got/10, got%10, capability/10, capability%10)
	}
}

// Become is Session.Capability for the emulated card whose library is at path.
func Become(t testing.TB, path string, capability int) {
	controlOf(path).Become(int32(capability))
	t.Cleanup(func() { controlOf(path).Become(80) })
}

// Launches is how often a kernel has been launched on the emulated card whose library is at path.
func Launches(path, kernel string) int { return int(controlOf(path).Launches(kernel)) }

// Loaded is how many modules the emulated card whose library is at path has loaded now.
func Loaded(path string) int { return int(controlOf(path).Modules()) }

// Copied is how many bytes have been copied to and from the emulated card whose library is at path.
func Copied(path string) (toCard, toHost int64) {
	c := controlOf(path)
	return c.Copied(0), c.Copied(1)
}

// Limit sets how many bytes the emulated card whose library is at path has, 0 for as many as usual, and returns how many are in use.
func Limit(path string, bytes int64) int64 { return controlOf(path).Limit(bytes) }

// Held is Session.Held of the emulated card whose library is at path.
func Held(path string) int { return int(controlOf(path).Held()) }

// Schedule is Session.Schedule of the emulated card whose library is at path.
func Schedule(path string, seed int) { controlOf(path).Schedule(uint32(seed)) }

// Schedule chooses the order in which threads run from now on: 0 is in order, 1 has the last warps run ahead, others are by chance. A
// real card has its own.
func (s *Session) Schedule(seed int) {
	if s.Emulated() {
		controlOf(s.path).Schedule(uint32(seed))
	}
}

// RemoveBarrier has kernels on the emulated card run without their barriers of that number, from now on; −1 brings all back.
func (s *Session) RemoveBarrier(n int) { controlOf(s.path).Remove(int32(n)) }

// Held is, for the emulated card, how many contexts, pieces of memory, modules, streams and events the library holds.
func (s *Session) Held() int { return int(controlOf(s.path).Held()) }
