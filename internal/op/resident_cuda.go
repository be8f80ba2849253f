//go:build cuda

package op

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/card"
)

// Resident is an input whose value lies in memory of package card, where it is: kernels read that memory, and no run copies it. The
// machine would copy every input; the replacement of gorgonia.org/cu lets it be told not to.
func Resident(n *G.Node) (*G.Node, error) {
	return G.ApplyOp(&residentOp{Base: NewBase("op.Resident", nil, n.Shape(), n.Dtype(), n), node: n}, n)
}

type residentOp struct {
	Base
	node   *G.Node // the input
	others Readers
}

// Kind is Resides.
func (o *residentOp) Kind() Kind { return Resides }

// CUDADo returns the input's own memory. The machine does not give it back: it is not of its arena.
func (o *residentOp) CUDADo(ext G.External, dev G.Device, _ G.Value, _ ...G.Value) (_ G.Value, err error) {
	defer Recover(o.name, &err)
	c, err := OnCard(o.name, ext, dev)
	if err != nil {
		return nil, err
	}
	v := o.node.Value()
	if v == nil || !card.Holds(v.Uintptr()) || v.MemSize() != uintptr(o.shape.TotalSize())*v.Dtype().Size() {
		return nil, fmt.Errorf("%s: %s: got a value that is not on the card, want the one that the graph was made with", o.name, o.node.Name())
	}
	if x, ok := any(c.machine.Engines()[int(dev)].Context()).(interface{ Skip(src uintptr) }); ok && o.only() {
		x.Skip(v.Uintptr())
	}
	return tensor.New(tensor.Of(v.Dtype()), tensor.WithShape(o.shape...), tensor.FromMemory(v.Uintptr(), v.MemSize())), nil
}

// only reports whether this node alone reads the input on the card, so that nobody needs the machine's copy.
func (o *residentOp) only() bool {
	return !o.others.Any(o.node, func(reader G.Op) bool {
		_, there := reader.(G.CUDADoer)
		return there && reader != G.Op(o)
	})
}

// Do is for machines that run on no card: the value itself.
func (o *residentOp) Do(in ...G.Value) (G.Value, error) { return in[0], nil }

// FreshResult: no, it is the input's.
func (o *residentOp) FreshResult() bool { return false }

// ReturnsPtr: no node may write into it.
func (o *residentOp) ReturnsPtr() bool { return false }

// DiffWRT: the input.
func (o *residentOp) DiffWRT(int) []bool { return []bool{true} }

// SymDiff hands the gradient on.
func (o *residentOp) SymDiff(_ G.Nodes, _, grad *G.Node) (G.Nodes, error) { return G.Nodes{grad}, nil }

// DoDiff is SymDiff on a LispMachine.
func (o *residentOp) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return DoDiff(o, in, out)
}

// BackwardReads: nothing.
func (o *residentOp) BackwardReads(int) bool { return false }

// Backward hands the gradient on.
func (o *residentOp) Backward(_ []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.OutDtype() == tensor.Float64 {
		return addInto[float64](dIn[0], dOut.(*tensor.Dense))
	}
	return addInto[float32](dIn[0], dOut.(*tensor.Dense))
}

// Keep has the memory of those nodes that are on the card hold their values until the end of a run. The others do anyhow.
func Keep(nodes ...*G.Node) error {
	var there G.Nodes
	for _, n := range nodes {
		if _, ok := n.Op().(G.CUDADoer); ok {
			there = append(there, n)
		}
	}
	if len(there) == 0 {
		return nil
	}
	_, err := G.ApplyOp(&keepOp{NewBase("op.Keep", nil, tensor.Shape{1}, there[0].Dtype(), there...)}, there...)
	return err
}

// keepOp reads its inputs last, and nothing of them.
type keepOp struct{ Base }

// Kind is Keeps.
func (o *keepOp) Kind() Kind { return Keeps }

func (o *keepOp) CallsExtern() bool { return true }

func (o *keepOp) Do(...G.Value) (G.Value, error) { return NewOf(o.OutDtype(), o.shape), nil }

func (o *keepOp) CUDADo(_ G.External, _ G.Device, prealloc G.Value, _ ...G.Value) (G.Value, error) {
	if prealloc == nil {
		return nil, fmt.Errorf("%s: got no memory for the result", o.name)
	}
	return prealloc, nil
}
