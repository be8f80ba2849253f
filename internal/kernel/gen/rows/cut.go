package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"

	"stheno/internal/kernel/gen/amx"
	"stheno/internal/kernel/gen/isa"
)

// stepLen is bytes of a piece of 32 numbers.
const stepLen = 64

// upperHalves is the index of VPERMT2W that puts the upper halves of two vectors side by side.
func upperHalves(k *isa.K) isa.V {
	m := k.StaticGlobal("upperHalves")
	k.DataAttributes(attr.RODATA | attr.NOPTR)
	for q := range uint16(16) {
		k.AppendDatum(operand.U16(2*q + 1))
		k.AppendDatum(operand.U16(32 + 2*q + 1))
	}
	return k.Get(m)
}

var cutRows = isa.Fn{
	Name: "cutRows", Params: "dst *uint16, ldd int, x *float32, ldx, rows, tiles int, squares *float32",
	Doc: `cuts x(i, p) = x[i·ldx+p] for i < rows, p < 32·tiles into three pieces of 8 bits, of which each is cut off what those before it leave:
of p = 32t+q and 32t+q+16 for q < 16, piece l is pair q of the 32 numbers from dst[i·ldd+32·(3t+l)] on. squares[i] is Σ_p x(i, p)².
ldx and ldd are in bytes. rows ≥ 1, tiles ≥ 1.`,
	Body: func(k *isa.K) {
		dst, ldd, x, ldx := k.Arg("dst"), k.Arg("ldd"), k.Arg("x"), k.Arg("ldx")
		rows, tiles, squares := k.Arg("rows"), k.Arg("tiles"), k.Arg("squares")
		k.Pin(isa.Bits(0xffff0000))
		side := upperHalves(k)
		to, from := k.GP64(), k.GP64()
		k.Rows(rows, func() {
			k.MOVQ(dst, to)
			k.MOVQ(x, from)
			sum, sum2 := k.Zero(), k.Zero()
			k.Rows(tiles, func() {
				low, high := k.Get(operand.Mem{Base: from}), k.Get(operand.Mem{Base: from, Disp: 64})
				k.FMATo(sum, low, low)
				k.FMATo(sum2, high, high)
				for l := range amx.Pieces {
					a, b := low, high
					if l < amx.Pieces-1 {
						a, b = k.And(low, isa.Bits(0xffff0000)), k.And(high, isa.Bits(0xffff0000))
						low, high = k.Sub(low, a), k.Sub(high, b)
					}
					k.VPERMT2W(b.R(), side.R(), a.R())
					k.VMOVDQU32(a.R(), operand.Mem{Base: to, Disp: stepLen * l})
				}
				k.ADDQ(operand.I32(2*stepLen), from)
				k.ADDQ(operand.I32(amx.Pieces*stepLen), to)
			})
			k.Store1(operand.Mem{Base: squares}, k.Reduce(k.Add(sum, sum2), k.Add))
			k.ADDQ(operand.I32(4), squares)
			k.ADDQ(ldd, dst)
			k.ADDQ(ldx, x)
		})
	},
}
