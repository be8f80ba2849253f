//go:build !cuda

package flashattn

import "stheno/internal/op"

// attendFor is o, which under the build tag cuda is another op that runs on a card, as far as there are kernels.
func attendFor(o *attendOp) op.Backwarder { return o }
