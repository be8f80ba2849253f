package ops

import "stheno/internal/op"

// Ops whose gradients and sides are written whole.
var (
	_ op.Filler = (*linear)(nil)
	_ op.Filler = (*linears)(nil)
	_ op.Filler = (*layerNorm)(nil)
	_ op.Filler = (*residual)(nil)
	_ op.Filler = (*reshape)(nil)
)

// Fills marks an op.Filler.
func (o *linear) Fills() {}

// Fills marks an op.Filler.
func (o *linears) Fills() {}

// Fills marks an op.Filler.
func (o *layerNorm) Fills() {}

// Fills marks an op.Filler.
func (o *residual) Fills() {}

// Fills marks an op.Filler.
func (o *reshape) Fills() {}
