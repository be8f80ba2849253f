package main

import (
	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
)

// A last step of 16 numbers or fewer would leave half of its tiles empty. Two pieces lie there side by side, so that three products of
// tiles make the six of pieces: for x of the keys and y of the queries
//
//	[x₂ x₁]·[y₀ y₀] + [x₁ x₀]·[y₁ y₁] + [x₀ x₀]·[y₂ y₀]

// halfProducts are the instructions of such a step's products, as products are.
func (t *tiles) halfProducts() (all []func()) {
	from := []reg.GPPhysical{tA, tA2, tB, tB2}
	load := func(which, piece int) {
		if piece < 3 {
			all = append(all, func() { amx.Load(t.Context, from[which], tLine, tileBytes*piece, uint8(4+which)) })
		}
	}
	for which := range 4 {
		load(which, 0)
	}
	for piece := range 3 {
		for i := range 2 {
			for j := range 2 {
				all = append(all, func() { amx.BFloat16(t.Context, uint8(4+i), uint8(6+j), uint8(2*i+j)) })
				if i == 1 {
					load(2+j, piece+1)
				}
			}
			load(i, piece+1)
		}
	}
	return all
}

// halves emits the function that makes the tiles of such a step of those of whole numbers, each of which is there twice.
func (t *tiles) halves() {
	t.Function("halfPieces")
	t.Attributes(attr.NOSPLIT)
	t.Pragma("noescape")
	t.SignatureExpr("func(x *uint16, queries int)")
	t.Doc("halfPieces turns three tiles of pieces x₀, x₁, x₂, in which the halves of each word are the same, into x₂|x₁, x₁|x₀, x₀, the lower half",
		"first, or, of queries, which is 1 or 0, into x₀, x₁, x₂|x₀.")
	x, queries, mask := t.Load(t.Param("x"), t.GP64()), t.Load(t.Param("queries"), t.GP64()), t.GP32()
	t.MOVL(operand.U32(0xaaaaaaaa), mask)
	t.KMOVD(mask, reg.K1)
	other, done := t.label("queries"), t.label("done")
	blend := func(low, high, to reg.VecPhysical) { t.VPBLENDMW(high, low, reg.K1, to) }
	at := func(piece, line int) operand.Mem { return operand.Mem{Base: x, Disp: tileBytes*piece + 64*line} }
	t.TESTQ(queries, queries)
	t.JNZ(operand.LabelRef(other))
	for line := range 16 {
		for piece := range 3 {
			t.VMOVDQU16(at(piece, line), z[piece])
		}
		blend(z[2], z[1], z[3])
		blend(z[1], z[0], z[4])
		t.VMOVDQU16(z[3], at(0, line))
		t.VMOVDQU16(z[4], at(1, line))
		t.VMOVDQU16(z[0], at(2, line))
	}
	t.JMP(operand.LabelRef(done))
	t.Label(other)
	for line := range 16 {
		t.VMOVDQU16(at(0, line), z[0])
		t.VMOVDQU16(at(2, line), z[2])
		blend(z[2], z[0], z[3])
		t.VMOVDQU16(z[3], at(2, line))
	}
	t.Label(done)
	t.VZEROUPPER()
	t.RET()
}
