package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Rows of a register tile. Six rows of 4 zmm (or of 2 ymm) leave room for the vectors of B and rotating broadcasts, and so do
// five rows of 5 zmm, for columns that are one vector too many.
const (
	tileRows  = 6
	wideRows  = 5
	wideWidth = 5
)

// Steps of k in one turn of the inner loop.
const tileUnroll = 4

// tiles emits the products of up to 6 rows at a time with nv vectors of columns, whole and masked.
func (e *emitter) tiles() {
	widest := e.acc / tileRows
	e.tile(widest, false)
	if e.lanes == 8 {
		e.tile(1, false)
		e.tile(1, true)
		return
	}
	for nv := wideWidth; nv > 0; nv-- {
		e.tile(nv, true)
	}
}

// rowsOf is the number of rows of a tile nv vectors wide.
func (e *emitter) rowsOf(nv int) int {
	if nv*tileRows > e.acc {
		return wideRows
	}
	return tileRows
}

// sets is the number of independent sums kept for each element of a tile of r rows, so that about 8 chains are in flight
// and the latency of a fused multiply-add is hidden.
func (e *emitter) sets(r, nv int) int {
	s := 1
	for s < tileUnroll && s*r*nv < 8 && 2*s*r*nv <= e.acc {
		s *= 2
	}
	return s
}

// tile emits one function.
func (e *emitter) tile(nv int, masked bool) {
	most := e.rowsOf(nv)
	name, cols := fmt.Sprintf("tile%d", nv), fmt.Sprint(nv*e.lanes)
	if masked {
		name, cols = name+"m", fmt.Sprintf("%d+tail", (nv-1)*e.lanes)
	}
	e.function(name, "func(m, k int, a *float32, rsA, csA, gsA int, b *float32, ldb int, c *float32, ldc int, mode int, alpha *float32, tail int)",
		fmt.Sprintf("%s%s computes C (m×%s) = [0 | C | diag(alpha)·C] + A·B for mode 0, 1, 2.", name, e.name, cols),
		fmt.Sprintf("Strides are in bytes; gsA is the distance between groups of %s rows of A. m ≥ 1, k ≥ 0.", map[int]string{5: "five", 6: "six"}[most]))
	t := tileFunc{emitter: e, nv: nv, masked: masked, acc: max(e.acc, most*nv), done: e.label("done")}
	t.m, t.a, t.rs, t.cs = e.arg("m"), e.arg("a"), e.arg("rsA"), e.arg("csA")
	t.b, t.ldb, t.c, t.ldc, t.alpha = e.arg("b"), e.arg("ldb"), e.arg("c"), e.arg("ldc"), e.arg("alpha")
	if masked {
		e.setMask(e.arg("tail"), e.regs[e.acc+nv])
	}
	rows, rest := e.label("rows"), e.label("rest")
	e.Label(rows)
	e.CMPQ(t.m, operand.Imm(uint64(most)))
	e.JLT(operand.LabelRef(rest))
	t.rows(most)
	e.ADDQ(e.memArg("gsA"), t.a)
	e.advance(t.c, t.ldc, most)
	e.ADDQ(operand.Imm(uint64(4*most)), t.alpha)
	e.SUBQ(operand.Imm(uint64(most)), t.m)
	e.JMP(operand.LabelRef(rows))
	e.Label(rest)
	for r := most - 1; r > 0; r-- {
		next := e.label("fewer")
		e.CMPQ(t.m, operand.Imm(uint64(r)))
		e.JNE(operand.LabelRef(next))
		t.rows(r)
		e.JMP(operand.LabelRef(t.done))
		e.Label(next)
	}
	e.Label(t.done)
	e.ret()
}

// memArg is an argument where the caller left it.
func (e *emitter) memArg(name string) operand.Mem {
	c, err := e.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return c.Addr
}

// tileFunc is a tile function under construction.
type tileFunc struct {
	*emitter
	nv                                  int
	masked                              bool
	acc                                 int // registers for sums
	done                                string
	m, a, rs, cs, b, ldb, c, ldc, alpha reg.GPVirtual
	walkA, walkA3, walkB, left          reg.GPVirtual // within one group of rows
	r, nsets                            int
}

// sum is the register of element vector (i, j) of a set.
func (t *tileFunc) sum(set, i, j int) reg.VecPhysical { return t.regs[(set*t.r+i)*t.nv+j] }

// last reports whether vector j is the partial one.
func (t *tileFunc) last(j int) bool { return t.masked && j == t.nv-1 }

// rows emits the product of r rows.
func (t *tileFunc) rows(r int) {
	t.r, t.nsets = r, t.sets(r, t.nv)
	t.walkA, t.walkA3, t.walkB, t.left = t.GP64(), t.GP64(), t.GP64(), t.GP64()
	c3 := t.GP64()
	t.Commentf("%d rows: sums = 0", r)
	t.MOVQ(t.a, t.walkA)
	t.triple(t.a, t.rs, t.walkA3)
	t.triple(t.c, t.ldc, c3)
	t.MOVQ(t.b, t.walkB)
	for i := range r {
		for line := 0; line < t.nv*t.bytes(); line += 64 {
			t.PREFETCHT0(row(t.c, c3, t.ldc, i, line))
		}
	}
	for i := range t.nsets * r * t.nv {
		t.zero(t.regs[i])
	}
	t.MOVQ(t.memArg("k"), t.left)
	loop, few, one, sums := t.label("loop"), t.label("few"), t.label("one"), t.label("sums")
	t.SUBQ(operand.Imm(tileUnroll), t.left)
	t.JLT(operand.LabelRef(few))
	t.Comment("sums += column p of A · row p of B, four p at a time")
	t.Label(loop)
	for u := range tileUnroll {
		t.step(u % t.nsets)
	}
	t.SUBQ(operand.Imm(tileUnroll), t.left)
	t.JGE(operand.LabelRef(loop))
	t.Label(few)
	t.ADDQ(operand.Imm(tileUnroll), t.left)
	t.JZ(operand.LabelRef(sums))
	t.Label(one)
	t.step(0)
	t.DECQ(t.left)
	t.JNZ(operand.LabelRef(one))
	t.Label(sums)
	t.finish(c3)
}

// step adds the outer product of one column of A and one row of B.
func (t *tileFunc) step(set int) {
	loaded, bcast := t.regs[t.acc:], t.regs[len(t.regs)-t.rotating():]
	for j := range t.nv {
		t.load(at(t.walkB, j*t.bytes()), loaded[j], t.last(j))
	}
	t.ADDQ(t.ldb, t.walkB)
	for i := range t.r {
		x := bcast[i%len(bcast)]
		t.VBROADCASTSS(row(t.walkA, t.walkA3, t.rs, i, 0), x)
		for j := range t.nv {
			t.VFMADD231PS(loaded[j], x, t.sum(set, i, j))
		}
	}
	t.ADDQ(t.cs, t.walkA)
	if t.r > 3 {
		t.ADDQ(t.cs, t.walkA3)
	}
}

// rotating is the number of registers that broadcasts of A take turns in.
func (t *tileFunc) rotating() int {
	if t.lanes == 16 {
		return min(4, len(t.regs)-t.acc-t.nv)
	}
	return 2
}

// finish folds the sets into one sum, applies the mode and stores.
func (t *tileFunc) finish(c3 reg.GPVirtual) {
	for half := t.nsets / 2; half > 0; half /= 2 {
		for s := range half {
			for i := range t.r {
				for j := range t.nv {
					t.VADDPS(t.sum(s+half, i, j), t.sum(s, i, j), t.sum(s, i, j))
				}
			}
		}
	}
	t.Comment("C = sums, C + sums or alpha·C + sums")
	add, store := t.label("add"), t.label("store")
	t.CMPQ(t.memArg("mode"), operand.Imm(1))
	t.JLT(operand.LabelRef(store))
	t.JEQ(operand.LabelRef(add))
	t.each(c3, func(m operand.Mem, i, j int) {
		scale := t.regs[len(t.regs)-1]
		if j == 0 {
			t.VBROADCASTSS(at(t.alpha, 4*i), scale)
		}
		t.load(m, t.regs[t.acc], t.last(j))
		t.VFMADD231PS(t.regs[t.acc], scale, t.sum(0, i, j)) // sum += alpha·C
	})
	t.JMP(operand.LabelRef(store))
	t.Label(add)
	t.each(c3, func(m operand.Mem, i, j int) {
		if !t.last(j) {
			t.VADDPS(m, t.sum(0, i, j), t.sum(0, i, j))
			return
		}
		t.load(m, t.regs[t.acc], true)
		t.VADDPS(t.regs[t.acc], t.sum(0, i, j), t.sum(0, i, j))
	})
	t.Label(store)
	t.each(c3, func(m operand.Mem, i, j int) { t.store(t.sum(0, i, j), m, t.last(j)) })
}

// each visits the vectors of the tile of C.
func (t *tileFunc) each(c3 reg.GPVirtual, visit func(m operand.Mem, i, j int)) {
	for i := range t.r {
		for j := range t.nv {
			visit(row(t.c, c3, t.ldc, i, j*t.bytes()), i, j)
		}
	}
}
