package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	tileRows = 6      // of a register tile
	line     = 64     // bytes of a vector
	rowBytes = 4 * 64 // of a row of 64 scores
	unroll   = 4      // steps of a product in one turn of its loop
)

// z are the vector registers: 0 to 23 hold sums, 24 to 27 the vectors of B, 28 to 31 broadcasts in turn.
var z = []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11,
	reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24,
	reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31}

// emitter writes functions that take one pointer to a structure of 8-byte fields.
type emitter struct {
	*build.Context
	labels    int
	constants operand.Mem
	args      reg.GPVirtual
}

// Constants in memory, in this order: those of 2^y on 0 ≤ y−⌊y⌋ < 1 from the highest power down (package isa has the same), then
// log₂e, −∞, and the numbers 0 to 15.
var exp2 = []float32{0.00186713007244494, 0.009017030315877226, 0.05579991310968577, 0.24016445015286672, 0.6931513118048798, 1}

const (
	atLog2e    = 24
	atMinusInf = 28
	atIota     = 32
)

func newEmitter() *emitter {
	e := &emitter{Context: build.NewContext()}
	e.ConstraintExpr("amd64,!purego")
	e.constants = e.StaticGlobal("attnConstants")
	e.DataAttributes(attr.RODATA | attr.NOPTR)
	for _, c := range exp2 {
		e.AppendDatum(operand.F32(c))
	}
	e.AppendDatum(operand.F32(1.4426950408889634))
	e.AppendDatum(operand.U32(0xff800000))
	for i := range 16 {
		e.AppendDatum(operand.U32(uint32(i)))
	}
	return e
}

// function opens a leaf function without a frame.
func (e *emitter) function(name string, doc ...string) {
	e.Function(name)
	e.Attributes(attr.NOSPLIT)
	e.Pragma("noescape")
	e.SignatureExpr("func(args *byte)")
	e.Doc(doc...)
	e.args = e.Load(e.Param("args"), e.GP64()).(reg.GPVirtual)
}

func (e *emitter) label(what string) string {
	e.labels++
	return fmt.Sprintf("%s%d", what, e.labels)
}

// field is field n of the arguments.
func (e *emitter) field(n int) operand.Mem { return operand.Mem{Base: e.args, Disp: 8 * n} }

// get loads a field.
func (e *emitter) get(n int) reg.GPVirtual {
	r := e.GP64()
	e.MOVQ(e.field(n), r)
	return r
}

func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// row is the operand of row i < 6, given base, base3 = base + 3·stride and stride.
func row(base, base3, stride reg.Register, i, disp int) operand.Mem {
	if i >= 3 {
		base, i = base3, i-3
	}
	if i == 0 {
		return at(base, disp)
	}
	return operand.Mem{Base: base, Index: stride, Scale: uint8(i), Disp: disp}
}

// triple returns base + 3·stride.
func (e *emitter) triple(base, stride reg.Register) reg.GPVirtual {
	r := e.GP64()
	e.LEAQ(operand.Mem{Base: base, Index: stride, Scale: 2}, r)
	e.ADDQ(stride, r)
	return r
}

// product emits sums(6×nv) += A·B over the steps in left, which is consumed: a(i, u) is the operand of A at row i and u steps
// ahead, advance moves A by n steps, and B is at walk, in rows of ldb bytes, a register or a number. multiply is one step of 16 lanes.
func (e *emitter) product(nv int, left, walk reg.GPVirtual, ldb any, a func(i, u int) operand.Mem, advance func(n int), multiply func(b, a, sum reg.VecPhysical)) {
	step := func(u int) {
		disp := 0
		if n, ok := ldb.(int); ok {
			disp = n * u
		}
		for j := range nv {
			e.VMOVUPS(at(walk, disp+line*j), z[24+j])
		}
		for i := range tileRows {
			x := z[28+i%4]
			e.VBROADCASTSS(a(i, u), x)
			for j := range nv {
				multiply(z[24+j], x, z[4*i+j])
			}
		}
		if r, ok := ldb.(reg.GPVirtual); ok {
			e.ADDQ(r, walk)
		}
	}
	forward := func(n int) {
		advance(n)
		if b, ok := ldb.(int); ok {
			e.ADDQ(operand.U32(uint32(b*n)), walk)
		}
	}
	loop, few, one, done := e.label("loop"), e.label("few"), e.label("one"), e.label("done")
	e.SUBQ(operand.Imm(unroll), left)
	e.JLT(operand.LabelRef(few))
	e.Label(loop)
	for u := range unroll {
		step(u)
	}
	forward(unroll)
	e.SUBQ(operand.Imm(unroll), left)
	e.JGE(operand.LabelRef(loop))
	e.Label(few)
	e.ADDQ(operand.Imm(unroll), left)
	e.JZ(operand.LabelRef(done))
	e.Label(one)
	step(0)
	forward(1)
	e.DECQ(left)
	e.JNZ(operand.LabelRef(one))
	e.Label(done)
}

// fold combines the lanes of each of z24 to z29 by op: lane i of z24 is that of z[24+i], for i < 6. k selects lanes 4 and 5. z30
// and z31 are used.
func (e *emitter) fold(op func(ops ...operand.Op), k reg.Register) {
	lo, hi := z[30], z[31]
	for i := 24; i < 30; i += 2 { // lanes of two rows in turn
		e.VUNPCKLPS(z[i+1], z[i], lo)
		e.VUNPCKHPS(z[i+1], z[i], hi)
		op(lo, hi, z[i])
	}
	e.VUNPCKLPD(z[26], z[24], lo)
	e.VUNPCKHPD(z[26], z[24], hi)
	op(lo, hi, z[24])
	e.VPERMILPS(operand.Imm(0x4e), z[28], lo)
	op(lo, z[28], z[28])
	// All but lanes 4 and 5 of each half that are not those of their row: rows 0 to 3 in every quarter of z24, 4 and 5 in z28.
	for _, imm := range []uint64{0x4e, 0xb1} {
		e.VSHUFF32X4(operand.Imm(imm), z[24], z[24], lo)
		e.VSHUFF32X4(operand.Imm(imm), z[28], z[28], hi)
		op(lo, z[24], z[24])
		op(hi, z[28], z[28])
	}
	e.VBLENDMPS(z[28], z[24], k, z[24])
}

// exp computes e^x in place for some registers, with temporaries r and p for each; constants(0…) are the registers that hold
// exp2's coefficients and then log₂e.
func (e *emitter) exp(x, r, p, constants []reg.VecPhysical) {
	each := func(f func(i int)) {
		for i := range x {
			f(i)
		}
	}
	each(func(i int) { e.VMULPS(constants[6], x[i], x[i]) })
	each(func(i int) { e.VREDUCEPS(operand.Imm(1), x[i], r[i]) })
	each(func(i int) { e.VMOVAPS(constants[0], p[i]) })
	for c := 1; c < 6; c++ {
		each(func(i int) { e.VFMADD213PS(constants[c], r[i], p[i]) })
	}
	each(func(i int) { e.VSCALEFPS(x[i], p[i], x[i]) })
}

// expConstants loads what exp wants.
func (e *emitter) expConstants(to []reg.VecPhysical) {
	for i := range 7 {
		e.VBROADCASTSS(e.constants.Offset(4*i), to[i])
	}
}
