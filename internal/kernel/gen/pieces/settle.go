package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/isa"
)

var settle = isa.Fn{
	Name: "settle", Params: "c *float32, ldc int, x *float32, rows, cols int, floor float32", Result: "int",
	Doc: `copies x, rows of 32 of which the first cols count, to c, rows ldc bytes apart, and returns 1, unless one of
them is below floor in magnitude: then it returns 0. rows ≥ 1, 1 ≤ cols ≤ 32.`,
	Body: func(k *isa.K) {
		c, ldc, x, rows, cols := k.Arg("c"), k.Arg("ldc"), k.Arg("x"), k.Arg("rows"), k.Arg("cols")
		k.Pin(isa.Bits(0x7fffffff))
		floor := k.Scalar("floor")
		lanes := k.GP64()
		k.MOVQ(operand.I32(-1), lanes)
		k.BZHIQ(cols, lanes, lanes)
		var masks [2]reg.OpmaskVirtual
		for i := range masks {
			masks[i] = k.K()
			k.KMOVW(lanes.As32(), masks[i])
			k.SHRQ(operand.Imm(16), lanes)
		}
		n, from := k.GP64(), k.GP64()
		k.MOVQ(rows, n)
		k.MOVQ(x, from)
		low, small := k.K(), k.K()
		k.KXORW(low, low, low)
		k.Rows(n, func() {
			for i, m := range masks {
				v := k.Abs(k.Get(operand.Mem{Base: from, Disp: 64 * i}))
				k.VCMPPS(operand.Imm(isa.LT), floor.R(), v.R(), m, small)
				k.KORW(small, low, low)
			}
			k.ADDQ(operand.I32(128), from)
		})
		settled, end := k.GP64(), k.NewLabel("end")
		k.XORQ(settled, settled)
		k.KORTESTW(low, low)
		k.JNZ(operand.LabelRef(end))
		k.Rows(rows, func() {
			for i, m := range masks {
				v := k.Get(operand.Mem{Base: x, Disp: 64 * i})
				k.VMOVUPS(v.R(), m, operand.Mem{Base: c, Disp: 64 * i})
			}
			k.ADDQ(operand.I32(128), x)
			k.ADDQ(ldc, c)
		})
		k.INCQ(settled)
		k.Label(end)
		k.Store(settled, k.ReturnIndex(0))
	},
}
