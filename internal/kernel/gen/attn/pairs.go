package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// fPairScale is a field of onlinePairsArgs, which begins as onlineCodesArgs does.
const fPairScale = fScale

// multiplyPairs is a step of a product of two numbers of BF16 for each lane: VDPBF16PS, which neither avo nor Go's assembler knows.
func (f *forwardFunc) multiplyPairs(b, a, sum reg.VecPhysical) {
	f.Commentf("VDPBF16PS %s, %s, %s", b.Asm(), a.Asm(), sum.Asm())
	r, v, m := uint8(sum.PhysicalIndex()), uint8(a.PhysicalIndex()), uint8(b.PhysicalIndex())
	bits := func(register, which, to uint8) uint8 { return ^register >> which & 1 << to } // of a register, inverted
	for _, x := range []uint8{
		0x62, bits(r, 3, 7) | bits(m, 4, 6) | bits(m, 3, 5) | bits(r, 4, 4) | 2, // opcode map 0F38
		^v&15<<3 | 4 | 2,     // W = 0, prefix F3
		0x40 | bits(v, 4, 3), // 512 bits, no mask
		0x52, 0xc0 | r&7<<3 | m&7,
	} {
		f.Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []operand.Op{operand.U8(x)}})
	}
}

// endPairs scales the sums.
func (f *forwardFunc) endPairs(nv int) {
	f.VBROADCASTSS(f.field(fPairScale), z[28])
	for i := range tileRows {
		for j := range nv {
			f.VMULPS(z[28], z[4*i+j], z[4*i+j])
		}
	}
}

// beginRounding readies z31 for round.
func (f *forwardFunc) beginRounding() {
	half := f.GP32()
	f.MOVL(operand.U32(0x8000), half)
	f.VPBROADCASTD(half, z[31])
}

// round writes weights to memory as BF16, rounded to the nearest, and leaves x as it is.
func (f *forwardFunc) round(x, r []reg.VecPhysical, to func(j int) operand.Mem) {
	for j := range x {
		f.VPADDD(z[31], x[j], r[j])
	}
	for j := range x {
		f.VPSRLD(operand.Imm(16), r[j], r[j])
	}
	for j := range x {
		f.VPMOVDW(r[j], to(j))
	}
}

// pairRows emits the function that makes words of two rows of numbers.
func (e *emitter) pairRows() {
	e.Function("pairRowsAVX512")
	e.Attributes(attr.NOSPLIT)
	e.Pragma("noescape")
	e.SignatureExpr("func(dst *uint32, a, b *float32, n int)")
	e.Doc("pairRowsAVX512 rounds a[i] and b[i] to BF16, ties to even, for the lower and the upper half of dst[i], i < n. dst may be a.")
	dst, a, b, n := e.Load(e.Param("dst"), e.GP64()), e.Load(e.Param("a"), e.GP64()), e.Load(e.Param("b"), e.GP64()), e.Load(e.Param("n"), e.GP64())
	one, bias, nan, upper := z[16], z[17], z[18], z[19]
	for i, bits := range []uint32{1, 0x7fff, 0x7fc00000, 0xffff0000} {
		x := e.GP32()
		e.MOVL(operand.U32(bits), x)
		e.VPBROADCASTD(x, z[16+i])
	}
	ones := e.GP32()
	e.MOVL(operand.U32(0xffff), ones)
	e.KMOVW(ones, reg.K1)
	loop, last, vector, done := e.label("loop"), e.label("last"), e.label("vector"), e.label("done")
	e.Label(loop)
	e.CMPQ(n, operand.Imm(16))
	e.JGE(operand.LabelRef(vector))
	e.Label(last)
	e.TESTQ(n, n)
	e.JZ(operand.LabelRef(done))
	e.BZHIL(n.(reg.GP).As32(), ones, ones)
	e.KMOVW(ones, reg.K1)
	e.MOVQ(operand.U32(16), n)
	e.Label(vector)
	for i, from := range []reg.Register{a, b} {
		x, t := z[i], z[2+i]
		e.VMOVDQU32_Z(at(from, 0), reg.K1, x)
		e.VPSRLD(operand.Imm(16), x, t)
		e.VPANDD(one, t, t)
		e.VPADDD(bias, t, t)
		e.VPADDD(x, t, t)
		e.VCMPPS(operand.Imm(3), x, x, reg.K2) // NaN
		e.VPBLENDMD(nan, t, reg.K2, t)
	}
	e.VPSRLD(operand.Imm(16), z[2], z[2])
	e.VPANDD(upper, z[3], z[3])
	e.VPORD(z[2], z[3], z[3])
	e.VMOVDQU32(z[3], reg.K1, at(dst, 0))
	for _, p := range []reg.Register{dst, a, b} {
		e.ADDQ(operand.Imm(64), p)
	}
	e.SUBQ(operand.Imm(16), n)
	e.JNZ(operand.LabelRef(loop))
	e.Label(done)
	e.VZEROUPPER()
	e.RET()
}
