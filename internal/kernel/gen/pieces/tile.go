package main

import (
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
	"stheno/internal/kernel/gen/isa"
)

var pieceTile = isa.Fn{
	Name: "pieceTile", Params: "rows, tiles int, a *uint16, lda int, b *uint16, panel int, c *float32, ldc int, init *float32, ldi int, buf *float32",
	Doc: `computes C = A·B, or C = init + A·B where init is not nil, in float32 for C of 16·rows×32, A and B in pieces: A by
tiles of 16 rows lda bytes apart, B in two panels of 16 columns panel bytes apart, each with tiles tiles of 32 steps. ldc and ldi
are in bytes; init may be C, or one row with ldi = 0. Where buf, of 32·32 elements, is not nil, C, its rows whole lines, is
written past the caches. rows ≥ 1, tiles ≥ 1.`,
	Body: func(k *isa.K) {
		k.LEAQ(amx.Whole(k.Context, "pieceShape"), reg.RAX)
		amx.Config(k.Context, reg.RAX)
		left := reg.R9
		k.Load(k.Param("rows"), left)
		k.Load(k.Param("a"), a)
		k.Load(k.Param("c"), c)
		k.Load(k.Param("init"), from)
		loop, few, done := k.NewLabel("loop"), k.NewLabel("few"), k.NewLabel("done")
		k.Label(loop)
		k.CMPQ(left, operand.Imm(2))
		k.JLT(operand.LabelRef(few))
		unit(k, 2)
		k.SUBQ(operand.Imm(2), left)
		k.JMP(operand.LabelRef(loop))
		k.Label(few)
		k.TESTQ(left, left)
		k.JZ(operand.LabelRef(done))
		unit(k, 1)
		k.Label(done)
		amx.Release(k.Context)
		end := k.NewLabel("end")
		k.Load(k.Param("buf"), b)
		k.TESTQ(b, b)
		k.JZ(operand.LabelRef(end))
		k.SFENCE() // of what went past the caches
		k.Label(end)
	},
}

// Registers, by hand.
var (
	a, a2 = reg.RAX, reg.RSI
	b, b2 = reg.RCX, reg.RDX
	line  = reg.RBX
	c     = reg.RDI
	from  = reg.R10
)

// unit emits the product of high tiles of rows: tiles 0 to 3 are sums, 4 and 5 rows of A, 6 and 7 panels of B. It moves a, c and
// from, what the sums begin with, on.
func unit(k *isa.K, high int) {
	n := reg.R8
	k.Load(k.Param("lda"), a2)
	k.ADDQ(a, a2)
	k.Load(k.Param("b"), b)
	k.Load(k.Param("panel"), b2)
	k.ADDQ(b, b2)
	k.Load(k.Param("tiles"), n)
	second := func(stride string) { // c becomes the second tile of rows
		k.Load(k.Param(stride), line)
		k.SHLQ(operand.Imm(4), line)
		k.ADDQ(line, c)
	}
	begin, start := k.NewLabel("begin"), k.NewLabel("start")
	k.TESTQ(from, from)
	k.JNZ(operand.LabelRef(begin))
	for i := range uint8(2 * high) {
		amx.Zero(k.Context, i)
	}
	k.JMP(operand.LabelRef(start))
	k.Label(begin)
	k.XCHGQ(from, c)
	for h := range high {
		k.Load(k.Param("ldi"), line)
		for j := range 2 {
			amx.Load(k.Context, c, line, 64*j, uint8(2*h+j))
		}
		second("ldi")
	}
	k.XCHGQ(from, c)
	k.Label(start)
	// C is asked for while its sums are made, a quarter of its rows in each step.
	near := k.NewLabel("near")
	to, ldc, quarters := reg.R11, reg.R12, reg.R13
	k.MOVQ(c, to)
	k.Load(k.Param("ldc"), ldc)
	k.XORQ(quarters, quarters)
	k.Load(k.Param("buf"), line)
	k.TESTQ(line, line)
	k.JNZ(operand.LabelRef(near))
	k.MOVQ(operand.U32(4), quarters)
	k.Label(near)
	k.MOVQ(operand.U32(64), line)
	step, asked := k.NewLabel("step"), k.NewLabel("asked")
	k.Label(step)
	k.TESTQ(quarters, quarters)
	k.JZ(operand.LabelRef(asked))
	k.DECQ(quarters)
	for range 4 * high {
		for j := range 2 {
			prefetchW(k, 64*j)
		}
		k.ADDQ(ldc, to)
	}
	k.Label(asked)
	held := [2]int{-1, -1}
	for _, t := range amx.Terms {
		if t[0] != held[0] {
			for h, p := range []reg.GPPhysical{a, a2}[:high] {
				amx.Load(k.Context, p, line, amx.TileBytes*t[0], uint8(4+h))
			}
		}
		if t[1] != held[1] {
			for j, p := range []reg.GPPhysical{b, b2} {
				amx.Load(k.Context, p, line, amx.TileBytes*t[1], uint8(6+j))
			}
		}
		held = t
		for i := range uint8(2 * high) {
			amx.BFloat16(k.Context, 4+i/2, 6+i%2, i)
		}
	}
	for _, p := range []reg.GPPhysical{a, a2, b, b2} {
		k.ADDQ(operand.I32(amx.Pieces*amx.TileBytes), p)
	}
	k.DECQ(n)
	k.JNZ(operand.LabelRef(step))
	past, stored := k.NewLabel("past"), k.NewLabel("stored")
	k.Load(k.Param("buf"), b)
	k.TESTQ(b, b)
	k.JNZ(operand.LabelRef(past))
	for h := range high {
		k.Load(k.Param("ldc"), line)
		for j := range 2 {
			amx.Store(k.Context, uint8(2*h+j), c, line, 64*j)
		}
		second("ldc")
	}
	k.JMP(operand.LabelRef(stored))
	k.Label(past)
	k.MOVQ(operand.U32(128), line)
	for i := range 2 * high {
		amx.Store(k.Context, uint8(i), b, line, i/2*16*128+i%2*64)
	}
	k.Load(k.Param("ldc"), line)
	k.MOVQ(operand.U32(uint64(16*high)), n)
	row := k.NewLabel("row")
	k.Label(row)
	for j := range 2 {
		k.VMOVUPS(operand.Mem{Base: b, Disp: 64 * j}, []reg.VecPhysical{reg.Z0, reg.Z1}[j])
	}
	for j := range 2 {
		k.VMOVNTPS([]reg.VecPhysical{reg.Z0, reg.Z1}[j], operand.Mem{Base: c, Disp: 64 * j})
	}
	k.ADDQ(operand.I32(128), b)
	k.ADDQ(line, c)
	k.DECQ(n)
	k.JNZ(operand.LabelRef(row))
	k.Label(stored)
	// a has come to the end of its first tile of rows.
	k.Load(k.Param("tiles"), n)
	k.IMUL3Q(operand.I32(amx.Pieces*amx.TileBytes), n, n)
	k.SUBQ(n, a)
	k.Load(k.Param("lda"), a2)
	for range high {
		k.ADDQ(a2, a)
	}
}

// prefetchW is PREFETCHW disp(R11), which avo does not know.
func prefetchW(k *isa.K, disp int) {
	k.Commentf("PREFETCHW %d(R11)", disp)
	for _, b := range []uint8{0x41, 0x0f, 0x0d, 0x4b, uint8(disp)} {
		k.Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []operand.Op{operand.U8(b)}})
	}
}
