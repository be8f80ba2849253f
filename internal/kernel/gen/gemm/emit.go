package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa describes a vector instruction set to the emitter.
type isa struct {
	name  string
	lanes int // float32 lanes of a vector
	acc   int // vector registers for sums; the others hold loaded vectors and broadcasts
	regs  []reg.VecPhysical
}

var avx2 = isa{
	name: "AVX2", lanes: 8, acc: 12,
	regs: []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10,
		reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15},
}

var avx512 = isa{
	name: "AVX512", lanes: 16, acc: 24,
	regs: []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10,
		reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22,
		reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31},
}

// bytes is the size of a vector.
func (s isa) bytes() int { return 4 * s.lanes }

// emitter writes functions for one instruction set.
type emitter struct {
	*build.Context
	isa
	labels int
	mask   reg.Register // of the partial vector: a vector register (AVX2) or an opmask (AVX-512)
	lanesM *operand.Mem // AVX2: 8 words of ones, then 8 of zeros
}

func newEmitter(s isa) *emitter {
	e := &emitter{Context: build.NewContext(), isa: s}
	e.ConstraintExpr("amd64,!purego")
	return e
}

// function opens a leaf function without a frame.
func (e *emitter) function(name, signature string, doc ...string) {
	e.Function(name + e.name)
	e.Attributes(attr.NOSPLIT)
	e.Pragma("noescape")
	e.SignatureExpr(signature)
	e.Doc(doc...)
	e.mask = nil
}

// ret closes a function.
func (e *emitter) ret() {
	e.VZEROUPPER()
	e.RET()
}

// arg loads an argument into a general register.
func (e *emitter) arg(name string) reg.GPVirtual {
	return e.Load(e.Param(name), e.GP64()).(reg.GPVirtual)
}

// label returns a name that is unique in the file.
func (e *emitter) label(what string) string {
	e.labels++
	return fmt.Sprintf("%s%d", what, e.labels)
}

// at is the operand base + disp.
func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// row is the operand of row i (0 ≤ i < 6) at a byte displacement, given base, base3 = base + 3·stride and stride.
func row(base, base3, stride reg.Register, i, disp int) operand.Mem {
	if i >= 3 {
		base, i = base3, i-3
	}
	if i == 0 {
		return operand.Mem{Base: base, Disp: disp}
	}
	return operand.Mem{Base: base, Index: stride, Scale: uint8(i), Disp: disp}
}

// triple sets dst = base + 3·stride.
func (e *emitter) triple(base, stride, dst reg.Register) {
	e.LEAQ(operand.Mem{Base: base, Index: stride, Scale: 2}, dst)
	e.ADDQ(stride, dst)
}

// advance adds rows·stride, of five or six rows, to base.
func (e *emitter) advance(base, stride reg.Register, rows int) {
	e.LEAQ(operand.Mem{Base: base, Index: stride, Scale: 4}, base)
	e.LEAQ(operand.Mem{Base: base, Index: stride, Scale: uint8(rows - 4)}, base)
}

// setMask prepares masked access to the first tail lanes of a vector, 1 ≤ tail ≤ lanes. On AVX2 the mask takes a vector
// register.
func (e *emitter) setMask(tail reg.GPVirtual, vector reg.VecPhysical) {
	if e.lanes == 16 {
		k, one := e.K(), e.GP64()
		e.MOVQ(operand.U32(1), one)
		e.SHLXQ(tail, one, one)
		e.DECQ(one)
		e.KMOVW(one.As32(), k)
		e.mask = k
		return
	}
	if e.lanesM == nil {
		m := e.StaticGlobal("laneMask")
		e.DataAttributes(attr.RODATA | attr.NOPTR)
		for i := range 16 {
			v := uint32(0)
			if i < 8 {
				v = 0xffffffff
			}
			e.AppendDatum(operand.U32(v))
		}
		e.lanesM = &m
	}
	base := e.GP64()
	e.LEAQ(e.lanesM.Offset(32), base)
	e.SHLQ(operand.Imm(2), tail)
	e.SUBQ(tail, base)
	e.VMOVUPS(at(base, 0), vector)
	e.mask = vector
}

// load reads a vector; a masked one reads its lanes only and zeroes the others.
func (e *emitter) load(m operand.Mem, dst reg.Register, masked bool) {
	switch {
	case !masked:
		e.VMOVUPS(m, dst)
	case e.lanes == 16:
		e.VMOVUPS_Z(m, e.mask, dst)
	default:
		e.VMASKMOVPS(m, e.mask, dst)
	}
}

// store writes a vector, or its masked lanes only.
func (e *emitter) store(src reg.Register, m operand.Mem, masked bool) {
	switch {
	case !masked:
		e.VMOVUPS(src, m)
	case e.lanes == 16:
		e.VMOVUPS(src, e.mask, m)
	default:
		e.VMASKMOVPS(src, e.mask, m)
	}
}

// zero clears a vector register.
func (e *emitter) zero(v reg.Register) {
	if e.lanes == 16 {
		e.VPXORD(v, v, v)
		return
	}
	e.VXORPS(v, v, v)
}

// sum adds the lanes of v into lane 0 of the result, pairing halves; t is overwritten.
func (e *emitter) sum(v, t reg.VecPhysical) reg.Register {
	if e.lanes == 16 {
		e.VEXTRACTF64X4(operand.Imm(1), v, t.AsY())
		e.VADDPS(t.AsY(), v.AsY(), v.AsY())
	}
	e.VEXTRACTF128(operand.Imm(1), v.AsY(), t.AsX())
	e.VADDPS(t.AsX(), v.AsX(), v.AsX())
	e.VMOVHLPS(v.AsX(), v.AsX(), t.AsX())
	e.VADDPS(t.AsX(), v.AsX(), v.AsX())
	e.VMOVSHDUP(v.AsX(), t.AsX())
	e.VADDSS(t.AsX(), v.AsX(), v.AsX())
	return v.AsX()
}
