package parallel

import (
	"fmt"
	"math"
	"math/bits"
	"reflect"
	"sync/atomic"
	"unsafe"
)

// Slots is the number of scratch buffers that each Worker owns.
const Slots = 24

// scratchAlign is the alignment of scratch in bytes: a cache line, and a 512-bit register.
const scratchAlign = 64

var (
	scratchBytes atomic.Int64
	scratchGen   atomic.Uint64 // counts calls of ReleaseScratch
)

// slab is the memory of one slot.
type slab struct {
	base  unsafe.Pointer // the first aligned byte
	size  uintptr        // usable bytes from base
	total int            // bytes allocated
}

// Scratch returns n elements of w's own memory for the given slot, 0 ≤ slot < Slots. They start at a multiple of 64 bytes
// and hold whatever was left there. They are w's until the next call of Scratch with the same slot on w, whatever its
// type, or until the Run ends; the memory itself is kept for later Runs.
//
// T must hold no pointers. A T that does, a slot or an n out of range is a fault of the program and panics.
func Scratch[T any](w *Worker, slot, n int) []T {
	if t := reflect.TypeFor[T](); !pointerFree(t) {
		panic(fmt.Sprintf("parallel: Scratch: got element type %v, want one without pointers", t))
	}
	var zero T
	size := unsafe.Sizeof(zero)
	if n < 0 || size > 0 && uintptr(n) > (math.MaxInt-math.MaxInt/4)/size {
		panic(fmt.Sprintf("parallel: Scratch: got n = %d elements of %d bytes, want 0 or more that fit in memory", n, size))
	}
	if uint(slot) >= Slots {
		panic(fmt.Sprintf("parallel: Scratch: got slot %d, want 0 to %d", slot, Slots-1))
	}
	if size == 0 || n == 0 {
		return make([]T, n)
	}
	s := &w.slabs[slot]
	if need := uintptr(n) * size; need > s.size {
		s.grow(need)
	}
	return unsafe.Slice((*T)(s.base), n)
}

// ScratchBytes returns how many bytes of scratch all workers hold, alignment and room to grow included.
func ScratchBytes() int64 { return scratchBytes.Load() }

// ReleaseScratch frees the scratch of all workers; what Runs in flight hold is freed as they end.
func ReleaseScratch() {
	gen := scratchGen.Add(1)
	callers.Lock()
	for _, w := range callers.idle {
		w.dropStale(gen)
	}
	callers.Unlock()
	if shared.acquire() {
		shared.release()
	}
}

// grow replaces the slab by one of at least need bytes. The old one is let go first, so that a collection in between can
// reuse it.
func (s *slab) grow(need uintptr) {
	s.drop()
	total := roomFor(need + scratchAlign - 1)
	buf := make([]byte, total)
	pad := -uintptr(unsafe.Pointer(unsafe.SliceData(buf))) % scratchAlign
	s.base = unsafe.Pointer(&buf[pad])
	s.size = (uintptr(total) - pad) &^ (scratchAlign - 1)
	s.total = total
	scratchBytes.Add(int64(total))
}

func (s *slab) drop() {
	scratchBytes.Add(-int64(s.total))
	*s = slab{}
}

// roomFor rounds need up to 64 bytes or to one of the eight steps between powers of two, whichever is coarser: a size that
// creeps up, as with a growing sequence, is reallocated seldom, and at most an eighth is wasted.
func roomFor(need uintptr) int {
	step := max(scratchAlign, uintptr(1)<<bits.Len64(uint64(need))>>4)
	return int((need + step - 1) &^ (step - 1))
}

// dropStale frees the worker's scratch if it is older than generation gen. The worker must not be in a Run.
func (w *Worker) dropStale(gen uint64) {
	if w.gen == gen {
		return
	}
	for i := range w.slabs {
		w.slabs[i].drop()
	}
	w.gen = gen
}

// pointerFree reports whether values of type t hold no pointers.
func pointerFree(t reflect.Type) bool {
	switch k := t.Kind(); k {
	case reflect.Array:
		return t.Len() == 0 || pointerFree(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if !pointerFree(t.Field(i).Type) {
				return false
			}
		}
		return true
	default:
		return k >= reflect.Bool && k <= reflect.Complex128
	}
}
