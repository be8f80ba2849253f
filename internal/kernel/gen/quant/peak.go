package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// peaks emits the loops whose speed products are compared with: multiplications between registers, and a sum over memory.
func (e *emitter) peaks() {
	if e.wide() {
		e.peak("peakBytes", "VPDPBUSD", func(a, b, sum reg.VecPhysical) { e.VPDPBUSD(a, b, sum) })
	}
	e.readMemory()
}

// peak emits a loop of one instruction.
func (e *emitter) peak(name, instruction string, multiply func(a, b, sum reg.VecPhysical)) {
	e.function(name, "func(n int)", "runs n rounds, a multiple of 2, of 24 independent "+instruction+".")
	n := e.arg("n")
	for _, v := range e.regs {
		e.zero(v)
	}
	loop := e.label("loop")
	e.Label(loop)
	for range 2 {
		for _, sum := range e.regs[:24] {
			multiply(e.regs[24], e.regs[25], sum)
		}
	}
	e.SUBQ(operand.Imm(2), n)
	e.JGT(operand.LabelRef(loop))
	e.ret()
}

// readMemory emits a loop that reads as fast as it can.
func (e *emitter) readMemory() {
	e.function("readMemory", "func(x *uint8, lines int)", "reads 64·lines bytes, in order.", "lines is a multiple of 8.")
	x, lines := e.arg("x"), e.arg("lines")
	for i := range 4 {
		e.zero(e.regs[i])
	}
	e.while(lines, 8, func() {
		for i := range 8 * 64 / e.bytes() {
			e.or(at(x, i*e.bytes()), e.regs[i%4], e.regs[i%4])
		}
		e.add(8*64, x)
	})
	e.ret()
}
