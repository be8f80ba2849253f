package main

import "github.com/mmcloughlin/avo/operand"

// halves emits the conversions between float32 and its two halves, a whole number of vectors at a time.
func (e *emitter) halves() {
	e.toFloat16()
	e.fromFloat16()
	e.toBFloat16()
	e.fromBFloat16()
}

func (e *emitter) toFloat16() {
	e.function("toFloat16", "func(dst *uint16, x *float32, n int) int",
		"rounds n numbers to FP16, ties to even, and returns how many are finite and beyond 65504 in magnitude.",
		"n is a multiple of a vector's lanes.")
	dst, x, n, over := e.arg("dst"), e.arg("x"), e.arg("n"), e.GP64()
	v, a, count := e.regs[0], e.regs[1], e.regs[2]
	abs, most, inf := e.regs[3], e.regs[4], e.regs[5]
	e.splat(0x7fffffff, abs)
	e.splat(0x477fe000, most) // 65504
	e.splat(0x7f800000, inf)
	e.zero(count)
	e.XORQ(over, over)
	k, bits := e.K(), e.GP64()
	e.while(n, e.lanes, func() {
		e.VMOVUPS(at(x, 0), v)
		e.and(v, abs, a)
		if e.wide() {
			e.VCMPPS(operand.Imm(0x1e), most, a, k)
			e.VCMPPS(operand.Imm(0x11), inf, a, k, k)
			e.KMOVW(k, bits.As32())
			e.POPCNTL(bits.As32(), bits.As32())
			e.ADDQ(bits, over)
		} else {
			m := e.regs[6]
			e.VCMPPS(operand.Imm(0x1e), most, a, m)
			e.VCMPPS(operand.Imm(0x11), inf, a, a)
			e.VPAND(m, a, a)
			e.VPSUBD(a, count, count)
		}
		e.VCVTPS2PH(operand.Imm(0), v, e.half(v))
		e.VMOVDQU(e.half(v), at(dst, 0))
		e.add(e.bytes(), x)
		e.add(e.bytes()/2, dst)
	})
	if !e.wide() {
		e.VMOVD(e.sumInts(count, a), over.As32())
	}
	e.Store(over, e.ReturnIndex(0))
	e.ret()
}

func (e *emitter) fromFloat16() {
	e.function("fromFloat16", "func(dst *float32, x *uint16, n int)", "widens n numbers of FP16. n is a multiple of a vector's lanes.")
	dst, x, n := e.arg("dst"), e.arg("x"), e.arg("n")
	e.while(n, e.lanes, func() {
		e.VCVTPH2PS(at(x, 0), e.regs[0])
		e.VMOVUPS(e.regs[0], at(dst, 0))
		e.add(e.bytes()/2, x)
		e.add(e.bytes(), dst)
	})
	e.ret()
}

func (e *emitter) toBFloat16() {
	e.function("toBFloat16", "func(dst *uint16, x *float32, n int)",
		"rounds n numbers to BF16, ties to even; a NaN becomes quiet. n is a multiple of a vector's lanes.")
	dst, x, n := e.arg("dst"), e.arg("x"), e.arg("n")
	v, r, q, m := e.regs[0], e.regs[1], e.regs[2], e.regs[3]
	one, half, quiet := e.regs[4], e.regs[5], e.regs[6]
	e.splat(1, one)
	e.splat(0x7fff, half)
	e.splat(0x40, quiet)
	k := e.K()
	e.while(n, e.lanes, func() {
		e.VMOVUPS(at(x, 0), v)
		e.VPSRLD(operand.Imm(16), v, q)
		e.and(q, one, r)
		e.VPADDD(half, r, r)
		e.VPADDD(v, r, r)
		e.VPSRLD(operand.Imm(16), r, r)
		e.or(q, quiet, q)
		if e.wide() {
			e.VCMPPS(operand.Imm(3), v, v, k)
			e.VPBLENDMD(q, r, k, r)
			e.VPMOVDW(r, at(dst, 0))
		} else {
			e.VCMPPS(operand.Imm(3), v, v, m)
			e.VPBLENDVB(m, q, r, r)
			e.VPACKUSDW(r, r, r)
			e.VPERMQ(operand.Imm(0x08), r, r)
			e.VMOVDQU(r.AsX(), at(dst, 0))
		}
		e.add(e.bytes(), x)
		e.add(e.bytes()/2, dst)
	})
	e.ret()
}

func (e *emitter) fromBFloat16() {
	e.function("fromBFloat16", "func(dst *float32, x *uint16, n int)", "widens n numbers of BF16. n is a multiple of a vector's lanes.")
	dst, x, n := e.arg("dst"), e.arg("x"), e.arg("n")
	e.while(n, e.lanes, func() {
		e.VPMOVZXWD(at(x, 0), e.regs[0])
		e.VPSLLD(operand.Imm(16), e.regs[0], e.regs[0])
		e.VMOVUPS(e.regs[0], at(dst, 0))
		e.add(e.bytes()/2, x)
		e.add(e.bytes(), dst)
	})
	e.ret()
}
