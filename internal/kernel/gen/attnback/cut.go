package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// cut splits v into pieces: dst[0] and dst[1] its first 8 bits and the next 8, v the last 8. Those of numbers below 2⁻¹¹⁰ need not be a
// BF16, and what is beyond its 16 bits is lost.
func (e *emitter) cut(v reg.VecPhysical, dst []reg.VecPhysical, upper reg.Register) {
	for _, d := range dst {
		e.VPANDD(upper, v, d)
		e.VSUBPS(d, v, v)
	}
	e.VPANDD(upper, v, v)
}

// pair moves the upper halves of lo to the lower halves of hi, whose own are zeros.
func (e *emitter) pair(lo, hi reg.VecPhysical) {
	e.VPSRLD(operand.Imm(16), lo, lo)
	e.VPORD(lo, hi, hi)
}
