package op

import (
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Recycler hands the results of one graph's nodes back: between Watch and its stop as soon as the last node that reads them is
// done, and what is left when Release is called. It is for the one goroutine that runs the graph.
type Recycler struct {
	results []*result
	lent    []*result             // of Reclaimers
	reads   map[*G.Node][]*result // by the nodes that tell when they begin
	running *G.Node               // the teller that began last
	watched bool
}

// result is what a node of this module's ops computes.
type result struct {
	node    *G.Node
	last    G.Value // what the node held when it was handed back
	readers int     // how many tellers read it; 0 if it stays until Release
	left    int     // how many of them are not done, in this run
}

// teller is an op that tells when its Do begins. Every node that runs before is done then.
type teller interface{ onBegin(f func()) }

// Reclaimer is an op that lends memory of its own as its result, and takes it back.
type Reclaimer interface {
	Reclaim(result *tensor.Dense)
}

// NewRecycler returns a Recycler for the results of this module's ops in g. The values of the nodes in read are read outside of the
// graph too, until Release; those of the nodes in keep, whose memory other nodes may have made, are not handed back.
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
		}
		_, lends := n.Op().(Reclaimer)
		fresh := isFresh(n)
		if !lends && !fresh || isKept(n, g, keep, tells, map[*G.Node]bool{}) {
			continue
		}
		if lends {
			r.lent = append(r.lent, &result{node: n})
		}
		if !fresh {
			continue
		}
		x := &result{node: n}
		r.results = append(r.results, x)
		readers := map[*G.Node]bool{}
		if slices.Contains(read, n) || !readersOf(n, g, outside, tells, readers) {
			continue
		}
		for reader, tells := range readers {
			if tells {
				x.readers++
				r.reads[reader] = append(r.reads[reader], x)
			}
		}
	}
	return r
}

// isFresh reports whether n's value is memory that New or NewUnset made for it.
func isFresh(n *G.Node) bool {
	o, ok := n.Op().(interface{ FreshResult() bool })
	return ok && o.FreshResult()
}

// isKept reports whether a node of keep is n or may hold its memory, through nodes that do not tell.
func isKept(n *G.Node, g *G.ExprGraph, keep G.Nodes, tells func(*G.Node) bool, seen map[*G.Node]bool) bool {
	if slices.Contains(keep, n) {
		return true
	}
	for it := g.To(n.ID()); it.Next(); {
		reader := it.Node().(*G.Node)
		if seen[reader] || tells(reader) {
			continue
		}
		if seen[reader] = true; isKept(reader, g, keep, tells, seen) {
			return true
		}
	}
	return false
}

// readersOf collects the nodes that read the memory of n's value, with whether they tell. Those that do not may hand it on, as views
// do and Gorgonia's ops that write into an input: who reads their values reads it, too. (A TapeMachine gives no op the memory of any
// other dead value.) It is false if somebody might read the memory when the run is over.
func readersOf(n *G.Node, g *G.ExprGraph, outside G.Nodes, tells func(*G.Node) bool, readers map[*G.Node]bool) bool {
	some := false
	for it := g.To(n.ID()); it.Next(); {
		some = true
		reader := it.Node().(*G.Node)
		if _, seen := readers[reader]; seen {
			continue
		}
		readers[reader] = tells(reader)
		switch {
		case readers[reader]:
		case slices.Contains(outside, reader) || !readersOf(reader, g, outside, tells, readers):
			return false
		}
	}
	return some
}

// Watch begins a run. Until stop is called, results are handed back as soon as nobody in the graph reads them any more; their
// nodes then hold a single zero. Small ones stay.
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

// early hands back what x holds in the middle of a run.
func (r *Recycler) early(x *result) {
	d := hostDense(x.node)
	if d == nil || d == x.last || !recycles(d.Size(), int(d.Dtype().Size())) {
		return
	}
	data := d.Data()
	*d = *tensor.New(tensor.Of(d.Dtype()), tensor.WithShape(1)) // Gorgonia panics on tensors without any memory
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
	for _, x := range r.lent {
		if d := hostDense(x.node); d != nil && d != x.last {
			x.last = d
			x.node.Op().(Reclaimer).Reclaim(d)
		}
	}
}

// hostDense is n's tensor, nil if it has none, or has it on a card, where it is the machine's. One without a type is one that a
// machine with a card took back when a run failed.
func hostDense(n *G.Node) *tensor.Dense {
	d, ok := n.Value().(*tensor.Dense)
	if !ok || d == nil || d.IsManuallyManaged() || d.Dtype().Type == nil {
		return nil
	}
	return d
}

func recycleAny(data any) {
	switch x := data.(type) {
	case []float32:
		recycle(x)
	case []float64:
		recycle(x)
	}
}
