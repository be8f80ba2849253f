package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// panels emits the turning of codes into float32: sixteen columns of a panel, row by row.
func (e *emitter) panels() {
	e.panelCodes(8)
	e.panelCodes(4)
	e.panelFloat16()
	e.panelBFloat16()
}

// magic is 2²³ as a float32: with a small integer in its low bits it is 2²³ plus that integer.
const magic = 0x4b000000

// codeReader turns words, each the codes of one column in consecutive rows, into floats: code − zero point, exactly.
type codeReader struct {
	*emitter
	bits  int
	pick  [4]reg.VecPhysical // shuffles that move byte t of every word to its bottom and clear the rest
	magic reg.VecPhysical
	low   operand.Mem // of the low nibbles
}

// newCodeReader takes five registers for constants.
func (e *emitter) newCodeReader(bits int, regs []reg.VecPhysical) codeReader {
	c := codeReader{emitter: e, bits: bits, pick: [4]reg.VecPhysical(regs), magic: regs[4]}
	for t := range uint32(4) {
		var words [4]uint32
		for i := range words {
			words[i] = 0x80808000 | 4*uint32(i) + t
		}
		m := e.words("pick"+string(rune('0'+t)), words[:]...)
		if e.wide() {
			e.VBROADCASTI32X4(m, c.pick[t])
		} else {
			e.VBROADCASTI128(m, c.pick[t])
		}
	}
	e.splat(magic, c.magic)
	c.low = e.whole(0x0f0f0f0f)
	return c
}

// zeroPoints loads the zero points of a vector of columns into dst as 2²³+z.
func (c codeReader) zeroPoints(m operand.Mem, dst reg.Register) {
	c.VPMOVZXBD(m, dst)
	c.or(dst, c.magic, dst)
}

// rows is the number of rows that a word holds.
func (c codeReader) rows() int { return 32 / c.bits }

// part reads words into v, one of the nibbles of each byte if codes have 4 bits.
func (c codeReader) part(m operand.Mem, part int, v reg.Register) {
	c.get(m, v)
	if part == 1 {
		c.VPSRLD(operand.Imm(4), v, v)
	}
	if c.bits == 4 {
		c.and(c.low, v, v)
	}
}

// value sets t to code − zero point for byte b of the words in v.
func (c codeReader) value(b int, z, v, t reg.Register) {
	c.VPSHUFB(c.pick[b], v, t)
	c.or(t, c.magic, t)
	c.VSUBPS(z, t, t)
}

// each reads words and calls use for each row that they hold, with the row and t = code − zero point. v and t are overwritten.
func (c codeReader) each(m operand.Mem, z, v, t reg.VecPhysical, use func(p int)) {
	for part := range 8 / c.bits {
		c.part(m, part, v)
		for b := range 4 {
			c.value(b, z, v, t)
			use(4*part + b)
		}
	}
}

func (e *emitter) panelCodes(bits int) {
	name := "panelCodes" + string(rune('0'+bits))
	rows := 32 / bits
	e.function(name, "func(dst *float32, ldd int, codes *uint8, steps int, s *float32, z *uint8)",
		"computes dst[p·ldd+j] = s[j]·(code(p, j) − z[j]) for j < 16, p < "+string(rune('0'+rows))+"·steps.",
		"The 64 bytes of a step are 16 words, one a column. ldd is in bytes. steps ≥ 0.")
	dst, ldd, codes, steps, s, z := e.arg("dst"), e.arg("ldd"), e.arg("codes"), e.arg("steps"), e.arg("s"), e.arg("z")
	dst3 := e.GP64()
	c := e.newCodeReader(bits, e.regs[:5])
	v, t := e.regs[5], e.regs[6]
	zero, scale := e.regs[7:9], e.regs[9:11]
	for h := range e.perPanel() {
		c.zeroPoints(at(z, h*e.lanes), zero[h])
		e.VMOVUPS(at(s, h*e.bytes()), scale[h])
	}
	e.triple(dst, ldd, dst3)
	dst4 := e.GP64()
	e.LEAQ(operand.Mem{Base: dst, Index: ldd, Scale: 4}, dst4)
	dst7 := e.GP64()
	e.triple(dst4, ldd, dst7)
	e.while(steps, 1, func() {
		for h := range e.perPanel() {
			c.each(at(codes, h*e.bytes()), zero[h], v, t, func(p int) {
				e.VMULPS(scale[h], t, t)
				to, to3 := dst, dst3
				if p >= 4 {
					to, to3 = dst4, dst7
				}
				e.VMOVUPS(t, row(to, to3, ldd, p%4, h*e.bytes()))
			})
		}
		e.add(64, codes)
		for _, p := range []reg.Register{dst, dst3, dst4, dst7}[:rows/2] {
			e.LEAQ(operand.Mem{Base: p, Index: ldd, Scale: uint8(rows)}, p)
		}
	})
	e.ret()
}

func (e *emitter) panelFloat16() {
	e.function("panelFloat16", "func(dst *float32, ldd int, codes *uint16, rows int)",
		"widens rows of 16 numbers of FP16: dst[p·ldd+j] = codes[16p+j]. ldd is in bytes. rows ≥ 0.")
	dst, ldd, codes, rows := e.arg("dst"), e.arg("ldd"), e.arg("codes"), e.arg("rows")
	e.while(rows, 1, func() {
		for h := range e.perPanel() {
			e.VCVTPH2PS(at(codes, h*e.bytes()/2), e.regs[h])
			e.VMOVUPS(e.regs[h], at(dst, h*e.bytes()))
		}
		e.add(32, codes)
		e.ADDQ(ldd, dst)
	})
	e.ret()
}

func (e *emitter) panelBFloat16() {
	e.function("panelBFloat16", "func(dst *float32, ldd int, codes *uint16, steps int)",
		"widens pairs of rows of 16 numbers of BF16: dst[(2p+i)·ldd+j] = codes[32p+2j+i]. ldd is in bytes. steps ≥ 0.")
	dst, ldd, codes, steps := e.arg("dst"), e.arg("ldd"), e.arg("codes"), e.arg("steps")
	mask := e.regs[4]
	e.splat(0xffff0000, mask)
	e.while(steps, 1, func() {
		for h := range e.perPanel() {
			v, t := e.regs[2*h], e.regs[2*h+1]
			e.get(at(codes, h*e.bytes()), v)
			e.VPSLLD(operand.Imm(16), v, t)
			e.and(mask, v, v)
			e.VMOVUPS(t, at(dst, h*e.bytes()))
			e.VMOVUPS(v, row(dst, nil, ldd, 1, h*e.bytes()))
		}
		e.add(64, codes)
		e.LEAQ(operand.Mem{Base: dst, Index: ldd, Scale: 2}, dst)
	})
	e.ret()
}
