package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// cut splits v into pieces: dst[0] and dst[1] its first 8 bits and the next 8, v what is left. Of numbers below 2⁻¹¹⁰ that need not be a
// BF16, and what is beyond its 16 bits is to be lost.
func (e *emitter) cut(v reg.VecPhysical, dst []reg.VecPhysical, upper reg.Register) {
	for _, d := range dst {
		e.VPANDD(upper, v, d)
		e.VSUBPS(d, v, v)
	}
}

// join puts the upper halves of hi, the k-th pieces of numbers, above the lower halves of lo, whose upper ones are zeros. Only of the last
// piece the lower halves may hold something.
func (e *emitter) join(hi, lo reg.VecPhysical, k int) {
	if k < pieces-1 {
		e.VPORD(hi, lo, lo)
		return
	}
	e.VPTERNLOGD(operand.Imm(0xf8), upper, hi, lo) // lo | hi & upper
}
