package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// cut splits v into pieces: dst[0] and dst[1] its first 8 bits and the next 8, v the last 8.
func (e *emitter) cut(v reg.VecPhysical, dst []reg.VecPhysical, upper reg.Register) {
	for _, d := range dst {
		e.VPANDD(upper, v, d)
		e.VSUBPS(d, v, v)
	}
}

// pair moves the upper halves of lo to the lower halves of hi, whose own are zeros.
func (e *emitter) pair(lo, hi reg.VecPhysical) {
	e.VPSRLD(operand.Imm(16), lo, lo)
	e.VPORD(lo, hi, hi)
}

// split emits the packing of operands.
func (e *emitter) split() {
	e.function("attnBackSplitAVX512", "func(dst *uint16, src *float32, line, second, step, tiles int) uint32",
		"cuts tiles of 16 lines of 32 numbers into pieces. Line t of tile n is the 16 numbers at src + n·step + t·line and the 16 at second",
		"more, all distances in bytes; the numbers at place p of the two become words 2p and 2p+1 of line t of each piece's tile. It",
		"returns the bits of the largest absolute value. tiles ≥ 0.")
	dst, src, ld, second, step, n := e.arg("dst"), e.arg("src"), e.arg("line"), e.arg("second"), e.arg("step"), e.arg("tiles")
	upper, abs, most := z[29], z[30], z[31]
	e.splat(0xffff0000, upper)
	e.splat(0x7fffffff, abs)
	e.VPXORD(most, most, most)
	e.times(n, func() {
		at0, at1, left := e.GP64(), e.GP64(), e.GP64()
		e.MOVQ(src, at0)
		e.LEAQ(operand.Mem{Base: src, Index: second, Scale: 1}, at1)
		e.MOVQ(operand.U32(8), left)
		e.times(left, func() {
			for l := range 2 {
				v := z[8*l : 8*l+2]
				e.VMOVUPS(at(at0, 0), v[0])
				e.VMOVUPS(at(at1, 0), v[1])
				e.ADDQ(ld, at0)
				e.ADDQ(ld, at1)
				p := [][]reg.VecPhysical{z[8*l+2 : 8*l+4], z[8*l+4 : 8*l+6]}
				for h := range v {
					t := z[8*l+6+h]
					e.VPANDD(abs, v[h], t)
					e.VPMAXUD(t, most, most)
					e.cut(v[h], p[h], upper)
				}
				e.store(p[0], p[1], v, dst, line*l)
			}
			e.add(2*line, dst)
		})
		e.add((pieces-1)*tileBytes, dst)
		e.ADDQ(step, src)
	})
	e.VEXTRACTI64X4(operand.Imm(1), most, z[0].AsY())
	e.VPMAXUD(z[0].AsY(), most.AsY(), most.AsY())
	e.VEXTRACTI32X4(operand.Imm(1), most.AsY(), z[0].AsX())
	e.VPMAXUD(z[0].AsX(), most.AsX(), z[1].AsX())
	for _, imm := range []uint64{0x4e, 0xb1} {
		e.VPSHUFD(operand.Imm(imm), z[1].AsX(), z[0].AsX())
		e.VPMAXUD(z[0].AsX(), z[1].AsX(), z[1].AsX())
	}
	bits := e.GP32()
	e.VMOVD(z[1].AsX(), bits)
	e.Store(bits, e.ReturnIndex(0))
	e.VZEROUPPER()
	e.RET()
}

// store writes the pieces of two vectors, paired: first are the upper pieces of the one, second those of the other, last the
// lowest of both. All registers are used up.
func (e *emitter) store(first, second, last []reg.VecPhysical, dst reg.Register, disp int) {
	for k := range 2 {
		e.pair(first[k], second[k])
		e.VMOVDQU32(second[k], at(dst, tileBytes*k+disp))
	}
	e.pair(last[0], last[1])
	e.VMOVDQU32(last[1], at(dst, tileBytes*2+disp))
}
