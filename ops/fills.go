package ops

import "stheno/internal/op"

// Ops whose gradients and sides are written whole.
var (
	_ op.Filler = (*linear)(nil)
	_ op.Filler = (*linears)(nil)
	_ op.Filler = (*layerNorm)(nil)
	_ op.Filler = (*residual)(nil)
	_ op.Filler = (*reshape)(nil)
	_ op.Filler = (*activation)(nil)
	_ op.Filler = (*dropout)(nil)
	_ op.Filler = (*rmsNorm)(nil)
	_ op.Filler = (*rope)(nil)
	_ op.Filler = (*swiGLU)(nil)
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

// Fills marks an op.Filler.
func (o *activation) Fills() {}

// Fills marks an op.Filler.
func (o *dropout) Fills() {}

// Fills marks an op.Filler.
func (o *rmsNorm) Fills() {}

// Fills marks an op.Filler.
func (o *rope) Fills() {}

// Fills marks an op.Filler.
func (o *swiGLU) Fills() {}
