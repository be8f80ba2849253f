package stheno

import (
	"fmt"
	"strings"
	"text/tabwriter"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
)

// Placement says where a TapeMachine runs each node of a graph, and what it copies between the host and the card on every run. Without
// the build tag cuda everything is on the CPU.
type Placement struct {
	Nodes []PlacedNode // those that compute, in the order of the graph
	// ToCard and ToHost are what every run copies: values of the host that nodes on the card read, and the other way. Nodes that send
	// numbers of their own, such as RoPE's frequencies, stand there too, and inputs that they read back.
	ToCard, ToHost []Transfer
	// Resident is the bytes of weights that lie on the card and are not copied (Model.ToCard).
	Resident int64
}

// PlacedNode is a node that computes something.
type PlacedNode struct {
	Name  string // the op, without its attributes
	Card  bool
	Bytes int64 // of its result
}

// Transfer is a value that crosses over.
type Transfer struct {
	Name  string // the input's name, or the op
	Bytes int64
}

// PlacementOf looks at a graph, Graph of a TrainingGraph or an InferenceGraph for one, or any other that is to run on a TapeMachine.
func PlacementOf(g *G.ExprGraph) Placement {
	var p Placement
	crossed := map[int64]bool{} // a value crosses once, however many read it
	for _, n := range g.AllNodes() {
		o := n.Op()
		if o == nil {
			continue
		}
		_, card := o.(G.CUDADoer)
		if op.KindOf(n) == op.Computes && o.Arity() > 0 { // constants and statements have none
			p.Nodes = append(p.Nodes, PlacedNode{Name: opName(n), Card: card, Bytes: bytesOf(n)})
		}
		if c, ok := o.(op.Copier); ok && card {
			p.addCopies(g, n, c)
		}
		it := g.From(n.ID())
		for it.Next() {
			c := it.Node().(*G.Node)
			if op.KindOf(n) == op.Resides {
				p.Resident += bytesOf(c)
				continue
			}
			_, from := c.Op().(G.CUDADoer)
			if from == card || crossed[c.ID()] {
				continue
			}
			crossed[c.ID()] = true
			t := Transfer{Name: opName(source(g, c)), Bytes: bytesOf(c)}
			if card {
				p.ToCard = append(p.ToCard, t)
			} else {
				p.ToHost = append(p.ToHost, t)
			}
		}
	}
	return p
}

// addCopies adds what node n copies besides its inputs.
func (p *Placement) addCopies(g *G.ExprGraph, n *G.Node, c op.Copier) {
	sent, readBack := c.Copies()
	if sent > 0 {
		p.ToCard = append(p.ToCard, Transfer{Name: opName(n), Bytes: sent})
	}
	var inputs []*G.Node
	for it := g.From(n.ID()); it.Next(); {
		inputs = append(inputs, it.Node().(*G.Node))
	}
	for _, i := range readBack {
		p.ToHost = append(p.ToHost, Transfer{Name: opName(source(g, inputs[i])), Bytes: bytesOf(inputs[i])})
	}
}

// Fallbacks are the nodes that run on the CPU, none where a whole graph is on the card.
func (p Placement) Fallbacks() []PlacedNode {
	var out []PlacedNode
	for _, n := range p.Nodes {
		if !n.Card {
			out = append(out, n)
		}
	}
	return out
}

// String is a table: how many nodes of each op run where, and the copies.
func (p Placement) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	type kind struct {
		name string
		card bool
	}
	count := map[kind]int{}
	var order []kind
	for _, n := range p.Nodes {
		k := kind{n.Name, n.Card}
		if count[k] == 0 {
			order = append(order, k)
		}
		count[k]++
	}
	fmt.Fprintln(w, "node\tcount\ton")
	for _, k := range order {
		on := "CPU"
		if k.card {
			on = "card"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", k.name, count[k], on)
	}
	for _, c := range []struct {
		what string
		list []Transfer
	}{{"to the card", p.ToCard}, {"to the host", p.ToHost}} {
		var total int64
		for _, t := range c.list {
			total += t.Bytes
		}
		fmt.Fprintf(w, "copied %s on every run\t%d\t%d bytes\n", c.what, len(c.list), total)
	}
	fmt.Fprintf(w, "weights that stay on the card\t\t%d bytes\n", p.Resident)
	w.Flush()
	return b.String()
}

// source is what n hands on: the input behind a node that lays it out.
func source(g *G.ExprGraph, n *G.Node) *G.Node {
	for n.Op() != nil && op.KindOf(n) == op.Passes {
		it := g.From(n.ID())
		if !it.Next() {
			break
		}
		n = it.Node().(*G.Node)
	}
	return n
}

// opName is an input's name, or that of an op without what follows it in braces.
func opName(n *G.Node) string {
	if n.Op() == nil {
		return n.Name()
	}
	if o, ok := n.Op().(interface{ Name() string }); ok {
		name, rest, _ := strings.Cut(o.Name(), "{")
		if i := strings.LastIndex(rest, "}."); i >= 0 {
			name += rest[i+1:]
		}
		return name
	}
	name, _, _ := strings.Cut(fmt.Sprint(n.Op()), "{")
	return name
}

func bytesOf(n *G.Node) int64 {
	size := int64(1)
	if !n.Shape().IsScalar() {
		size = int64(n.Shape().TotalSize())
	}
	switch n.Dtype() {
	case tensor.Float32, tensor.Int32:
		return 4 * size
	case tensor.Uint8, tensor.Int8, tensor.Bool:
		return size
	case tensor.Uint16, tensor.Int16:
		return 2 * size
	}
	return 8 * size
}
