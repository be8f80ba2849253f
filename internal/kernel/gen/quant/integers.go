package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// tileRows is the number of rows of activations in a tile.
const tileRows = 6

// integers emits products of quantized activations and codes: with VPDPBUSD on AVX-512, which the caller must know the
// processor to have (VNNI), and on AVX2 with 16-bit multiplications that cannot overflow.
func (e *emitter) integers() {
	for _, bits := range []int{8, 4} {
		if e.wide() {
			e.integerTile(bits, 4)
		}
		e.integerTile(bits, 1)
	}
}

// integerTile emits one function.
func (e *emitter) integerTile(bits, panels int) {
	t := &intTile{emitter: e, bits: bits, panels: panels}
	typ := "int8"
	if t.short() {
		typ = "int16"
	}
	name := fmt.Sprintf("int%dx%d", bits, panels)
	e.function(name, "func(m, steps, per int, a *"+typ+", lda int, codes *uint8, panel int, sums *int32, ldsums int, s *float32, lds int, z *uint8, ldz int, sx *float32, c *float32, ldc int)",
		fmt.Sprintf("computes C(i, j) = sx(i)·Σ_g s(g, j)·(Σ_p A(i, p)·code(p, j) + z(g, j)·sums(i, g)) for i < m, j < %d,", 16*panels),
		fmt.Sprintf("p over the %d rows of each of the steps of group g, per steps in each group but the last. Without z it takes sums as they", 32/bits),
		"are. Strides are in bytes; panel is that between panels of 16 columns. m ≥ 1, steps ≥ 1.")
	rows, rest, done := e.label("rows"), e.label("rest"), e.label("finished")
	e.Label(rows)
	e.CMPQ(e.slot("m"), operand.Imm(tileRows))
	e.JLT(operand.LabelRef(rest))
	t.block(tileRows)
	t.next("a", "lda")
	t.next("c", "ldc")
	t.next("sums", "ldsums")
	e.ADDQ(operand.Imm(4*tileRows), e.slot("sx"))
	e.SUBQ(operand.Imm(tileRows), e.slot("m"))
	e.JMP(operand.LabelRef(rows))
	e.Label(rest)
	for r := tileRows - 1; r > 0; r-- {
		fewer := e.label("fewer")
		e.CMPQ(e.slot("m"), operand.Imm(uint64(r)))
		e.JNE(operand.LabelRef(fewer))
		t.block(r)
		e.JMP(operand.LabelRef(done))
		e.Label(fewer)
	}
	e.Label(done)
	e.ret()
}

// intTile is a function under construction.
type intTile struct {
	*emitter
	bits, panels int

	// Of the pass under construction: rows, the first of its columns, and its number of columns.
	r, from, cols int

	a, a3, lda, codes, codes3, panel reg.GPVirtual
}

// short reports whether activations have 16 bits: where codes of 8 bits are widened to 16, because a sum of two products of 8
// bits would not fit into 16.
func (t *intTile) short() bool { return !t.wide() && t.bits == 8 }

// next moves the pointer in a slot by six rows.
func (t *intTile) next(slot, stride string) {
	d := t.arg(stride)
	t.LEAQ(operand.Mem{Base: d, Index: d, Scale: 2}, d)
	t.SHLQ(operand.Imm(1), d)
	t.ADDQ(d, t.slot(slot))
}

// block emits the product of r rows, in two passes over the columns where one would need too many registers.
func (t *intTile) block(r int) {
	t.r, t.cols = r, panelCols*t.panels
	if !t.wide() && r > 12/t.accumulators() {
		t.cols /= 2
	}
	for t.from = 0; t.from < panelCols*t.panels; t.from += t.cols {
		t.pass()
	}
}

// accumulators is how many vectors of sums a row of 16 columns takes on AVX2.
func (t *intTile) accumulators() int {
	if t.bits == 8 {
		return 4 // two sums a column
	}
	return 2 + 2 // of 32 bits, and of 16
}

// pass emits the product of r rows with cols columns, group by group.
func (t *intTile) pass() {
	t.a, t.a3, t.lda = t.arg("a"), t.GP64(), t.arg("lda")
	t.codes, t.codes3, t.panel = t.arg("codes"), t.GP64(), t.arg("panel")
	s, z, sums, left, again := t.arg("s"), t.arg("z"), t.arg("sums"), t.arg("steps"), t.GP64()
	t.triple(t.a, t.lda, t.a3)
	if t.panels > 1 {
		t.triple(t.codes, t.panel, t.codes3)
	}
	t.XORQ(again, again)
	group := t.label("group")
	t.Label(group)
	n := t.GP64()
	t.MOVQ(left, n)
	t.CMPQ(n, t.slot("per"))
	t.CMOVQGT(t.slot("per"), n)
	t.SUBQ(n, left)
	t.Commentf("%d rows: sums = 0", t.r)
	var sum func(i, o int) reg.VecPhysical
	switch {
	case t.wide():
		sum = t.products512(n)
	case t.bits == 8:
		sum = t.products16(n)
	default:
		sum = t.products8(n)
	}
	t.scaled(s, z, sums, again, sum)
	t.ADDQ(t.slot("lds"), s)
	t.ADDQ(t.slot("ldz"), z)
	t.add(4, sums)
	t.MOVQ(operand.U32(1), again)
	t.TESTQ(left, left)
	t.JNZ(operand.LabelRef(group))
}

// repeat emits a loop of n steps, unrolled, n ≥ 1. step gets its place within a turn.
func (t *intTile) repeat(n reg.Register, unroll, codeBytes, aBytes int, step func(u int)) {
	turn := func(u int) {
		for i := range u {
			step(i)
		}
		t.add(aBytes*u, t.a)
		if t.r > 3 {
			t.add(aBytes*u, t.a3)
		}
		t.add(codeBytes*u, t.codes)
		if t.panels > 1 {
			t.add(codeBytes*u, t.codes3)
		}
	}
	t.while(n, unroll, func() { turn(unroll) })
	if unroll > 1 {
		t.while(n, 1, func() { turn(1) })
	}
}

// products512 sums products of bytes by VPDPBUSD: the codes are its unsigned operand, the activations its signed one, and four
// products go into each lane.
func (t *intTile) products512(n reg.Register) func(i, o int) reg.VecPhysical {
	sum := func(i, o int) reg.VecPhysical { return t.regs[i*t.panels+o] }
	b, x := t.regs[24:28], t.regs[28:32]
	low := x[3]
	if t.bits == 4 {
		t.splat(0x0f0f0f0f, low)
		x = x[:3]
	}
	for i := range t.r * t.panels {
		t.zero(t.regs[i])
	}
	outer := func(disp int) {
		for i := range t.r {
			v := x[i%len(x)]
			t.VPBROADCASTD(row(t.a, t.a3, t.lda, i, disp), v)
			for j := range t.panels {
				t.VPDPBUSD(v, b[j], sum(i, j))
			}
		}
	}
	code := func(j, u int) operand.Mem { return row(t.codes, t.codes3, t.panel, j, 64*u) }
	if t.bits == 8 {
		t.repeat(n, 2, 64, 4, func(u int) {
			for j := range t.panels {
				t.get(code(j, u), b[j])
			}
			outer(4 * u)
		})
		return sum
	}
	t.repeat(n, 2, 64, 8, func(u int) {
		for j := range t.panels {
			t.VPANDD(code(j, u), low, b[j])
		}
		outer(8 * u)
		for j := range t.panels {
			t.VPSRLD(operand.Imm(4), code(j, u), b[j])
			t.VPANDD(low, b[j], b[j])
		}
		outer(8*u + 4)
	})
	return sum
}

// products16 sums products of codes widened to 16 bits and activations of 16 bits by VPMADDWD. A vector of sums holds two for
// each of four columns, added at the end.
func (t *intTile) products16(n reg.Register) func(i, o int) reg.VecPhysical {
	nv := t.cols / 4
	acc := func(i, j int) reg.VecPhysical { return t.regs[i*nv+j] }
	for i := range t.r * nv {
		t.zero(t.regs[i])
	}
	b, x, product := t.regs[12:14], t.regs[14], t.regs[15]
	t.repeat(n, 2, 64, 8, func(u int) {
		for j := 0; j < nv; j += 2 {
			for h := range b {
				t.VPMOVZXBW(at(t.codes, 64*u+4*t.from+16*(j+h)), b[h])
			}
			for i := range t.r {
				t.VPBROADCASTQ(row(t.a, t.a3, t.lda, i, 8*u), x)
				for h := range b {
					t.VPMADDWD(b[h], x, product)
					t.VPADDD(product, acc(i, j+h), acc(i, j+h))
				}
			}
		}
	})
	for i := range t.r {
		for j := 0; j < nv; j += 2 {
			v := acc(i, j)
			t.VPHADDD(acc(i, j+1), v, v)
			t.VPERMQ(operand.Imm(0xd8), v, v)
		}
	}
	return func(i, o int) reg.VecPhysical { return acc(i, 2*o) }
}

// products8 sums products of nibbles and activations of 8 bits by VPMADDUBSW: two products are at most 2·15·127, and eight such
// sums still fit into 16 bits, after which they go into sums of 32.
func (t *intTile) products8(n reg.Register) func(i, o int) reg.VecPhysical {
	nv := t.cols / 8
	short := func(i, j int) reg.VecPhysical { return t.regs[i*nv+j] }
	long := func(i, j int) reg.VecPhysical { return t.regs[6+i*nv+j] }
	for i := range t.r {
		for j := range nv {
			t.zero(long(i, j))
		}
	}
	b, x, product := t.regs[12:14], t.regs[14], t.regs[15]
	low := t.whole(0x0f0f0f0f)
	step := func(u int, first bool) {
		for j := range nv {
			t.VMOVDQU(at(t.codes, 64*u+4*t.from+32*j), b[0])
			t.VPSRLD(operand.Imm(4), b[0], b[1])
			t.VPAND(low, b[0], b[0])
			t.VPAND(low, b[1], b[1])
			for i := range t.r {
				for h := range b {
					t.VPBROADCASTD(row(t.a, t.a3, t.lda, i, 8*u+4*h), x)
					if first && h == 0 {
						t.VPMADDUBSW(x, b[h], short(i, j))
						continue
					}
					t.VPMADDUBSW(x, b[h], product)
					t.VPADDW(product, short(i, j), short(i, j))
				}
			}
		}
	}
	widen := func() {
		ones := t.whole(0x00010001)
		for i := range t.r {
			for j := range nv {
				t.VPMADDWD(ones, short(i, j), product)
				t.VPADDD(product, long(i, j), long(i, j))
			}
		}
	}
	forward := func(steps int) {
		t.add(8*steps, t.a)
		if t.r > 3 {
			t.add(8*steps, t.a3)
		}
		t.add(64*steps, t.codes)
	}
	const together = 4 // steps of two sums
	t.while(n, together, func() {
		for u := range together {
			step(u, u == 0)
		}
		forward(together)
		widen()
	})
	t.while(n, 1, func() {
		step(0, true)
		forward(1)
		widen()
	})
	return long
}

// scaled adds a group's sums to C, or sets it for the first group.
func (t *intTile) scaled(s, z, sums, again reg.Register, sum func(i, o int) reg.VecPhysical) {
	temps := t.regs[len(t.regs)-4:]
	offset, product, factor := temps[0], temps[1], temps[2]
	c, from, sx := t.arg("c"), t.GP64(), t.arg("sx")
	t.MOVQ(sums, from)
	t.Comment("C += sx·s·(sums + offset)")
	for i := range t.r {
		single, convert, store, done := t.label("single"), t.label("convert"), t.label("set"), t.label("stored")
		t.VPBROADCASTD(at(from, 0), offset)
		t.VBROADCASTSS(at(sx, 4*i), factor)
		t.TESTQ(z, z)
		t.JZ(operand.LabelRef(single))
		for o := range t.cols / t.lanes {
			t.VPMOVZXBD(at(z, t.from+o*t.lanes), product)
			t.VPMULLD(offset, product, product)
			t.VPADDD(product, sum(i, o), sum(i, o))
		}
		t.JMP(operand.LabelRef(convert))
		t.Label(single)
		for o := range t.cols / t.lanes {
			t.VPADDD(offset, sum(i, o), sum(i, o))
		}
		t.Label(convert)
		for o := range t.cols / t.lanes {
			t.VCVTDQ2PS(sum(i, o), sum(i, o))
			t.VMULPS(at(s, 4*t.from+o*t.bytes()), sum(i, o), sum(i, o))
		}
		t.TESTQ(again, again)
		t.JZ(operand.LabelRef(store))
		for o := range t.cols / t.lanes {
			t.VFMADD213PS(at(c, 4*t.from+o*t.bytes()), factor, sum(i, o))
			t.VMOVUPS(sum(i, o), at(c, 4*t.from+o*t.bytes()))
		}
		t.JMP(operand.LabelRef(done))
		t.Label(store)
		for o := range t.cols / t.lanes {
			t.VMULPS(factor, sum(i, o), sum(i, o))
			t.VMOVUPS(sum(i, o), at(c, 4*t.from+o*t.bytes()))
		}
		t.Label(done)
		if i < t.r-1 {
			t.ADDQ(t.slot("ldc"), c)
			t.ADDQ(t.slot("ldsums"), from)
		}
	}
}
