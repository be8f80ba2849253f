package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// digits is the number of signed bytes that a number of a fixed row is made of.
const digits = 4

// fixedAhead is the number of steps by which codes are asked for ahead: what the processor's own prefetching misses, the beginnings
// of panels and of pages.
const fixedAhead = 16

// fixed emits products of one row and panels of codes by VPDPBUSD. The row is cut into bytes: one for each number if it has been
// rounded so, or four digits of it in fixed point, each block of 32 with a power of two of its own.
func (e *emitter) fixed() {
	if !e.wide() {
		return
	}
	e.fixRow(8)
	e.fixRow(4)
	for _, bits := range []int{8, 4} {
		for _, panels := range []int{4, 1} {
			(&fixedVector{emitter: e, bits: bits, panels: panels, digits: digits}).emit()
			(&fixedVector{emitter: e, bits: bits, panels: panels, digits: 1}).emit()
		}
	}
}

// fixRow emits the cutting of a row. Codes of 4 bits are multiplied as they lie: four rows by the low nibbles, lo, and four by whole
// bytes, 16·hi + lo. With q' = 16·q(lo) − q(hi) in place of q(lo) for the former that comes to 16 times what is wanted.
func (e *emitter) fixRow(bits int) {
	doc := []string{
		"cuts blocks of 32 numbers into digits: with the largest magnitude of block b in [2ᴱ, 2ᴱ⁺¹), at least 2⁻⁹⁷, and t = 29 − E,",
		"q(i) = round(2ᵗ·x[32b+i]) = Σ_l 2⁸ˡ·d(l), −128 ≤ d(l) < 128, d(l) at dst[128b+16(i/4)+4l+i%4]. scales[2b] = 2⁻ᵗ, scales[2b+1] = 2¹⁶⁻ᵗ,",
		"sums[4b+l] = factor·Σ_i d(l). It returns the bits of the largest magnitude, beyond those of the largest number if x is not finite.",
		"blocks ≥ 0.",
	}
	if bits == 4 {
		doc[0] = "is fixRow8 for codes of 4 bits, with t = 25 − E and the digits of 16·q(i) − q(i+4) in place of q(i) where i%8 < 4,"
		doc[1] = "scales[2b] = 2⁻ᵗ⁻⁴, scales[2b+1] = 2¹²⁻ᵗ, and sums of d(l) where i%8 < 4 and of 17·d(l) elsewhere."
		doc = append(doc[:2], doc[3])
	}
	e.function(fmt.Sprintf("fixRow%d", bits), "func(dst *int8, x *float32, blocks int, scales *float32, sums *int32, factor int32) uint32", doc...)
	dst, x, blocks, scales, sums := e.arg("dst"), e.arg("x"), e.arg("blocks"), e.arg("scales"), e.arg("sums")
	v, t := e.regs[0:2], e.regs[2:4]
	abs, all, least, up, down, down16 := e.regs[8], e.regs[9], e.regs[10], e.regs[11], e.regs[12], e.regs[13]
	bias, turn, ones, factor, sum := e.regs[14], e.regs[15], e.regs[16], e.regs[17], e.regs[4]
	e.splat(0x7fffffff, abs)
	e.splat(30<<23, least)
	lower := e.K()
	if bits == 4 {
		e.splat((279<<23)&0xffffffff, up)
		mask := e.GP32()
		e.MOVL(operand.U32(0x0f0f), mask)
		e.KMOVW(mask, lower)
	} else {
		e.splat((283<<23)&0xffffffff, up)
	}
	e.splat(29<<23, down)
	e.splat(13<<23, down16)
	e.splat(0x00808080, bias)
	if bits == 4 {
		e.VBROADCASTI64X4(e.words("weights4", 0x01010101, 0x01010101, 0x01010101, 0x01010101, 0x11111111, 0x11111111, 0x11111111, 0x11111111), ones)
	} else {
		e.splat(0x01010101, ones)
	}
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
		factors := e.regs[5]
		e.VPSUBD(t[0], up, factors)
		e.zero(sum)
		for i := range v {
			e.VMULPS(factors, v[i], v[i])
			e.VCVTPS2DQ(v[i], v[i])
			if bits == 4 {
				e.VSHUFI64X2(operand.Imm(0xb1), v[i], v[i], t[0])
				e.VPSLLD(operand.Imm(4), v[i], t[1])
				e.VPSUBD(t[0], t[1], lower, v[i])
			}
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

// fixedVector is a product under construction.
type fixedVector struct {
	*emitter
	bits, panels, digits int

	acc, inner, total, b, d []reg.VecPhysical
	low                     reg.VecPhysical

	x, scales, sums, codes, codes3, panel, s, z reg.GPVirtual
	near, ahead, ahead3                         reg.GPVirtual
}

// rows is the number of rows of a step, blockSteps that of steps in a block.
func (f *fixedVector) rows() int       { return 32 / f.bits }
func (f *fixedVector) blockSteps() int { return f.bits }

// sum is the register of a digit's sums of a panel.
func (f *fixedVector) sum(digit, o int) reg.VecPhysical { return f.acc[digit*f.panels+o] }

// emit emits one function. Only four panels at once are asked for ahead: others are a matrix's last.
func (f *fixedVector) emit() {
	f.header()
	f.registers()
	left, n, turn := f.arg("steps"), f.GP64(), f.GP64()
	for o := range f.panels {
		f.zero(f.total[o])
	}
	group, block := f.label("group"), f.label("block")
	f.Label(group)
	f.MOVQ(left, n)
	f.CMPQ(n, f.slot("per"))
	f.CMOVQGT(f.slot("per"), n)
	f.SUBQ(n, left)
	f.nextScales()
	if f.digits == 1 {
		f.begin()
	} else {
		for o := range f.panels {
			f.zero(f.inner[o])
		}
	}
	f.Label(block)
	if f.digits > 1 {
		f.begin()
	}
	f.MOVQ(operand.U32(uint64(f.blockSteps())), turn)
	f.CMPQ(turn, n)
	f.CMOVQGT(n, turn)
	f.SUBQ(turn, n)
	f.while(turn, 1, f.step)
	f.nextStrip(turn)
	if f.digits > 1 {
		f.endBlock()
	}
	f.TESTQ(n, n)
	f.JNZ(operand.LabelRef(block))
	for o := range f.panels {
		if f.digits == 1 {
			f.VCVTDQ2PS(f.sum(0, o), f.sum(0, o))
			f.VFMADD231PS(at(f.s, 64*o), f.sum(0, o), f.total[o])
		} else {
			f.VFMADD231PS(at(f.s, 64*o), f.inner[o], f.total[o])
		}
	}
	if f.digits == 1 {
		f.add(4, f.sums)
	}
	f.ADDQ(f.slot("lds"), f.s)
	f.ADDQ(f.slot("ldz"), f.z)
	f.TESTQ(left, left)
	f.JNZ(operand.LabelRef(group))
	y := f.arg("y")
	for o := range f.panels {
		if f.digits == 1 {
			f.VMULPS_BCST(at(f.scales, 0), f.total[o], f.total[o])
		}
		f.VMOVUPS(f.total[o], at(y, 64*o))
	}
	f.ret()
}

func (f *fixedVector) header() {
	name, sum := "fixed", fmt.Sprintf("computes y[j] = Σ_g s(g, j)·Σ_p x[p]·(code(p, j) − z(g, j)) for j < %d, p over the %d rows of each of the steps of group g,", 16*f.panels, f.rows())
	row := fmt.Sprintf("per steps, whole blocks, in each group but the last. x is a row of digits, with scales and sums (fixRow%d): its sums −1 times those of", f.bits)
	row2 := "digits, or without z times the zero point."
	if f.digits == 1 {
		name, sum = "rounded", fmt.Sprintf("computes y[j] = scales[0]·Σ_g s(g, j)·(Σ_p x[p]·code(p, j) + z(g, j)·sums[g]) for j < %d, p over the %d rows of each of the steps", 16*f.panels, f.rows())
		row, row2 = "of group g, per steps, whole blocks of 32 rows, in each group but the last.", "Without z it takes sums as they are."
	}
	f.function(fmt.Sprintf("%s%dx%d", name, f.bits, f.panels),
		"func(x *int8, scales *float32, sums *int32, codes *uint8, panel, steps, per int, s *float32, lds int, z *uint8, ldz int, y *float32, near uintptr, until, back, blocks int)",
		sum, row, row2+" panel, the distance between panels of 16 columns, lds and back are in bytes.",
		"What is asked for ahead: scales from near on, lds apart, back further after until groups; codes, those of the next panels after",
		"blocks blocks. steps ≥ 1.")
}

// registers are 16 of sums and 4 each of two totals, codes and digits, where there are four panels of four digits.
func (f *fixedVector) registers() {
	rest := f.regs
	take := func(n int) []reg.VecPhysical {
		r := rest[:n]
		rest = rest[n:]
		return r
	}
	f.acc, f.total, f.b = take(f.digits*f.panels), take(f.panels), take(f.panels)
	if f.digits > 1 {
		f.inner = take(f.panels)
	}
	if f.bits == 4 {
		f.low = take(1)[0]
		f.splat(0x0f0f0f0f, f.low)
	}
	f.d = take(min(len(rest), f.digits))
	f.x, f.scales, f.sums, f.codes = f.arg("x"), f.arg("scales"), f.arg("sums"), f.arg("codes")
	f.s, f.z = f.arg("s"), f.arg("z")
	if f.panels == 1 {
		return
	}
	f.panel, f.near = f.arg("panel"), f.arg("near")
	f.codes3, f.ahead, f.ahead3 = f.GP64(), f.GP64(), f.GP64()
	f.triple(f.codes, f.panel, f.codes3)
	f.LEAQ(at(f.codes, 64*fixedAhead), f.ahead)
	f.LEAQ(at(f.codes3, 64*fixedAhead), f.ahead3)
}

// begin sets sums to what the zero points contribute.
func (f *fixedVector) begin() {
	single, ready := f.label("single"), f.label("ready")
	f.TESTQ(f.z, f.z)
	f.JZ(operand.LabelRef(single))
	for o := range f.panels {
		f.VPMOVZXBD(at(f.z, 16*o), f.b[o])
		for l := range f.digits {
			f.VPMULLD_BCST(at(f.sums, 4*l), f.b[o], f.sum(l, o))
		}
	}
	f.JMP(operand.LabelRef(ready))
	f.Label(single)
	for l := range f.digits {
		f.VPBROADCASTD(at(f.sums, 4*l), f.sum(l, 0))
		for o := 1; o < f.panels; o++ {
			f.VMOVDQA64(f.sum(l, 0), f.sum(l, o))
		}
	}
	f.Label(ready)
}

// step adds the products of a step's codes.
func (f *fixedVector) step() {
	code := func(o int) operand.Mem { return row(f.codes, f.codes3, f.panel, o, 0) }
	if f.panels > 1 {
		for o := range f.panels {
			f.PREFETCHT0(row(f.ahead, f.ahead3, f.panel, o, 0))
		}
	}
	products := func(word int) {
		for l := range f.digits {
			v := f.d[l%len(f.d)]
			f.VPBROADCASTD(at(f.x, 4*f.digits*word+4*l), v)
			for o := range f.panels {
				f.VPDPBUSD(v, f.b[o], f.sum(l, o))
			}
		}
	}
	if f.bits == 8 {
		for o := range f.panels {
			f.get(code(o), f.b[o])
		}
		products(0)
	} else {
		for o := range f.panels {
			f.VPANDD(code(o), f.low, f.b[o])
		}
		products(0)
		for o := range f.panels {
			if f.digits > 1 { // whole bytes: see fixRow
				f.get(code(o), f.b[o])
				continue
			}
			f.VPSRLD(operand.Imm(4), code(o), f.b[o])
			f.VPANDD(f.low, f.b[o], f.b[o])
		}
		products(1)
	}
	f.add(f.digits*f.rows(), f.x)
	f.add(64, f.codes)
	if f.panels > 1 {
		f.add(64, f.codes3)
		f.add(64, f.ahead)
		f.add(64, f.ahead3)
	}
}

// endBlock adds a block's sums. Two digits together fit into 32 bits.
func (f *fixedVector) endBlock() {
	for o := range f.panels {
		for l := 1; l < f.digits; l += 2 {
			v := f.sum(l, o)
			f.VPSLLD(operand.Imm(8), v, v)
			f.VPADDD(f.sum(l-1, o), v, v)
			f.VCVTDQ2PS(v, v)
			f.VFMADD231PS_BCST(at(f.scales, 4*(l/2)), v, f.inner[o])
		}
	}
	f.add(8, f.scales)
	f.add(4*f.digits, f.sums)
}

// nextScales asks for the scales of a group to come.
func (f *fixedVector) nextScales() {
	if f.panels == 1 {
		return
	}
	for o := range f.panels {
		f.PREFETCHT0(at(f.near, 64*o))
	}
	f.ADDQ(f.slot("lds"), f.near)
	f.countdown("until", func() { f.ADDQ(f.slot("back"), f.near) })
}

// nextStrip goes on with the panels to come where those at hand have been asked for.
func (f *fixedVector) nextStrip(t reg.Register) {
	if f.panels == 1 {
		return
	}
	f.countdown("blocks", func() {
		f.LEAQ(operand.Mem{Base: f.panel, Index: f.panel, Scale: 2}, t)
		f.ADDQ(t, f.ahead)
		f.ADDQ(t, f.ahead3)
	})
}

// countdown runs body once, when the slot comes to 0.
func (f *fixedVector) countdown(slot string, body func()) {
	not := f.label("not")
	f.DECQ(f.slot(slot))
	f.JNZ(operand.LabelRef(not))
	body()
	f.Label(not)
}
