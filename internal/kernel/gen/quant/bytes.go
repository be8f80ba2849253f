package main

import (
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Instructions that neither avo nor Go's assembler knows.

// evex emits an instruction on three vectors of 512 bits, op src, vex, dst in Go's order, of the opcode map 0F38 and W = 0.
// prefix is the pp field: 1 for 66, 2 for F3, 3 for F2.
func (e *emitter) evex(prefix, opcode uint8, src, vex, dst reg.VecPhysical) {
	s, v, d := uint8(src.PhysicalIndex()), uint8(vex.PhysicalIndex()), uint8(dst.PhysicalIndex())
	e.emitBytes(
		0x62,
		^(d>>3&1<<7|s>>4&1<<6|s>>3&1<<5|d>>4&1<<4)&0xf0|2, // R X B R', the map
		^(v&15<<3)&0x78|4|prefix,
		0x40|^(v>>4<<3)&8, // 512 bits, V'
		opcode,
		0xc0|d&7<<3|s&7,
	)
}

func (e *emitter) emitBytes(code ...uint8) {
	for _, c := range code {
		e.Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []operand.Op{operand.U8(c)}})
	}
}

// dotBFloat16 is VDPBF16PS a, b, sum: each lane adds the products of two pairs of BF16.
func (e *emitter) dotBFloat16(a, b, sum reg.VecPhysical) {
	e.Commentf("VDPBF16PS %s, %s, %s", a.Asm(), b.Asm(), sum.Asm())
	e.evex(2, 0x52, a, b, sum)
}
