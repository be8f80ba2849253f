package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// digits is the number of signed bytes that a number of a fixed row is made of.
const digits = 4

// fixed emits products of one row and panels of codes by VPDPBUSD, the row cut into bytes: numbers in fixed point, each block of 32
// with a power of two of its own.
func (e *emitter) fixed() {
	if !e.wide() {
		return
	}
	e.fixRow()
	for _, bits := range []int{8, 4} {
		for _, panels := range []int{4, 1} {
			e.fixedVector(bits, panels)
		}
	}
}

// fixRow emits the cutting of a row.
func (e *emitter) fixRow() {
	e.function("fixRow", "func(dst *int8, x *float32, blocks int, scales *float32, sums *int32, factor int32) uint32",
		"cuts blocks of 32 numbers into digits: with the largest magnitude of block b in [2ᴱ, 2ᴱ⁺¹), at least 2⁻⁹⁷, and t = 29 − E,",
		"round(2ᵗ·x[32b+i]) = Σ_l 2⁸ˡ·d(l), −128 ≤ d(l) < 128, d(l) at dst[128b+16(i/4)+4l+i%4]. scales[2b] = 2⁻ᵗ, scales[2b+1] = 2¹⁶⁻ᵗ,",
		"sums[4b+l] = factor·Σ_i d(l). It returns the bits of the largest magnitude, beyond those of the largest number if x is not finite.",
		"blocks ≥ 0.")
	dst, x, blocks, scales, sums := e.arg("dst"), e.arg("x"), e.arg("blocks"), e.arg("scales"), e.arg("sums")
	v, t := e.regs[0:2], e.regs[2:4]
	abs, all, least, up, down, down16 := e.regs[8], e.regs[9], e.regs[10], e.regs[11], e.regs[12], e.regs[13]
	bias, turn, ones, factor, sum := e.regs[14], e.regs[15], e.regs[16], e.regs[17], e.regs[4]
	e.splat(0x7fffffff, abs)
	e.splat(30<<23, least)
	e.splat((283<<23)&0xffffffff, up)
	e.splat(29<<23, down)
	e.splat(13<<23, down16)
	e.splat(0x00808080, bias)
	e.splat(0x01010101, ones)
	e.VBROADCASTI32X4(e.words("digits", 0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703), turn)
	e.VPBROADCASTD(e.Load(e.Param("factor"), e.GP32()), factor)
	e.zero(all)
	e.while(blocks, 1, func() {
		for i := range v {
			e.VMOVUPS(at(x, 64*i), v[i])
			e.and(v[i], abs, t[i])
		}
		e.VPMAXSD(t[1], t[0], t[0])
		e.spreadMax(t[0], t[1])
		e.VPMAXSD(t[0], all, all)
		e.VPSRLD(operand.Imm(23), t[0], t[0])
		e.VPSLLD(operand.Imm(23), t[0], t[0])
		e.VPMAXSD(least, t[0], t[0])
		e.VPSUBD(down, t[0], t[1])
		e.VMOVD(t[1].AsX(), at(scales, 0))
		e.VPSUBD(down16, t[0], t[1])
		e.VMOVD(t[1].AsX(), at(scales, 4))
		e.VPSUBD(t[0], up, t[1])
		e.zero(sum)
		for i := range v {
			e.VMULPS(t[1], v[i], v[i])
			e.VCVTPS2DQ(v[i], v[i])
			e.VPADDD(bias, v[i], v[i])
			e.VPXORD(bias, v[i], v[i])
			e.VPSHUFB(turn, v[i], v[i])
			e.VMOVDQU32(v[i], at(dst, 64*i))
			e.VPDPBUSD(v[i], ones, sum)
		}
		e.VEXTRACTI64X4(operand.Imm(1), sum, t[0].AsY())
		e.VPADDD(t[0].AsY(), sum.AsY(), sum.AsY())
		e.VEXTRACTI128(operand.Imm(1), sum.AsY(), t[0].AsX())
		e.VPADDD(t[0].AsX(), sum.AsX(), sum.AsX())
		e.VPMULLD(factor.AsX(), sum.AsX(), sum.AsX())
		e.VMOVDQU(sum.AsX(), at(sums, 0))
		e.add(128, x)
		e.add(128, dst)
		e.add(8, scales)
		e.add(16, sums)
	})
	e.spreadMax(all, t[0])
	largest := e.GP32()
	e.VMOVD(all.AsX(), largest)
	e.Store(largest, e.ReturnIndex(0))
	e.ret()
}

// spreadMax sets every lane of v to the largest of its integers; t is overwritten.
func (e *emitter) spreadMax(v, t reg.VecPhysical) {
	for _, order := range []uint64{0x4e, 0xb1} {
		e.VSHUFI64X2(operand.Imm(order), v, v, t)
		e.VPMAXSD(t, v, v)
	}
	for _, order := range []uint64{0x4e, 0xb1} {
		e.VPSHUFD(operand.Imm(order), v, t)
		e.VPMAXSD(t, v, v)
	}
}

// fixedVector emits a product.
func (e *emitter) fixedVector(bits, panels int) {
	rows := 32 / bits
	e.function(fmt.Sprintf("fixed%dx%d", bits, panels),
		"func(x *int8, scales *float32, sums *int32, codes *uint8, panel, steps, per int, s *float32, lds int, z *uint8, ldz int, y *float32)",
		fmt.Sprintf("computes y[j] = Σ_g s(g, j)·Σ_p x[p]·(code(p, j) − z(g, j)) for j < %d, p over the %d rows of each of the steps of group g,", 16*panels, rows),
		"per steps, whole blocks, in each group but the last. x is a row of digits with its scales and sums (fixRow): −1 times sums with z,",
		"sums of x times the zero point that is subtracted without. panel, the distance between panels of 16 columns, and lds are in bytes.",
		"steps ≥ 1.")
	const blockRows = 32
	acc := func(l, o int) reg.VecPhysical { return e.regs[l*panels+o] }
	rest := e.regs[digits*panels:]
	inner, total, b, rest := rest[:panels], rest[panels:2*panels], rest[2*panels:3*panels], rest[3*panels:]
	low, d := rest[0], rest[1:]
	if bits == 4 {
		e.splat(0x0f0f0f0f, low)
	} else {
		d = rest
	}
	d = d[:min(len(d), digits)]
	x, scales, sums, codes := e.arg("x"), e.arg("scales"), e.arg("sums"), e.arg("codes")
	panel, codes3 := e.arg("panel"), e.GP64()
	if panels > 1 {
		e.triple(codes, panel, codes3)
	}
	s, z, left := e.arg("s"), e.arg("z"), e.arg("steps")
	for o := range panels {
		e.zero(total[o])
	}
	group, block, single, ready := e.label("group"), e.label("block"), e.label("single"), e.label("ready")
	e.Label(group)
	n, turn := e.GP64(), e.GP64()
	e.MOVQ(left, n)
	e.CMPQ(n, e.slot("per"))
	e.CMOVQGT(e.slot("per"), n)
	e.SUBQ(n, left)
	for o := range panels {
		e.PREFETCHT0(at(s, 64*(panels+o)))
		e.zero(inner[o])
	}

	e.Label(block)
	e.Comment("sums begin with those of the zero points")
	e.TESTQ(z, z)
	e.JZ(operand.LabelRef(single))
	for o := range panels {
		e.VPMOVZXBD(at(z, 16*o), b[o])
		for l := range digits {
			e.VPMULLD_BCST(at(sums, 4*l), b[o], acc(l, o))
		}
	}
	e.JMP(operand.LabelRef(ready))
	e.Label(single)
	for l := range digits {
		e.VPBROADCASTD(at(sums, 4*l), acc(l, 0))
		for o := 1; o < panels; o++ {
			e.VMOVDQA64(acc(l, 0), acc(l, o))
		}
	}
	e.Label(ready)
	e.MOVQ(operand.U32(uint64(blockRows/rows)), turn)
	e.CMPQ(turn, n)
	e.CMOVQGT(n, turn)
	e.SUBQ(turn, n)
	products := func(word int) {
		for l := range digits {
			v := d[l%len(d)]
			e.VPBROADCASTD(at(x, 4*digits*word+4*l), v)
			for o := range panels {
				e.VPDPBUSD(v, b[o], acc(l, o))
			}
		}
	}
	e.while(turn, 1, func() {
		code := func(o int) operand.Mem { return row(codes, codes3, panel, o, 0) }
		if bits == 8 {
			for o := range panels {
				e.get(code(o), b[o])
			}
			products(0)
		} else {
			for o := range panels {
				e.VPANDD(code(o), low, b[o])
			}
			products(0)
			for o := range panels {
				e.VPSRLD(operand.Imm(4), code(o), b[o])
				e.VPANDD(low, b[o], b[o])
			}
			products(1)
		}
		e.add(4*digits*8/bits, x)
		e.add(64, codes)
		if panels > 1 {
			e.add(64, codes3)
		}
	})
	e.Comment("pairs of digits fit into 32 bits")
	for o := range panels {
		for l := 1; l < digits; l += 2 {
			e.VPSLLD(operand.Imm(8), acc(l, o), acc(l, o))
			e.VPADDD(acc(l-1, o), acc(l, o), acc(l, o))
			e.VCVTDQ2PS(acc(l, o), acc(l, o))
			e.VFMADD231PS_BCST(at(scales, 4*(l/2)), acc(l, o), inner[o])
		}
	}
	e.add(8, scales)
	e.add(16, sums)
	e.TESTQ(n, n)
	e.JNZ(operand.LabelRef(block))

	for o := range panels {
		e.VFMADD231PS(at(s, 64*o), inner[o], total[o])
	}
	e.ADDQ(e.slot("lds"), s)
	e.ADDQ(e.slot("ldz"), z)
	e.TESTQ(left, left)
	e.JNZ(operand.LabelRef(group))
	y := e.arg("y")
	for o := range panels {
		e.VMOVUPS(total[o], at(y, 64*o))
	}
	e.ret()
}
