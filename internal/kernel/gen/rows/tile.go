package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
	"stheno/internal/kernel/gen/isa"
)

var tileRows = isa.Fn{
	Name: "tileRows", Params: "pairs, strips, last, tiles int, a *uint16, lda int, b *uint16, panel int, c *float32, ldc int, ahead *float32, step int",
	Doc: `computes C = A·B in float32 for 32·pairs rows, in pieces as cutRows makes them, lda bytes apart, and 32·strips columns, and
16 more where last is not 0, in panels of 16 that are panel bytes apart, each with tiles tiles of 32 steps. ldc is in bytes. What lies from ahead
on is fetched into the second-level cache meanwhile, a line for each product of tiles, the next step bytes further. pairs is 1 or 2;
strips ≥ 0, tiles ≥ 1.`,
	Body: func(k *isa.K) {
		k.LEAQ(amx.Whole(k.Context, "rowShape"), reg.RAX)
		amx.Config(k.Context, reg.RAX)
		k.Load(k.Param("strips"), left)
		k.Load(k.Param("b"), b0)
		k.Load(k.Param("c"), c)
		k.Load(k.Param("lda"), lda)
		k.Load(k.Param("ahead"), ahead)
		k.Load(k.Param("step"), step)
		strip, last, done := k.NewLabel("strip"), k.NewLabel("last"), k.NewLabel("done")
		k.Label(strip)
		k.TESTQ(left, left)
		k.JZ(operand.LabelRef(last))
		unit(k, 2, 2)
		one := k.NewLabel("one")
		k.Load(k.Param("pairs"), n)
		k.CMPQ(n, operand.Imm(2))
		k.JLT(operand.LabelRef(one))
		// The other 32 rows.
		k.MOVQ(lda, a2)
		k.SHLQ(operand.Imm(5), a2)
		k.Load(k.Param("a"), a)
		k.ADDQ(a2, a)
		unitFrom(k, 2, 2)
		k.Label(one)
		k.Load(k.Param("c"), c)
		k.Load(k.Param("panel"), n)
		k.LEAQ(operand.Mem{Base: b0, Index: n, Scale: 2}, b0)
		k.Load(k.Param("strips"), n)
		k.SUBQ(left, n)
		k.INCQ(n)
		k.SHLQ(operand.Imm(7), n)
		k.ADDQ(n, c)
		k.DECQ(left)
		k.JMP(operand.LabelRef(strip))
		k.Label(last)
		k.Load(k.Param("last"), n)
		k.TESTQ(n, n)
		k.JZ(operand.LabelRef(done))
		half := k.NewLabel("half")
		k.Load(k.Param("pairs"), n)
		k.CMPQ(n, operand.Imm(2))
		k.JLT(operand.LabelRef(half))
		unit(k, 4, 1)
		k.JMP(operand.LabelRef(done))
		k.Label(half)
		unit(k, 2, 1)
		k.Label(done)
		amx.Release(k.Context)
	},
}

// Registers, by hand.
var (
	a, a2, a3, a4 = reg.RAX, reg.RSI, reg.R13, reg.R11
	b, b2, b0     = reg.RCX, reg.RDX, reg.R9
	line, lda     = reg.RBX, reg.R10
	c             = reg.RDI
	n             = reg.R8
	left          = reg.R15
	ahead, step   = reg.R14, reg.R12
)

// unit emits the product of the first high tiles of rows and wide panels of columns, from b0 on; c moves on by its rows.
func unit(k *isa.K, high, wide int) {
	k.Load(k.Param("a"), a)
	unitFrom(k, high, wide)
}

// unitFrom is unit for the rows from a on. Sums are in tiles 0 to high·wide−1.
func unitFrom(k *isa.K, high, wide int) {
	rows := []reg.GPPhysical{a, a2, a3, a4}[:high]
	columns := []reg.GPPhysical{b, b2}[:wide]
	k.MOVQ(lda, n)
	k.SHLQ(operand.Imm(4), n)
	for h := 1; h < high; h++ {
		k.LEAQ(operand.Mem{Base: rows[h-1], Index: n, Scale: 1}, rows[h])
	}
	k.MOVQ(b0, b)
	if wide == 2 {
		k.Load(k.Param("panel"), b2)
		k.ADDQ(b, b2)
	}
	k.Load(k.Param("tiles"), n)
	k.MOVQ(operand.U32(64), line)
	for i := range uint8(high * wide) {
		amx.Zero(k.Context, i)
	}
	loop := k.NewLabel("step")
	k.Label(loop)
	held := [2]int{-1, -1}
	tileA := func(h int) uint8 {
		if high == 4 {
			return uint8(4 + h%3)
		}
		return uint8(4 + h)
	}
	tileB := func(j int) uint8 { return uint8(8 - wide + j) }
	for _, t := range amx.Terms {
		if high < 4 && t[0] != held[0] {
			for h, p := range rows {
				amx.Load(k.Context, p, lda, stepLen*t[0], tileA(h))
			}
		}
		if t[1] != held[1] {
			for j, p := range columns {
				amx.Load(k.Context, p, line, amx.TileBytes*t[1], tileB(j))
			}
		}
		held = t
		for h := range high {
			if high == 4 {
				amx.Load(k.Context, rows[h], lda, stepLen*t[0], tileA(h))
			}
			for j := range wide {
				amx.BFloat16(k.Context, tileA(h), tileB(j), uint8(h*wide+j))
				k.PREFETCHT1(operand.Mem{Base: ahead})
				k.ADDQ(step, ahead)
			}
		}
	}
	for _, p := range rows {
		k.ADDQ(operand.I32(amx.Pieces*stepLen), p)
	}
	for _, p := range columns {
		k.ADDQ(operand.I32(amx.Pieces*amx.TileBytes), p)
	}
	k.DECQ(n)
	k.JNZ(operand.LabelRef(loop))
	k.Load(k.Param("ldc"), line)
	k.MOVQ(line, n)
	k.SHLQ(operand.Imm(4), n)
	for h := range high {
		for j := range wide {
			amx.Store(k.Context, uint8(h*wide+j), c, line, 64*j)
		}
		k.ADDQ(n, c)
	}
}
