// Package amx emits the instructions of AMX, which neither avo nor Go's assembler knows, as bytes.
//
// Tiles are numbers. Memory operands have a base and an index, which is the distance between rows. Registers are chosen by hand: the
// bytes do not take part in avo's allocation.
package amx

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	noPrefix = 0
	prefixF3 = 2
	prefixF2 = 3
)

// vex emits an instruction of the opcode map 0F38 with 128 bits and W = 0.
func vex(c *build.Context, prefix, opcode, vvvv uint8, operands ...uint8) {
	extended(c, 0, prefix, opcode, vvvv, operands...)
}

// extended is vex with the bits of the second byte that registers beyond the eighth clear.
func extended(c *build.Context, high, prefix, opcode, vvvv uint8, operands ...uint8) {
	for _, b := range append([]uint8{0xc4, 0xe2 &^ high, ^(vvvv<<3)&0x78 | prefix, opcode}, operands...) {
		c.Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []operand.Op{operand.U8(b)}})
	}
}

// indexed are the operand bytes for reg and the memory base + index + disp, and the bits that extended wants.
func indexed(r uint8, base, index reg.GPPhysical, disp int) (high uint8, operands []uint8) {
	b, i := uint8(base.PhysicalIndex()), uint8(index.PhysicalIndex())
	if b%8 == 4 || i == 4 {
		panic("amx: memory operand of a tile with a register that has no encoding here")
	}
	d := uint32(int32(disp))
	return i>>3<<6 | b>>3<<5, []uint8{0x84 | r<<3, i%8<<3 | b%8, uint8(d), uint8(d >> 8), uint8(d >> 16), uint8(d >> 24)}
}

// Shape is memory for Config: palette 1, and of each tile the bytes of a row and the number of rows.
func Shape(c *build.Context, name string, rowBytes, rows [8]uint8) operand.Mem {
	var shape [64]uint8
	shape[0] = 1
	for i := range 8 {
		shape[16+2*i], shape[48+i] = rowBytes[i], rows[i]
	}
	m := c.StaticGlobal(name)
	c.DataAttributes(attr.RODATA | attr.NOPTR)
	for _, b := range shape {
		c.AppendDatum(operand.U8(b))
	}
	return m
}

// Config is LDTILECFG [base].
func Config(c *build.Context, base reg.GPPhysical) {
	if b := uint8(base.PhysicalIndex()); b > 3 {
		panic("amx: address of a tile configuration in an unexpected register")
	}
	c.Commentf("LDTILECFG (%s)", base.Asm())
	vex(c, noPrefix, 0x49, 0, uint8(base.PhysicalIndex()))
}

// Release is TILERELEASE.
func Release(c *build.Context) {
	c.Comment("TILERELEASE")
	vex(c, noPrefix, 0x49, 0, 0xc0)
}

// Zero is TILEZERO t.
func Zero(c *build.Context, t uint8) {
	c.Commentf("TILEZERO %d", t)
	vex(c, prefixF2, 0x49, 0, 0xc0|t<<3)
}

// Load is TILELOADD disp(base)(index), t.
func Load(c *build.Context, base, index reg.GPPhysical, disp int, t uint8) {
	c.Commentf("TILELOADD %d(%s)(%s), %d", disp, base.Asm(), index.Asm(), t)
	high, operands := indexed(t, base, index, disp)
	extended(c, high, prefixF2, 0x4b, 0, operands...)
}

// Store is TILESTORED t, disp(base)(index).
func Store(c *build.Context, t uint8, base, index reg.GPPhysical, disp int) {
	c.Commentf("TILESTORED %d, %d(%s)(%s)", t, disp, base.Asm(), index.Asm())
	high, operands := indexed(t, base, index, disp)
	extended(c, high, prefixF3, 0x4b, 0, operands...)
}

// Bytes is TDPBSUD: sum += a·b for signed bytes a and unsigned bytes b.
func Bytes(c *build.Context, a, b, sum uint8) {
	c.Commentf("TDPBSUD %d, %d, %d", b, a, sum)
	vex(c, prefixF3, 0x5e, b, 0xc0|sum<<3|a)
}

// SignedBytes is TDPBSSD: sum += a·b for signed bytes.
func SignedBytes(c *build.Context, a, b, sum uint8) {
	c.Commentf("TDPBSSD %d, %d, %d", b, a, sum)
	vex(c, prefixF2, 0x5e, b, 0xc0|sum<<3|a)
}

// BFloat16 is TDPBF16PS: sum += a·b for pairs of BF16.
func BFloat16(c *build.Context, a, b, sum uint8) {
	c.Commentf("TDPBF16PS %d, %d, %d", b, a, sum)
	vex(c, prefixF3, 0x5c, b, 0xc0|sum<<3|a)
}
