package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// rowBlock is the number of activations that are quantized and summed together.
const rowBlock = 32

// rows emits the quantization of activations.
func (e *emitter) rows() {
	e.quantizeRow(8)
	if !e.wide() {
		e.quantizeRow(16)
	}
}

// quantizeRow emits the rounding of a row to integers, and their sums.
func (e *emitter) quantizeRow(bits int) {
	typ, name := "int8", "quantizeRow8"
	if bits == 16 {
		typ, name = "int16", "quantizeRow16"
	}
	e.function(name, "func(dst *"+typ+", x *float32, blocks int, inv float32, sums *int32)",
		"computes dst[i] = round(inv·x[i]), ties to even, for i < 32·blocks, |inv·x[i]| ≤ 127.5, and sums[b] = Σ dst[32b:32b+32].",
		"blocks ≥ 0.")
	dst, x, blocks, sums := e.arg("dst"), e.arg("x"), e.arg("blocks"), e.arg("sums")
	inv, ones := e.regs[4], e.regs[5]
	e.VBROADCASTSS(e.slot("inv"), inv)
	e.splat(0x00010001, ones)
	if !e.wide() {
		e.get(e.words("unzip", 0, 4, 1, 5, 2, 6, 3, 7), e.regs[7])
	}
	e.while(blocks, 1, func() {
		n := rowBlock / e.lanes
		v := e.regs[:n]
		for i := range v {
			e.VMULPS(at(x, i*e.bytes()), inv, v[i])
			e.VCVTPS2DQ(v[i], v[i])
		}
		sum, t := v[0], e.regs[6]
		if e.wide() {
			for i := range v {
				e.VPMOVSDB(v[i], at(dst, 16*i))
			}
			e.VPADDD(v[1], v[0], v[0])
		} else {
			e.quantizedPack(v, bits, dst)
			e.VPADDW(v[2], v[0], v[0]) // at most 127·2 a lane
			e.VPMADDWD(ones, v[0], v[0])
		}
		e.VMOVD(e.sumInts(sum, t), at(sums, 0))
		e.add(rowBlock*4, x)
		e.add(rowBlock*bits/8, dst)
		e.add(4, sums)
	})
	e.ret()
}

// quantizedPack stores four vectors of integers as bits-bit ones, and leaves their 16-bit form in v[0] and v[2].
func (e *emitter) quantizedPack(v []reg.VecPhysical, bits int, dst reg.Register) {
	t, order := e.regs[6], e.regs[7]
	for i := range 2 {
		e.VPACKSSDW(v[2*i+1], v[2*i], v[2*i])
	}
	if bits == 16 {
		for i := range 2 {
			e.VPERMQ(operand.Imm(0xd8), v[2*i], t)
			e.VMOVDQU(t, at(dst, 32*i))
		}
		return
	}
	e.VPACKSSWB(v[2], v[0], t)
	e.VPERMD(t, order, t)
	e.VMOVDQU(t, at(dst, 0))
}
