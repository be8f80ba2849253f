package main

import "github.com/mmcloughlin/avo/operand"

// peak emits a loop of independent fused multiply-adds between registers.
func (e *emitter) peak() {
	e.function("peakFMA", "func(n int)",
		"peakFMA"+e.name+" runs n rounds of independent fused multiply-adds, one for each register that a tile sums in.")
	n := e.arg("n")
	for _, v := range e.regs {
		e.zero(v)
	}
	loop := e.label("loop")
	e.Label(loop)
	for range 2 {
		for i := range e.acc {
			e.VFMADD231PS(e.regs[e.acc], e.regs[e.acc+1], e.regs[i])
		}
	}
	e.SUBQ(operand.Imm(2), n)
	e.JGT(operand.LabelRef(loop))
	e.ret()
}
