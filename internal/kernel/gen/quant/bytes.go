package main

import (
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// emitBytes emits an instruction that neither avo nor Go's assembler knows.
func (e *emitter) emitBytes(code ...uint8) {
	for _, c := range code {
		e.Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []operand.Op{operand.U8(c)}})
	}
}

// The instructions of AMX. Tiles are numbers; memory operands have one of the first eight general registers for a base and for an
// index, which is the distance between rows.

const (
	noPrefix = 0
	prefixF3 = 2
	prefixF2 = 3
)

// vex emits an instruction of the opcode map 0F38 with 128 bits and W = 0.
func (e *emitter) vex(prefix, opcode, vvvv uint8, operands ...uint8) {
	e.emitBytes(append([]uint8{0xc4, 0xe2, ^(vvvv<<3)&0x78 | prefix, opcode}, operands...)...)
}

// indexed are the operand bytes for reg and the memory base + index + disp.
func indexed(r uint8, base, index reg.GPPhysical, disp int) []uint8 {
	b, i := uint8(base.PhysicalIndex()), uint8(index.PhysicalIndex())
	if b > 7 || i > 7 || i == 4 {
		panic("quant: memory operand of a tile beyond the first eight registers")
	}
	d := uint32(int32(disp))
	return []uint8{0x84 | r<<3, i<<3 | b, uint8(d), uint8(d >> 8), uint8(d >> 16), uint8(d >> 24)}
}

// tileConfig is LDTILECFG [base].
func (e *emitter) tileConfig(base reg.GPPhysical) {
	if b := uint8(base.PhysicalIndex()); b > 3 {
		panic("quant: address of a tile configuration in an unexpected register")
	}
	e.Commentf("LDTILECFG (%s)", base.Asm())
	e.vex(noPrefix, 0x49, 0, uint8(base.PhysicalIndex()))
}

// tileRelease is TILERELEASE.
func (e *emitter) tileRelease() {
	e.Comment("TILERELEASE")
	e.vex(noPrefix, 0x49, 0, 0xc0)
}

// tileZero is TILEZERO t.
func (e *emitter) tileZero(t uint8) {
	e.Commentf("TILEZERO %d", t)
	e.vex(prefixF2, 0x49, 0, 0xc0|t<<3)
}

// tileLoad is TILELOADD disp(base)(index), t.
func (e *emitter) tileLoad(base, index reg.GPPhysical, disp int, t uint8) {
	e.Commentf("TILELOADD %d(%s)(%s), %d", disp, base.Asm(), index.Asm(), t)
	e.vex(prefixF2, 0x4b, 0, indexed(t, base, index, disp)...)
}

// tileStore is TILESTORED t, disp(base)(index).
func (e *emitter) tileStore(t uint8, base, index reg.GPPhysical, disp int) {
	e.Commentf("TILESTORED %d, %d(%s)(%s)", t, disp, base.Asm(), index.Asm())
	e.vex(prefixF3, 0x4b, 0, indexed(t, base, index, disp)...)
}

// tileBytes is TDPBSUD: sum += a·b for signed bytes a and unsigned bytes b.
func (e *emitter) tileBytes(a, b, sum uint8) {
	e.Commentf("TDPBSUD %d, %d, %d", b, a, sum)
	e.vex(prefixF3, 0x5e, b, 0xc0|sum<<3|a)
}

// tileBFloat16 is TDPBF16PS: sum += a·b for pairs of BF16.
func (e *emitter) tileBFloat16(a, b, sum uint8) {
	e.Commentf("TDPBF16PS %d, %d, %d", b, a, sum)
	e.vex(prefixF3, 0x5c, b, 0xc0|sum<<3|a)
}
