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
// prefill, and a graph keeps what every one of its nodes has computed. Whoever runs a graph again and again, and knows which results
// are read outside of it, hands the memory of the others back by a Recycler; New then takes it from the pool. What is not handed back is ordinary garbage, and what the pool holds is freed
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

// Recycler hands the results of one graph's nodes back: between Watch and its stop as soon as the last node that reads them is
// done, and what is left when Release is called. It is for the one goroutine that runs the graph.
type Recycler struct {
	results []*result
	reads   map[*G.Node][]*result // by the nodes that tell when they begin
	others  G.Nodes               // all the other nodes with an op
	running *G.Node               // the teller that began last
	watched bool
}

// result is what a node of this module's ops computes.
type result struct {
	node    *G.Node
	last    G.Value // what the node held when it was handed back
	readers int     // how many tellers read it; 0 if it stays until Release
	left    int     // how many of them are not done, in this run
	shared  G.Nodes // nodes whose values may lie in its memory: they are read no longer than it is
}

// teller is an op that tells when its Do begins. Every node that runs before is done then.
type teller interface{ onBegin(f func()) }

// NewRecycler returns a Recycler for the results of this module's ops in g. The values of the nodes in read are read outside of the
// graph too, until Release; those of the nodes in keep are not handed back.
func NewRecycler(g *G.ExprGraph, read, keep G.Nodes) *Recycler {
	r := &Recycler{reads: map[*G.Node][]*result{}}
	uses := map[teller]int{}
	for _, n := range g.AllNodes() {
		if o, ok := n.Op().(teller); ok && isFresh(n) {
			uses[o]++
		}
	}
	tells := func(n *G.Node) bool {
		o, ok := n.Op().(teller)
		return ok && uses[o] == 1 // an op of two nodes does not say which of them begins
	}
	outside := slices.Concat(read, keep)
	for _, n := range g.AllNodes() {
		if tells(n) {
			n.Op().(teller).onBegin(func() { r.begin(n) })
		} else if n.Op() != nil {
			r.others = append(r.others, n)
		}
		if !isFresh(n) || slices.Contains(keep, n) {
			continue
		}
		x := &result{node: n}
		r.results = append(r.results, x)
		readers := map[*G.Node]bool{}
		if slices.Contains(read, n) || !x.follow(g, n, outside, tells, readers) {
			continue
		}
		x.readers = len(readers)
		for reader := range readers {
			r.reads[reader] = append(r.reads[reader], x)
		}
	}
	return r
}

// isFresh reports whether n's value is memory that New or NewUnset made for it.
func isFresh(n *G.Node) bool {
	o, ok := n.Op().(interface{ FreshResult() bool })
	return ok && o.FreshResult()
}

// follow collects the tellers that read the memory of n's value, also those that read it by way of nodes that may hand it on. It
// is false if somebody might read it when the run is over.
func (x *result) follow(g *G.ExprGraph, n *G.Node, outside G.Nodes, tells func(*G.Node) bool, readers map[*G.Node]bool) bool {
	some := false
	for it := g.To(n.ID()); it.Next(); {
		some = true
		reader := it.Node().(*G.Node)
		switch {
		case tells(reader):
			readers[reader] = true
		case slices.Contains(x.shared, reader):
		case slices.Contains(outside, reader):
			return false
		default:
			x.shared = append(x.shared, reader)
			if !x.follow(g, reader, outside, tells, readers) {
				return false
			}
		}
	}
	return some
}

// Watch begins a run. Until stop is called, results are handed back as soon as nobody in the graph reads them any more; their
// nodes then hold a single zero.
func (r *Recycler) Watch() (stop func()) {
	for _, x := range r.results {
		x.left = x.readers
	}
	r.running, r.watched = nil, true
	return func() { r.watched = false }
}

// begin is called when n begins, and the node that began before it is done.
func (r *Recycler) begin(n *G.Node) {
	if !r.watched {
		return
	}
	for _, x := range r.reads[r.running] {
		if x.left--; x.left == 0 {
			r.early(x)
		}
	}
	r.running = n
}

// early hands back what x holds in the middle of a run. A machine gives nodes whose values it knows to be dead to Gorgonia's own ops
// to write into: that is why the values lose their memory, and why one that such an op has taken stays.
func (r *Recycler) early(x *result) {
	d := hostDense(x.node)
	if d == nil || d == x.last {
		return
	}
	for _, n := range r.others {
		if o := hostDense(n); o != nil && overlap(d, o) && !slices.Contains(x.shared, n) {
			return
		}
	}
	data := d.Data()
	for _, n := range x.shared {
		if o := hostDense(n); o != nil && o != d && overlap(d, o) {
			empty(o)
		}
	}
	empty(d)
	x.last = d
	recycleAny(data)
}

// Release hands the results of the last run back. From then on nobody may read them, nor write to them: neither through
// the nodes' values nor through slices of their memory. Results that a failed run did not get to are left alone.
func (r *Recycler) Release() {
	for _, x := range r.results {
		if d := hostDense(x.node); d != nil && d != x.last {
			x.last = d
			recycleAny(d.Data())
		}
	}
}

// hostDense is n's tensor, nil if it has none, or has it on a card, where it is the machine's.
func hostDense(n *G.Node) *tensor.Dense {
	d, ok := n.Value().(*tensor.Dense)
	if !ok || d == nil || d.IsManuallyManaged() {
		return nil
	}
	return d
}

// overlap reports whether two tensors have memory in common.
func overlap(a, b *tensor.Dense) bool {
	return a.Uintptr() < b.Uintptr()+b.MemSize() && b.Uintptr() < a.Uintptr()+a.MemSize()
}

// empty takes a tensor's memory away: what is left is one zero of its own. (Gorgonia panics on tensors without any memory.)
func empty(d *tensor.Dense) { *d = *tensor.New(tensor.Of(d.Dtype()), tensor.WithShape(1)) }

func recycleAny(data any) {
	switch x := data.(type) {
	case []float32:
		recycle(x)
	case []float64:
		recycle(x)
	}
}
