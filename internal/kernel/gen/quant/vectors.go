package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vectors emits products of one row of float32 and panels of codes, read once and in order.
func (e *emitter) vectors() {
	panels := []int{1}
	if e.wide() {
		panels = []int{4, 1}
	}
	for _, n := range panels {
		e.vectorCodes(8, n)
		e.vectorCodes(4, n)
		e.vectorFloat16(n)
		e.vectorBFloat16(n)
	}
}

// vectorFunc is a product under construction: registers of partial sums, set by set, and pointers.
type vectorFunc struct {
	*emitter
	panels, vectors, sets int
	sums                  []reg.VecPhysical
	x, codes, codes3      reg.GPVirtual
	panel                 reg.GPVirtual
}

func (e *emitter) newVector(panels, sets int, sums []reg.VecPhysical) *vectorFunc {
	f := &vectorFunc{emitter: e, panels: panels, vectors: panels * e.perPanel(), sets: sets, sums: sums}
	f.x, f.codes, f.panel = e.arg("x"), e.arg("codes"), e.arg("panel")
	if panels > 1 {
		f.codes3 = e.GP64()
		e.triple(f.codes, f.panel, f.codes3)
	}
	return f
}

// sum is the partial sum of vector o for row p.
func (f *vectorFunc) sum(o, p int) reg.VecPhysical { return f.sums[p%f.sets*f.vectors+o] }

// clear zeroes the partial sums.
func (f *vectorFunc) clear() {
	for i := range f.sets * f.vectors {
		f.zero(f.sums[i])
	}
}

// fold adds the partial sums of each vector into its first.
func (f *vectorFunc) fold() {
	for half := f.sets / 2; half > 0; half /= 2 {
		for s := range half {
			for o := range f.vectors {
				f.VADDPS(f.sum(o, s+half), f.sum(o, s), f.sum(o, s))
			}
		}
	}
}

// code is the memory of vector o of a step at a displacement; a panel's vectors are apart by bytes.
func (f *vectorFunc) code(o, disp, bytes int) operand.Mem {
	return row(f.codes, f.codes3, f.panel, o/f.perPanel(), disp+o%f.perPanel()*bytes)
}

// forward moves on in the codes and in x.
func (f *vectorFunc) forward(codeBytes, rows int) {
	f.add(codeBytes, f.codes)
	if f.panels > 1 {
		f.add(codeBytes, f.codes3)
	}
	f.add(4*rows, f.x)
}

func (e *emitter) vectorCodes(bits, panels int) {
	e.function(fmt.Sprintf("vectorCodes%dx%d", bits, panels),
		"func(x *float32, codes *uint8, panel, steps, per int, s *float32, lds int, z *uint8, ldz int, y *float32)",
		fmt.Sprintf("computes y[j] = Σ_g s(g, j)·Σ_p x[p]·(code(p, j) − z(g, j)) for j < %d, p over the %d rows of each of the steps", 16*panels, 32/bits),
		"of group g, per steps in each group but the last. panel, the distance between panels of 16 columns, and lds are in bytes.",
		"steps ≥ 1.")
	c := e.newCodeReader(bits, e.regs[:5])
	v, t := e.regs[5], e.regs[6]
	vectors := panels * e.perPanel()
	sets := 2
	if e.wide() && panels == 1 {
		sets = 4
	}
	zero, total := e.regs[7:7+vectors], e.regs[7+vectors:7+2*vectors]
	f := e.newVector(panels, sets, e.regs[7+2*vectors:])
	x := e.regs[7+(2+sets)*vectors]
	s, z, left := e.arg("s"), e.arg("z"), e.arg("steps")
	for o := range total {
		e.zero(total[o])
	}
	group := e.label("group")
	e.Label(group)
	n := e.GP64()
	e.MOVQ(left, n)
	e.CMPQ(n, e.slot("per"))
	e.CMOVQGT(e.slot("per"), n)
	e.SUBQ(n, left)
	for o := range zero {
		c.zeroPoints(at(z, o*e.lanes), zero[o])
	}
	f.clear()
	e.while(n, 1, func() {
		for o := range vectors {
			c.each(f.code(o, 0, e.bytes()), zero[o], v, t, func(p int) {
				e.VBROADCASTSS(at(f.x, 4*p), x)
				e.VFMADD231PS(t, x, f.sum(o, p))
			})
		}
		f.forward(64, c.rows())
	})
	f.fold()
	for o := range vectors {
		e.VFMADD231PS(at(s, o*e.bytes()), f.sum(o, 0), total[o])
	}
	e.ADDQ(e.slot("lds"), s)
	e.ADDQ(e.slot("ldz"), z)
	e.TESTQ(left, left)
	e.JNZ(operand.LabelRef(group))
	y := e.arg("y")
	for o := range total {
		e.VMOVUPS(total[o], at(y, o*e.bytes()))
	}
	e.ret()
}

// storeSums writes y.
func (f *vectorFunc) storeSums() {
	f.fold()
	y := f.arg("y")
	for o := range f.vectors {
		f.VMOVUPS(f.sum(o, 0), at(y, o*f.bytes()))
	}
	f.ret()
}

func (e *emitter) vectorFloat16(panels int) {
	e.function(fmt.Sprintf("vectorFloat16x%d", panels), "func(x *float32, codes *uint16, panel, rows int, y *float32)",
		fmt.Sprintf("computes y[j] = Σ_p x[p]·code(p, j) for j < %d, p < rows. panel is in bytes. rows ≥ 0.", 16*panels))
	const sets = 4
	vectors := panels * e.perPanel()
	f := e.newVector(panels, sets, e.regs)
	x, t := e.regs[sets*vectors], e.regs[sets*vectors+1:]
	f.clear()
	rows := e.arg("rows")
	turn := func(n int) {
		for p := range n {
			e.VBROADCASTSS(at(f.x, 4*p), x)
			for o := range vectors {
				v := t[o%2]
				e.VCVTPH2PS(f.code(o, 32*p, e.bytes()/2), v)
				e.VFMADD231PS(v, x, f.sum(o, p))
			}
		}
		f.forward(32*n, n)
	}
	e.while(rows, sets, func() { turn(sets) })
	e.while(rows, 1, func() { turn(1) })
	f.storeSums()
}

func (e *emitter) vectorBFloat16(panels int) {
	e.function(fmt.Sprintf("vectorBFloat16x%d", panels), "func(x *float32, codes *uint16, panel, steps int, y *float32)",
		fmt.Sprintf("computes y[j] = Σ_p x[p]·code(p, j) for j < %d, p < 2·steps. panel is in bytes. steps ≥ 0.", 16*panels))
	const sets = 4
	vectors := panels * e.perPanel()
	f := e.newVector(panels, sets, e.regs)
	x, rest := e.regs[sets*vectors:sets*vectors+2], e.regs[sets*vectors+2:]
	mask, v, t := rest[0], rest[1], rest[2]
	e.splat(0xffff0000, mask)
	f.clear()
	steps := e.arg("steps")
	turn := func(n int) {
		for u := range n {
			for i := range x {
				e.VBROADCASTSS(at(f.x, 8*u+4*i), x[i])
			}
			for o := range vectors {
				e.get(f.code(o, 64*u, e.bytes()), v)
				e.VPSLLD(operand.Imm(16), v, t)
				e.and(mask, v, v)
				e.VFMADD231PS(t, x[0], f.sum(o, 2*u))
				e.VFMADD231PS(v, x[1], f.sum(o, 2*u+1))
			}
		}
		f.forward(64*n, 2*n)
	}
	e.while(steps, sets/2, func() { turn(sets / 2) })
	e.while(steps, 1, func() { turn(1) })
	f.storeSums()
}
