package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// gemv emits the two products of a vector and a matrix.
func (e *emitter) gemv() {
	e.axpyRows(8)
	e.axpyRows(1)
	e.dotRows(4)
	e.dotRows(1)
}

// axpyRows emits y += Σ x[p]·row p of W over a fixed number of rows: that many streams in order, one pass over y.
func (e *emitter) axpyRows(rows int) {
	name := "axpy" + string(rune('0'+rows))
	e.function(name, "func(n int, x *float32, incX int, w *float32, ldw int, y *float32)",
		name+e.name+" adds a product of a vector and the rows of a matrix: y[j] += Σ_{p<"+string(rune('0'+rows))+"} x[p·incX]·w[p·ldw+j] for j < n.",
		"Strides are in bytes. n ≥ 1.")
	n, x, incX := e.arg("n"), e.arg("x"), e.arg("incX")
	w, ldw, y := e.arg("w"), e.arg("ldw"), e.arg("y")
	for p := range rows {
		e.VBROADCASTSS(at(x, 0), e.regs[p])
		if p < rows-1 {
			e.ADDQ(incX, x)
		}
	}
	ptr := []reg.Register{w}
	if rows > 3 {
		w3, w6 := e.GP64(), e.GP64()
		e.triple(w, ldw, w3)
		e.triple(w3, ldw, w6)
		ptr = append(ptr, w3, w6)
	}
	vector := func(sum reg.Register, disp int, masked bool, loaded reg.Register) {
		e.load(at(y, disp), sum, masked)
		for p := range rows {
			m := row(ptr[p/3], nil, ldw, p%3, disp)
			if masked {
				e.load(m, loaded, true)
				e.VFMADD231PS(loaded, e.regs[p], sum)
				continue
			}
			e.VFMADD231PS(m, e.regs[p], sum)
		}
		e.store(sum, at(y, disp), masked)
	}
	loop, few, one, part, done := e.label("loop"), e.label("few"), e.label("one"), e.label("part"), e.label("done")
	step := func(vectors int) {
		for v := range vectors {
			vector(e.regs[8+v], v*e.bytes(), false, nil)
		}
		for _, p := range append([]reg.Register{y}, ptr...) {
			e.ADDQ(operand.U32(uint32(vectors*e.bytes())), p)
		}
	}
	const unroll = 2
	e.SUBQ(operand.Imm(uint64(unroll*e.lanes)), n)
	e.JLT(operand.LabelRef(few))
	e.Label(loop)
	step(unroll)
	e.SUBQ(operand.Imm(uint64(unroll*e.lanes)), n)
	e.JGE(operand.LabelRef(loop))
	e.Label(few)
	e.ADDQ(operand.Imm(uint64(unroll*e.lanes)), n)
	e.Label(one)
	e.CMPQ(n, operand.Imm(uint64(e.lanes)))
	e.JLT(operand.LabelRef(part))
	step(1)
	e.SUBQ(operand.Imm(uint64(e.lanes)), n)
	e.JMP(operand.LabelRef(one))
	e.Label(part)
	e.TESTQ(n, n)
	e.JZ(operand.LabelRef(done))
	e.setMask(n, e.regs[12])
	vector(e.regs[8], 0, true, e.regs[9])
	e.Label(done)
	e.ret()
}

// dotRows emits y[r] = [0 | y[r]] + row r of W · x, a fixed number of rows at a time. Each row keeps two sums, so that an
// element does not depend on how many rows went together.
func (e *emitter) dotRows(group int) {
	name := "dot" + string(rune('0'+group))
	e.function(name, "func(groups, k int, w *float32, ldw int, x *float32, y *float32, incY int, add int)",
		name+e.name+" multiplies rows of a matrix with a vector: y[r·incY] = [0 | y[r·incY]] + Σ_{p<k} w[r·ldw+p]·x[p] for add 0, 1",
		"and r < "+string(rune('0'+group))+"·groups. Strides are in bytes. groups ≥ 1, k ≥ 0.")
	groups, w, ldw := e.arg("groups"), e.arg("w"), e.arg("ldw")
	y, incY := e.arg("y"), e.arg("incY")
	sum := func(r, set int) reg.VecPhysical { return e.regs[2*r+set] }
	loaded := e.regs[8:12]
	next, loop, few, part, sums := e.label("rows"), e.label("loop"), e.label("few"), e.label("part"), e.label("sums")
	e.Label(next)
	x, k, at0, at3 := e.arg("x"), e.arg("k"), e.GP64(), e.GP64()
	e.MOVQ(w, at0)
	e.triple(w, ldw, at3)
	for r := range group {
		e.zero(sum(r, 0))
		e.zero(sum(r, 1))
	}
	step := func(vectors int, masked bool) {
		for v := range vectors {
			e.load(at(x, v*e.bytes()), loaded[v], masked)
		}
		for r := range group {
			for v := range vectors {
				m := row(at0, at3, ldw, r, v*e.bytes())
				if masked {
					e.load(m, loaded[2], true)
					e.VFMADD231PS(loaded[2], loaded[v], sum(r, v))
					continue
				}
				e.VFMADD231PS(m, loaded[v], sum(r, v))
			}
		}
		if !masked {
			for _, p := range []reg.Register{x, at0, at3} {
				e.ADDQ(operand.U32(uint32(vectors*e.bytes())), p)
			}
		}
	}
	e.SUBQ(operand.Imm(uint64(2*e.lanes)), k)
	e.JLT(operand.LabelRef(few))
	e.Label(loop)
	step(2, false)
	e.SUBQ(operand.Imm(uint64(2*e.lanes)), k)
	e.JGE(operand.LabelRef(loop))
	e.Label(few)
	e.ADDQ(operand.Imm(uint64(2*e.lanes)), k)
	e.CMPQ(k, operand.Imm(uint64(e.lanes)))
	e.JLT(operand.LabelRef(part))
	step(1, false)
	e.SUBQ(operand.Imm(uint64(e.lanes)), k)
	e.Label(part)
	e.TESTQ(k, k)
	e.JZ(operand.LabelRef(sums))
	e.setMask(k, e.regs[12])
	step(1, true)
	e.Label(sums)
	noAdd := e.label("set")
	y3 := e.GP64()
	e.triple(y, incY, y3)
	for r := range group {
		e.VADDPS(sum(r, 1), sum(r, 0), sum(r, 0))
		e.sum(sum(r, 0), loaded[0])
	}
	e.CMPQ(e.memArg("add"), operand.Imm(0))
	e.JEQ(operand.LabelRef(noAdd))
	for r := range group {
		s := sum(r, 0).AsX()
		e.VADDSS(row(y, y3, incY, r, 0), s, s)
	}
	e.Label(noAdd)
	for r := range group {
		e.VMOVSS(sum(r, 0).AsX(), row(y, y3, incY, r, 0))
		e.ADDQ(ldw, w)
	}
	if group == 4 {
		e.LEAQ(operand.Mem{Base: y3, Index: incY, Scale: 1}, y)
	} else {
		e.ADDQ(incY, y)
	}
	e.DECQ(groups)
	e.JNZ(operand.LabelRef(next))
	e.ret()
}
