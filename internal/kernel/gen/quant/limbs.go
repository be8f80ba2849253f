package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// limbs emits what makes operands of products in tiles: numbers cut into pieces of BF16, whose sum they are, and codes in the order
// of pairs or of bytes.
func (e *emitter) limbs() {
	if !e.wide() {
		return
	}
	e.splitRow()
	e.splitFloat16()
	e.pairCodes(8)
	e.pairCodes(4)
	e.unpackCodes4()
}

// upper splits v: dst becomes the part of it that is a BF16, v the rest, exactly, or 0 where v is not finite; a NaN keeps a bit.
func (e *emitter) upper(v, dst, t reg.VecPhysical, mask, abs, inf, quiet reg.Register, finite, nan reg.OpmaskVirtual) {
	e.and(v, abs, t)
	e.VCMPPS(operand.Imm(1), inf, t, finite)
	e.VCMPPS(operand.Imm(3), v, v, nan)
	e.and(v, mask, dst)
	e.VPORD(quiet, dst, nan, dst)
	e.VSUBPS_Z(dst, v, finite, v)
}

// splitConstants are the registers that upper wants: the upper half, everything but the sign, +Inf, a bit that NaNs have.
func (e *emitter) splitConstants(regs []reg.VecPhysical) (mask, abs, inf, quiet reg.VecPhysical) {
	for i, w := range []uint32{0xffff0000, 0x7fffffff, 0x7f800000, 0x00400000} {
		e.splat(w, regs[i])
	}
	return regs[0], regs[1], regs[2], regs[3]
}

// splitRow emits the cutting of activations.
func (e *emitter) splitRow() {
	e.function("splitRow", "func(dst *uint16, x *float32, blocks int)",
		"cuts numbers into three of BF16 that add up to them: of block b of 32 numbers, piece l goes to dst[96b+32l:]. Of what is not",
		"finite the first piece is the number, the others are 0. blocks ≥ 0.")
	dst, x, blocks := e.arg("dst"), e.arg("x"), e.arg("blocks")
	mask, abs, inf, quiet := e.splitConstants(e.regs[8:])
	finite, nan := e.K(), e.K()
	e.while(blocks, 1, func() {
		for h := range 2 {
			v, t := e.regs[0], e.regs[4]
			e.VMOVUPS(at(x, 64*h), v)
			e.upper(v, e.regs[1], t, mask, abs, inf, quiet, finite, nan)
			e.and(v, mask, e.regs[2])
			e.VSUBPS(e.regs[2], v, e.regs[3])
			for l, piece := range e.regs[1:4] {
				e.VPSRLD(operand.Imm(16), piece, piece)
				e.VPMOVDW(piece, at(dst, 64*l+32*h))
			}
		}
		e.add(128, x)
		e.add(192, dst)
	})
	e.ret()
}

// splitFloat16 emits the cutting of FP16.
func (e *emitter) splitFloat16() {
	e.function("splitFloat16", "func(dst *uint16, codes *uint16, tiles int)",
		"cuts numbers of FP16 into two of BF16 that add up to them: of tile t of 32 rows of 16 columns, codes[512t+16p+j], piece l goes to",
		"dst[1024t+512l+p/2·32+2j+p%2]. Of what is not finite the first piece is the number, the second 0. tiles ≥ 0.")
	dst, codes, tiles := e.arg("dst"), e.arg("codes"), e.arg("tiles")
	mask, abs, inf, quiet := e.splitConstants(e.regs[8:])
	finite, nan := e.K(), e.K()
	lines := e.GP64()
	e.while(tiles, 1, func() {
		e.MOVQ(operand.U32(16), lines)
		e.while(lines, 1, func() {
			v, first, t := e.regs[0:2], e.regs[2:4], e.regs[4]
			for i := range v {
				e.VCVTPH2PS(at(codes, 32*i), v[i])
				e.upper(v[i], first[i], t, mask, abs, inf, quiet, finite, nan)
			}
			for l, pair := range [][]reg.VecPhysical{first, v} {
				e.VPSRLD(operand.Imm(16), pair[0], pair[0])
				e.VPORD(pair[0], pair[1], pair[1])
				e.VMOVDQU32(pair[1], at(dst, 1024*l))
			}
			e.add(64, codes)
			e.add(64, dst)
		})
		e.add(1024, dst)
	})
	e.ret()
}

// pairCodes emits the widening of codes to BF16.
func (e *emitter) pairCodes(bits int) {
	rows := string(rune('0' + 32/bits))
	e.function("pairCodes"+string(rune('0'+bits)), "func(dst *uint16, codes *uint8, steps int, z *uint8)",
		"computes dst[p/2·32+2j+p%2] = code(p, j) − z[j] in BF16, exactly, for j < 16, p < "+rows+"·steps. steps ≥ 0.")
	dst, codes, steps, z := e.arg("dst"), e.arg("codes"), e.arg("steps"), e.arg("z")
	c := e.newCodeReader(bits, e.regs[:5])
	v, zero, pair := e.regs[5], e.regs[6], e.regs[7:9]
	c.zeroPoints(at(z, 0), zero)
	e.while(steps, 1, func() {
		for part := range 8 / bits {
			c.part(at(codes, 0), part, v)
			for b := range 4 {
				c.value(b, zero, v, pair[b%2])
				if b%2 == 1 {
					e.VPSRLD(operand.Imm(16), pair[0], pair[0])
					e.VPORD(pair[0], pair[1], pair[1])
					e.VMOVDQU32(pair[1], at(dst, 128*part+64*(b/2)))
				}
			}
		}
		e.add(64, codes)
		e.add(128*8/bits, dst)
	})
	e.ret()
}

// unpackCodes4 emits the unpacking of nibbles.
func (e *emitter) unpackCodes4() {
	e.function("unpackCodes4", "func(dst *uint8, codes *uint8, steps int)",
		"unpacks codes of 4 bits to bytes: step i becomes steps 2i, its low nibbles, and 2i+1 of codes of 8 bits. steps ≥ 0.")
	dst, codes, steps := e.arg("dst"), e.arg("codes"), e.arg("steps")
	low, v := e.regs[0], e.regs[1:3]
	e.splat(0x0f0f0f0f, low)
	e.while(steps, 1, func() {
		e.get(at(codes, 0), v[1])
		e.and(v[1], low, v[0])
		e.VPSRLD(operand.Imm(4), v[1], v[1])
		e.and(v[1], low, v[1])
		e.put(v[0], at(dst, 0))
		e.put(v[1], at(dst, 64))
		e.add(64, codes)
		e.add(128, dst)
	})
	e.ret()
}
