package main

import "fmt"

// gemv emits the two products of a vector and a matrix.
func (f *file) gemv() {
	f.axpyRows(8)
	f.axpyRows(1)
	f.dotRows(4)
	f.dotRows(1)
}

// axpyRows emits y += Σ x[p]·row p of W over a fixed number of rows: that many streams in order, one pass over y.
func (f *file) axpyRows(rows int) {
	name := fmt.Sprintf("axpy%d", rows)
	f.function(name, "n int, x *float32, incX int, w *float32, ldw int, y *float32", "",
		fmt.Sprintf("adds a product of a vector and the rows of a matrix: y[j] += Σ_{p<%d} x[p·incX]·w[p·ldw+j] for j < n.\n", rows)+
			"Strides are in bytes. n ≥ 1.")
	const n, x, incX, ldw, y, w gp = 0, 1, 2, 3, 4, 5 // w+p walks along row p
	f.arg("n", n)
	f.arg("x", x)
	f.arg("incX", incX)
	f.arg("w", w)
	f.arg("ldw", ldw)
	f.arg("y", y)
	for p := range rows {
		f.op("FMOVS (%s), F%d", x, p)
		if p > 0 {
			f.op("ADD %s, %s, %s", ldw, w+gp(p)-1, w+gp(p))
		}
		f.op("ADD %s, %s", incX, x)
	}
	const sums, loaded = 16, 18
	loop, few, one, part, done := f.label("loop"), f.label("few"), f.label("one"), f.label("part"), f.label("done")
	f.op("SUBS $8, %s", n)
	f.op("BLT %s", few)
	f.mark(loop)
	f.op("FLDPQ (%s), (F%d, F%d)", y, sums, sums+1)
	for p := range rows {
		v := loaded + 2*(p%4)
		f.op("FLDPQ.P 32(%s), (F%d, F%d)", w+gp(p), v, v+1)
		f.op("%s", fmlaLane(sums, v, p, 0))
		f.op("%s", fmlaLane(sums+1, v+1, p, 0))
	}
	f.op("FSTPQ (F%d, F%d), (%s)", sums, sums+1, y)
	f.op("ADD $32, %s", y)
	f.op("SUBS $8, %s", n)
	f.op("BGE %s", loop)
	f.mark(few)
	f.op("ADD $8, %s", n)
	f.op("SUBS $4, %s", n)
	f.op("BLT %s", part)
	f.op("FMOVQ (%s), F%d", y, sums)
	for p := range rows {
		f.op("FMOVQ.P 16(%s), F%d", w+gp(p), loaded+p%4)
		f.op("%s", fmlaLane(sums, loaded+p%4, p, 0))
	}
	f.op("FMOVQ.P F%d, 16(%s)", sums, y)
	f.op("SUB $4, %s", n)
	f.mark(part)
	f.op("ADDS $4, %s", n)
	f.op("BEQ %s", done)
	f.mark(one)
	f.op("FMOVS (%s), F%d", y, sums)
	for p := range rows {
		f.op("FMOVS.P 4(%s), F%d", w+gp(p), loaded+p%4)
		f.op("%s", fmlaLane(sums, loaded+p%4, p, 0))
	}
	f.op("FMOVS.P F%d, 4(%s)", sums, y)
	f.op("SUBS $1, %s", n)
	f.op("BNE %s", one)
	f.mark(done)
	f.op("RET")
}

// dotRows emits y[r] = [0 | y[r]] + row r of W · x, a fixed number of rows at a time. Each row keeps four sums, so that an
// element does not depend on how many rows went together.
func (f *file) dotRows(group int) {
	name := fmt.Sprintf("dot%d", group)
	f.function(name, "groups, k int, w *float32, ldw int, x *float32, y *float32, incY int, add int", "",
		"multiplies rows of a matrix with a vector: y[r·incY] = [0 | y[r·incY]] + Σ_{p<k} w[r·ldw+p]·x[p] for add 0, 1\n"+
			fmt.Sprintf("and r < %d·groups. Strides are in bytes. groups ≥ 1, k ≥ 0.", group))
	const groups, k, w, ldw, x, y, incY, add, walkX, left, row gp = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 // row+r walks along row r
	for _, a := range []struct {
		name string
		r    gp
	}{{"groups", groups}, {"k", k}, {"w", w}, {"ldw", ldw}, {"x", x}, {"y", y}, {"incY", incY}, {"add", add}} {
		f.arg(a.name, a.r)
	}
	const vectorsX, vectorsW = 16, 20
	sum := func(r, set int) int { return 4*r + set }
	next, loop, few, one, part, each, sums := f.label("rows"), f.label("loop"), f.label("few"), f.label("one"), f.label("part"), f.label("each"), f.label("sums")
	f.mark(next)
	f.op("MOVD %s, %s", x, walkX)
	f.op("MOVD %s, %s", w, row)
	for r := range group {
		if r > 0 {
			f.op("ADD %s, %s, %s", ldw, row+gp(r)-1, row+gp(r))
		}
		for s := range 4 {
			f.op("%s", three("eor", sum(r, s), sum(r, s), sum(r, s)))
		}
	}
	f.op("SUBS $16, %s, %s", k, left)
	f.op("BLT %s", few)
	f.mark(loop)
	f.op("FLDPQ.P 32(%s), (F%d, F%d)", walkX, vectorsX, vectorsX+1)
	f.op("FLDPQ.P 32(%s), (F%d, F%d)", walkX, vectorsX+2, vectorsX+3)
	for r := range group {
		v := vectorsW + 4*(r%3)
		f.op("FLDPQ.P 32(%s), (F%d, F%d)", row+gp(r), v, v+1)
		f.op("FLDPQ.P 32(%s), (F%d, F%d)", row+gp(r), v+2, v+3)
		for s := range 4 {
			f.op("%s", three("fmla", sum(r, s), v+s, vectorsX+s))
		}
	}
	f.op("SUBS $16, %s", left)
	f.op("BGE %s", loop)
	f.mark(few)
	f.op("ADD $16, %s", left)
	f.op("SUBS $4, %s", left)
	f.op("BLT %s", part)
	f.mark(one)
	f.op("FMOVQ.P 16(%s), F%d", walkX, vectorsX)
	for r := range group {
		f.op("FMOVQ.P 16(%s), F%d", row+gp(r), vectorsW+r)
		f.op("%s", three("fmla", sum(r, 0), vectorsW+r, vectorsX))
	}
	f.op("SUBS $4, %s", left)
	f.op("BGE %s", one)
	f.mark(part)
	f.op("ADDS $4, %s", left)
	f.op("BEQ %s", sums)
	f.note("the last elements, each in lane 0")
	f.mark(each)
	f.op("FMOVS.P 4(%s), F%d", walkX, vectorsX)
	for r := range group {
		f.op("FMOVS.P 4(%s), F%d", row+gp(r), vectorsW+r)
		f.op("%s", three("fmla", sum(r, 1), vectorsW+r, vectorsX))
	}
	f.op("SUBS $1, %s", left)
	f.op("BNE %s", each)
	f.mark(sums)
	for r := range group {
		s := sum(r, 0)
		f.op("%s", three("fadd", s, s, s+1))
		f.op("%s", three("fadd", s+2, s+2, s+3))
		f.op("%s", three("fadd", s, s, s+2))
		f.op("%s", three("faddp", s, s, s))
		f.op("%s", three("faddp", s, s, s))
	}
	set := f.label("set")
	f.op("CBZ %s, %s", add, set)
	f.op("MOVD %s, %s", y, walkX)
	for r := range group {
		f.op("FMOVS (%s), F%d", walkX, vectorsX)
		f.op("%s", three("fadd", sum(r, 0), sum(r, 0), vectorsX))
		f.op("ADD %s, %s", incY, walkX)
	}
	f.mark(set)
	for r := range group {
		f.op("FMOVS F%d, (%s)", sum(r, 0), y)
		f.op("ADD %s, %s", incY, y)
		f.op("ADD %s, %s", ldw, w)
	}
	f.op("SUBS $1, %s", groups)
	f.op("BNE %s", next)
	f.op("RET")
}
