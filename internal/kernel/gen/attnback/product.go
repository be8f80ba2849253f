package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
)

// The six products of pieces of A and B that count, in an order in which each but the first finds one of its operands loaded. The
// smaller pieces come first.
var six = []struct{ a, b int }{{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}}

// Registers, by hand: instructions that are written as bytes do not take part in avo's allocation. The first six can address tiles.
var (
	rowA, rowA2 = reg.RAX.(reg.GPPhysical), reg.RSI.(reg.GPPhysical)
	colB, colB2 = reg.RCX.(reg.GPPhysical), reg.RDX.(reg.GPPhysical)
	toC, stride = reg.RBX.(reg.GPPhysical), reg.RDI.(reg.GPPhysical)
	atA, atB    = reg.R8, reg.R9
	atC, left   = reg.R10, reg.R11
	rows, cols  = reg.R12, reg.R13
)

// product emits products of packed operands: tiles 0 to 3 are sums, 4 and 5 tiles of A, 6 and 7 of B.
func (e *emitter) product() {
	e.function("attnBackMultiplyAVX512", "func(c *float32, ldc int, a *uint16, lda int, b *uint16, ldb int, m, n, k, add int)",
		"computes C = [C +] A·B for m by n tiles of C, with k tiles of 32 of the sum. Tiles of A, 16 rows each, and of B, 16 columns each, are",
		"lda and ldb bytes apart, and the k of each one after the other, three pieces each. ldc is in bytes. m, n, k ≥ 1.")
	whole := [8]uint8{line, line, line, line, line, line, line, line}
	e.LEAQ(amx.Shape(e.Context, "attnBackShape", whole, [8]uint8{16, 16, 16, 16, 16, 16, 16, 16}), reg.RAX)
	amx.Config(e.Context, reg.RAX.(reg.GPPhysical))
	e.MOVQ(e.slot("a"), atA)
	e.MOVQ(e.slot("m"), rows)
	each := func(n reg.Register, body func(count int), twice func()) {
		loop, one, done := e.label("each"), e.label("one"), e.label("done")
		e.Label(loop)
		e.CMPQ(n, operand.Imm(2))
		e.JLT(operand.LabelRef(one))
		body(2)
		twice()
		e.SUBQ(operand.Imm(2), n)
		e.JNZ(operand.LabelRef(loop))
		e.JMP(operand.LabelRef(done))
		e.Label(one)
		body(1)
		e.Label(done)
	}
	each(rows, func(high int) {
		e.MOVQ(e.slot("b"), atB)
		e.MOVQ(e.slot("n"), cols)
		e.MOVQ(e.slot("c"), atC)
		each(cols, func(wide int) { e.block(high, wide) }, func() {
			e.MOVQ(e.slot("ldb"), left)
			e.LEAQ(operand.Mem{Base: atB, Index: left, Scale: 2}, atB)
			e.add(2*line, atC)
		})
	}, func() {
		e.MOVQ(e.slot("lda"), left)
		e.LEAQ(operand.Mem{Base: atA, Index: left, Scale: 2}, atA)
		e.MOVQ(e.slot("ldc"), left)
		e.SHLQ(operand.Imm(5), left)
		e.ADDQ(left, e.slot("c"))
	})
	amx.Release(e.Context)
	e.RET()
}

// block emits the product of high tiles of rows and wide tiles of columns.
func (e *emitter) block(high, wide int) {
	sum := func(r, c int) uint8 { return uint8(2*r + c) }
	// corners passes over the tiles of C.
	corners := func(f func(t uint8, disp int)) {
		e.MOVQ(atC, toC)
		e.MOVQ(e.slot("ldc"), stride)
		for r := range high {
			if r > 0 {
				e.MOVQ(stride, left)
				e.SHLQ(operand.Imm(4), left)
				e.ADDQ(left, toC)
			}
			for c := range wide {
				f(sum(r, c), line*c)
			}
		}
	}
	fresh, ready := e.label("fresh"), e.label("ready")
	e.CMPQ(e.slot("add"), operand.Imm(0))
	e.JEQ(operand.LabelRef(fresh))
	corners(func(t uint8, disp int) { amx.Load(e.Context, toC, stride, disp, t) })
	e.JMP(operand.LabelRef(ready))
	e.Label(fresh)
	for r := range high {
		for c := range wide {
			amx.Zero(e.Context, sum(r, c))
		}
	}
	e.Label(ready)
	e.MOVQ(atA, rowA)
	if high > 1 {
		e.MOVQ(atA, rowA2)
		e.ADDQ(e.slot("lda"), rowA2)
	}
	e.MOVQ(atB, colB)
	if wide > 1 {
		e.MOVQ(atB, colB2)
		e.ADDQ(e.slot("ldb"), colB2)
	}
	e.MOVQ(operand.U32(line), stride)
	e.MOVQ(e.slot("k"), left)
	// load loads what a step wants and the step before does not hold, disp ahead: the first of two tiles, or the second.
	load := func(before, step, which, disp int) {
		from, to := six[before], six[step]
		if (to.a != from.a || step == 0) && which < high {
			amx.Load(e.Context, []reg.GPPhysical{rowA, rowA2}[which], stride, disp+tileBytes*to.a, uint8(4+which))
		}
		if (to.b != from.b || step == 0) && which < wide {
			amx.Load(e.Context, []reg.GPPhysical{colB, colB2}[which], stride, disp+tileBytes*to.b, uint8(6+which))
		}
	}
	// steps emits the products of 32 numbers. A tile is loaded anew as soon as it has been read for the last time, so that the products that
	// are left hide it.
	steps := func(last bool) {
		for i := range six {
			next, disp := (i+1)%len(six), 0
			if next == 0 {
				disp = pieces * tileBytes
			}
			order := [][2]int{{0, 0}, {0, 1}, {1, 0}, {1, 1}}
			first := 1 // after which the first tile of what changes may be loaded
			switch {
			case next == 0:
				first = 2
			case six[next].b != six[i].b:
				order[1], order[2] = order[2], order[1]
			}
			for n, o := range order {
				if o[0] < high && o[1] < wide {
					amx.BFloat16(e.Context, uint8(4+o[0]), uint8(6+o[1]), sum(o[0], o[1]))
				}
				if n == first && !(last && next == 0) {
					load(i, next, 0, disp)
				}
			}
			if !(last && next == 0) {
				load(i, next, 1, disp)
			}
		}
	}
	loop, final := e.label("loop"), e.label("final")
	for which := range 2 {
		if which < high {
			amx.Load(e.Context, []reg.GPPhysical{rowA, rowA2}[which], stride, tileBytes*six[0].a, uint8(4+which))
		}
		if which < wide {
			amx.Load(e.Context, []reg.GPPhysical{colB, colB2}[which], stride, tileBytes*six[0].b, uint8(6+which))
		}
	}
	e.DECQ(left)
	e.JZ(operand.LabelRef(final))
	e.Label(loop)
	steps(false)
	for _, p := range []reg.Register{rowA, rowA2, colB, colB2} {
		e.add(pieces*tileBytes, p)
	}
	e.DECQ(left)
	e.JNZ(operand.LabelRef(loop))
	e.Label(final)
	steps(true)
	corners(func(t uint8, disp int) { amx.Store(e.Context, t, toC, stride, disp) })
}
