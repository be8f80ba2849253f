package ops

import (
	"reflect"
	"runtime"
	"sync"
	"unsafe"

	"stheno/internal/kernel"
)

// embeddingKept is how many buffers of a table's shape come back to be lent again. Between two garbage collections every run
// takes another one; beyond this number they are ordinary garbage, so that memory stays bounded however seldom
// collections are.
const embeddingKept = 4

// embeddingBuffers lends zeroed memory of a table's shape and takes it back when nobody can reach it any more: neither the
// tensor around it nor a view or slice of it. That is what finalizers tell, and they give the memory back to its next
// borrower. (A cleanup would tell about the tensor only, whose memory may have other users.)
//
// Finalizers hold on to the pool, so it must not lead to the graph, whose nodes hold on to what was lent.
//
// The borrower names the rows that will be other than zero, and only those are zeroed before the memory is lent again.
type embeddingBuffers[T kernel.Float] struct {
	size, dim int

	mu   sync.Mutex
	free []embeddingBuffer[T]
	kept int // buffers that are free or lent

	last     uintptr // the buffer that was lent last, which this does not hold on to
	lastRows []int
}

type embeddingBuffer[T kernel.Float] struct {
	data []T
	rows []int // those that may be other than zero
}

// lend returns zeroed memory, of which the borrower may write to the given rows; rows belongs to the pool from now on and is
// no longer written.
func (p *embeddingBuffers[T]) lend(rows []int) []T {
	b, again := p.take()
	switch {
	case again:
		b.wipe(p.dim)
	case b.data == nil:
		return make([]T, p.size)
	}
	runtime.SetFinalizer(embeddingObject(b.data), func(object any) {
		data := unsafe.Slice((*T)(reflect.ValueOf(object).UnsafePointer()), p.size)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free = append(p.free, embeddingBuffer[T]{data, rows})
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.lastRows = uintptr(unsafe.Pointer(&b.data[0])), rows
	return b.data
}

// reclaim takes back what was lent last, if that is data, of a borrower who knows that nobody reads it any more.
func (p *embeddingBuffers[T]) reclaim(data []T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(data) != p.size || p.last != uintptr(unsafe.Pointer(&data[0])) {
		return // ordinary memory
	}
	runtime.SetFinalizer(embeddingObject(data), nil)
	p.free = append(p.free, embeddingBuffer[T]{data, p.lastRows})
	p.last, p.lastRows = 0, nil
}

// take returns a buffer that was lent before (again), a new one, or, when enough are kept, none.
func (p *embeddingBuffers[T]) take() (b embeddingBuffer[T], again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b, p.free[n-1] = p.free[n-1], embeddingBuffer[T]{}
		p.free = p.free[:n-1]
		return b, true
	}
	if p.kept == embeddingKept {
		return b, false
	}
	p.kept++
	// A finalizer wants an object made by new, which for a length known at run time only reflect can make.
	object := reflect.New(reflect.ArrayOf(p.size, reflect.TypeFor[T]()))
	b.data = unsafe.Slice((*T)(object.UnsafePointer()), p.size)
	return b, false
}

// embeddingObject is the array behind data as reflect.New returned it.
func embeddingObject[T kernel.Float](data []T) any {
	return reflect.NewAt(reflect.ArrayOf(len(data), reflect.TypeFor[T]()), unsafe.Pointer(unsafe.SliceData(data))).Interface()
}

// wipe zeroes the buffer.
func (b embeddingBuffer[T]) wipe(dim int) {
	embeddingColumns(dim, func(lo, hi int) {
		for _, r := range b.rows {
			clear(b.data[r*dim+lo : r*dim+hi])
		}
	})
	if b.dirty() {
		overElements(len(b.data), func(lo, hi int) { clear(b.data[lo:hi]) })
	}
}

// dirty looks at a few hundred elements that should be 0 now. A borrower who added something to the whole gradient in
// place, regularisation for one, broke the contract, but shall not find it in the next gradient.
func (b embeddingBuffer[T]) dirty() bool {
	step := max(1, len(b.data)/509)
	for i := 0; i < len(b.data); i += step {
		if b.data[i] != 0 {
			return true
		}
	}
	return false
}
