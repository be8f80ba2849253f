package op

import (
	"fmt"
	"sync/atomic"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// An op returns one value. What it computes besides (a log-sum-exp for the backward pass, the gradients of its second
// and third input) goes into side values: nodes that hold fresh memory for each run of each machine, which the op
// takes as inputs and fills. No state lives on the op, so one graph may run in two machines at once.

var sideCount atomic.Uint64

// Side returns a node whose value is a new zeroed tensor on every run. like is any node of the graph. The node must be
// an input of exactly one op that fills it; others read it through After.
func Side(like *G.Node, shape tensor.Shape, dtype tensor.Dtype) (*G.Node, error) {
	return SideFor(nil, like, shape, dtype)
}

// SideFor is Side for memory that op of fills: under the build tag cuda it lies where that op runs, and it is not zeroed for a Filler.
func SideFor(of any, like *G.Node, shape tensor.Shape, dtype tensor.Dtype) (*G.Node, error) {
	// The serial number keeps Gorgonia from merging two sides of one shape into one memory.
	_, fills := of.(Filler)
	o := &sideOp{NewBase("op.Side", sideCount.Add(1), shape, dtype, like), fills}
	return G.ApplyOp(sideOpFor(o, of), like)
}

type sideOp struct {
	Base
	unset bool // it may hold anything
}

var _ G.SDOp = (*sideOp)(nil)

func (o *sideOp) Do(...G.Value) (G.Value, error) {
	o.begins()
	return newOf(o.OutDtype(), o.shape, o.unset), nil
}

func (o *sideOp) DiffWRT(n int) []bool { return make([]bool, n) }

func (o *sideOp) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return notDifferentiable(o.name)
}

// After returns the side's value once filled has run, filled being the op's node that takes side as an input.
func After(side, filled *G.Node) (*G.Node, error) {
	o := &afterOp{NewBase("op.After", nil, side.Shape(), side.Dtype(), side, filled)}
	return G.ApplyOp(afterOpFor(o, filled), side, filled)
}

type afterOp struct{ Base }

var _ G.SDOp = (*afterOp)(nil)

// Do hands on the side's memory: nothing else reads it once filled has run, so a later in-place op may have it.
func (o *afterOp) Do(in ...G.Value) (G.Value, error) {
	if len(in) != 2 {
		return nil, fmt.Errorf("%s: got %d inputs, want 2", o.name, len(in))
	}
	return in[0], nil
}

// FreshResult: no, it is the side's.
func (o *afterOp) FreshResult() bool { return false }

func (o *afterOp) DiffWRT(n int) []bool { return make([]bool, n) }

func (o *afterOp) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return notDifferentiable(o.name)
}

func notDifferentiable(name string) (G.Nodes, error) {
	return nil, fmt.Errorf("%s: not differentiable", name)
}
