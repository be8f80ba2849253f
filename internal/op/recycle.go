package op

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
)

// Memory that the operating system has just given costs a page fault for every 4 KiB, which is a quarter of the time of a
// prefill. Whoever runs a graph again and again, and knows when its results are no longer read, hands their memory back by
// a Recycler; New then takes it from the pool. What is not handed back is ordinary garbage, and what the pool holds is freed
// by the garbage collector when two of its cycles found no use for it.

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

// pools holds a *sync.Pool of *[]T for each poolKey.
var pools sync.Map

type poolKey struct{ bytes, elements int } // of one element, and how many

// makeUnset returns n numbers, zeroed or else of any content.
func makeUnset[T kernel.Float](n int) (data []T, zeroed bool) {
	size := int(unsafe.Sizeof(*new(T)))
	if !recycles(n, size) {
		return make([]T, n), true
	}
	if p, ok := pools.Load(poolKey{size, n}); ok {
		if b, ok := p.(*sync.Pool).Get().(*[]T); ok {
			return *b, false
		}
	}
	return make([]T, n), true
}

// recycle gives memory that makeUnset returned to the pool.
func recycle[T kernel.Float](data []T) {
	size := int(unsafe.Sizeof(*new(T)))
	if !recycles(len(data), size) {
		return
	}
	if poison.Load() {
		for i := range data {
			data[i] = T(math.NaN())
		}
	}
	p, _ := pools.LoadOrStore(poolKey{size, len(data)}, new(sync.Pool))
	p.(*sync.Pool).Put(&data)
}

// Recycler hands the results of one graph's nodes back, run after run. It is for the one goroutine that runs the graph.
type Recycler struct {
	nodes G.Nodes
	last  []G.Value // what each node held when it was released
}

// NewRecycler returns a Recycler for the results of this module's ops in g, but for those of the nodes in keep.
func NewRecycler(g *G.ExprGraph, keep ...*G.Node) *Recycler {
	r := &Recycler{}
	for _, n := range g.AllNodes() {
		if o, ok := n.Op().(interface{ FreshResult() bool }); ok && o.FreshResult() && !slices.Contains(keep, n) {
			r.nodes = append(r.nodes, n)
		}
	}
	r.last = make([]G.Value, len(r.nodes))
	return r
}

// Release hands the results of the last run back. From then on nobody may read them, nor write to them: neither through
// the nodes' values nor through slices of their memory. Results that a failed run did not get to are left alone.
func (r *Recycler) Release() {
	for i, n := range r.nodes {
		d, ok := n.Value().(*tensor.Dense)
		if !ok || d == r.last[i] || d.IsManuallyManaged() { // what lies on a card is its machine's
			continue
		}
		r.last[i] = d
		switch x := d.Data().(type) {
		case []float32:
			recycle(x)
		case []float64:
			recycle(x)
		}
	}
}
