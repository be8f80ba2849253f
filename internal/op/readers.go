package op

import (
	"sync"

	G "gorgonia.org/gorgonia"
)

// Readers finds out whether a node of a graph is read, and remembers it for as long as the graph does not grow. The zero
// value is ready; several machines may ask at once.
type Readers struct {
	mu    sync.Mutex
	known int  // nodes of the graph when found was
	found bool // whether one of them reads
}

// Any reports whether an op that counts has n as an input. Ask always with the same n and counts.
func (r *Readers) Any(n *G.Node, counts func(reader G.Op) bool) bool {
	g := n.Graph()
	nodes := g.AllNodes()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == len(nodes) {
		return r.found
	}
	r.known, r.found = len(nodes), false
	// ExprGraph.To would say who reads it, but it writes to the graph, which other machines may be running.
	for _, reader := range nodes {
		if g.HasEdgeFromTo(reader.ID(), n.ID()) && counts(reader.Op()) {
			r.found = true
			break
		}
	}
	return r.found
}
