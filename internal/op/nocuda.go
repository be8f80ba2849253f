//go:build !cuda

package op

import G "gorgonia.org/gorgonia"

func gradOpFor(g *gradOp) G.Op { return g }

func sideOpFor(o *sideOp, _ any) G.Op { return o }

func afterOpFor(o *afterOp, _ *G.Node) G.Op { return o }

// Apply is gorgonia.ApplyOp; under the build tag cuda it prepares inputs for the card.
func Apply(o G.Op, in ...*G.Node) (*G.Node, error) { return G.ApplyOp(o, in...) }

// Resident is n; under the build tag cuda, a node that reads the value where it is on the card.
func Resident(n *G.Node) (*G.Node, error) { return n, nil }

// Keep does nothing; under the build tag cuda it has memory of the card hold nodes' values until the end of a run.
func Keep(...*G.Node) error { return nil }
