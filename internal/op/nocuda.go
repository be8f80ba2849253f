//go:build !cuda

package op

import G "gorgonia.org/gorgonia"

func gradOpFor(g *gradOp) G.Op { return g }

func sideOpFor(o *sideOp, _ any) G.Op { return o }

func afterOpFor(o *afterOp, _ *G.Node) G.Op { return o }

// Apply is gorgonia.ApplyOp; under the build tag cuda it prepares inputs for the card.
func Apply(o G.Op, in ...*G.Node) (*G.Node, error) { return G.ApplyOp(o, in...) }
