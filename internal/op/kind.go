package op

import G "gorgonia.org/gorgonia"

// Kind is what a node does, for reports.
type Kind int

const (
	Computes Kind = iota
	Passes        // hands its input on, laid out for the card
	Resides       // stands for memory of the card
	Keeps         // keeps its inputs' memory to the end of a run
)

// KindOf is the kind of n's op.
func KindOf(n *G.Node) Kind {
	if o, ok := n.Op().(interface{ Kind() Kind }); ok {
		return o.Kind()
	}
	return Computes
}
