package op

import (
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"stheno/internal/kernel"
)

// Memory that the operating system has just given costs a page fault for every 4 KiB, which is a quarter of the time of a
// prefill, and a graph keeps what every one of its nodes has computed. Whoever runs a graph again and again, and knows which results
// are read outside of it, hands the memory of the others back by a Recycler; New then takes it from the pool. What is not handed back
// is ordinary garbage, and what the pool holds is freed by the garbage collector when two of its cycles found no use for it.

// recycleFrom is the size in bytes from which results are recycled; smaller ones come from memory that is warm anyway.
const recycleFrom = 1 << 16

// poison is for tests: memory of any size is recycled, and what New hands out again is full of NaN before it is zeroed.
var poison atomic.Bool

// Poison makes recycled memory of any size come back as NaN, until restore is called, so that tests see a node that reads what
// it should have written.
func Poison() (restore func()) {
	poison.Store(true)
	return func() { poison.Store(false) }
}

// recycles reports whether n numbers of the given size are recycled.
func recycles(n, size int) bool { return n*size >= recycleFrom || poison.Load() && n > 0 }

// largerBy is how many times larger than a result the memory may be that it gets where there is none of its size.
const largerBy = 3

// idle is the memory that was handed back, by size. (A sync.Pool would keep one piece of each size for each processor, out of
// reach of the others.)
var idle struct {
	sync.Mutex
	pieces map[poolKey][]piece
	whole  map[weak.Pointer[byte]]int // of memory that is lent for fewer numbers than it has room for: that many
	cycle  int                        // how many cycles of the garbage collector were seen
	ticks  bool                       // they are being counted
}

type poolKey struct{ bytes, elements int } // of one element, and how many

type piece struct {
	data  any // a []T
	since int // the cycle in which it was handed back
}

// tick is called after each cycle of the garbage collector, as long as there are pieces, and drops those that two cycles found idle.
func tick() {
	idle.Lock()
	defer idle.Unlock()
	idle.cycle++
	for k, pieces := range idle.pieces {
		pieces = slices.DeleteFunc(pieces, func(p piece) bool { return idle.cycle-p.since >= 2 })
		idle.pieces[k] = pieces
		if len(pieces) == 0 {
			delete(idle.pieces, k)
		}
	}
	for at := range idle.whole { // what was never handed back
		if at.Value() == nil {
			delete(idle.whole, at)
		}
	}
	idle.ticks = len(idle.pieces)+len(idle.whole) > 0
	if idle.ticks {
		awaitCycle()
	}
}

// awaitCycle has tick called when the next cycle is over, by way of a piece of garbage.
func awaitCycle() { runtime.AddCleanup(new([16]byte), func(struct{}) { tick() }, struct{}{}) }

// makeUnset returns n numbers, zeroed or else of any content.
func makeUnset[T kernel.Float](n int) (data []T, zeroed bool) {
	size := int(unsafe.Sizeof(*new(T)))
	if !recycles(n, size) {
		return make([]T, n), true
	}
	if data = takeIdle[T](poolKey{size, n}); data != nil {
		return data, false
	}
	return make([]T, n), true // without the lock: this takes a while, and others may find what they want
}

// takeIdle takes memory for k, nil if there is none of its size or little more.
func takeIdle[T kernel.Float](k poolKey) []T {
	n := k.elements
	idle.Lock()
	defer idle.Unlock()
	if len(idle.pieces[k]) == 0 {
		best := poolKey{k.bytes, largerBy*n + 1}
		for have := range idle.pieces {
			if have.bytes == k.bytes && n < have.elements && have.elements < best.elements {
				best = have
			}
		}
		if best.elements > largerBy*n {
			return nil
		}
		k = best
	}
	have := idle.pieces[k]
	last := len(have) - 1 // the warmest
	data := have[last].data.([]T)
	if have[last] = (piece{}); last == 0 {
		delete(idle.pieces, k)
	} else {
		idle.pieces[k] = have[:last]
	}
	if len(data) > n {
		if idle.whole == nil {
			idle.whole = map[weak.Pointer[byte]]int{}
		}
		idle.whole[weakly(data)] = len(data)
	}
	return data[:n:n]
}

// weakly is the address of data, for as long as nothing else lies there.
func weakly[T kernel.Float](data []T) weak.Pointer[byte] {
	return weak.Make((*byte)(unsafe.Pointer(&data[0])))
}

// recycle hands back memory that makeUnset returned.
func recycle[T kernel.Float](data []T) {
	size := int(unsafe.Sizeof(*new(T)))
	if !recycles(len(data), size) {
		return
	}
	idle.Lock()
	defer idle.Unlock()
	if len(idle.whole) > 0 { // a tensor forgets that its memory is larger
		at := weakly(data)
		if n := idle.whole[at]; n > 0 {
			delete(idle.whole, at)
			data = unsafe.Slice(&data[0], n)
		}
	}
	if poison.Load() {
		for i := range data {
			data[i] = T(math.NaN())
		}
	}
	if idle.pieces == nil {
		idle.pieces = map[poolKey][]piece{}
	}
	k := poolKey{size, len(data)}
	idle.pieces[k] = append(idle.pieces[k], piece{data, idle.cycle})
	if !idle.ticks {
		idle.ticks = true
		awaitCycle()
	}
}

// Lend lends n numbers of any content to f, from the same store: scratch that is too large to keep.
func Lend[T kernel.Float](n int, f func(data []T)) {
	data, _ := makeUnset[T](n)
	defer recycle(data)
	f(data)
}
