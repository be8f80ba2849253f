package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa describes a vector instruction set to the emitter. Vector registers are chosen by hand, general ones by avo.
type isa struct {
	name  string
	lanes int // float32 lanes of a vector
	regs  []reg.VecPhysical
}

var avx2 = isa{
	name: "AVX2", lanes: 8,
	regs: []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10,
		reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15},
}

var avx512 = isa{
	name: "AVX512", lanes: 16,
	regs: []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10,
		reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22,
		reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31},
}

// bytes is the size of a vector, wide whether it has 512 bits.
func (s isa) bytes() int { return 4 * s.lanes }
func (s isa) wide() bool { return s.lanes == 16 }

// panelCols is the number of columns of a panel of codes; perPanel is the vectors of float32 that they make.
const panelCols = 16

func (s isa) perPanel() int { return panelCols / s.lanes }

// emitter writes functions for one instruction set.
type emitter struct {
	*build.Context
	isa
	labels int
	tables map[string]operand.Mem
}

func newEmitter(s isa) *emitter {
	e := &emitter{Context: build.NewContext(), isa: s, tables: map[string]operand.Mem{}}
	e.ConstraintExpr("amd64,!purego")
	return e
}

// function opens a leaf function without a frame.
func (e *emitter) function(name, signature string, doc ...string) {
	e.Function(name + e.name)
	e.Attributes(attr.NOSPLIT)
	e.Pragma("noescape")
	e.SignatureExpr(signature)
	doc[0] = name + e.name + " " + doc[0]
	e.Doc(doc...)
}

// ret closes a function.
func (e *emitter) ret() {
	e.VZEROUPPER()
	e.RET()
}

// arg loads an argument into a general register.
func (e *emitter) arg(name string) reg.GPVirtual {
	return e.Load(e.Param(name), e.GP64()).(reg.GPVirtual)
}

// slot is an argument where the caller left it. A function may change its slots: they are its variables.
func (e *emitter) slot(name string) operand.Mem {
	c, err := e.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return c.Addr
}

// label returns a name that is unique in the file.
func (e *emitter) label(what string) string {
	e.labels++
	return fmt.Sprintf("%s%d", what, e.labels)
}

// while repeats body as long as at least step is left of n, which it counts down.
func (e *emitter) while(n reg.Register, step int, body func()) {
	loop, done := e.label("loop"), e.label("done")
	e.Label(loop)
	e.CMPQ(n, operand.Imm(uint64(step)))
	e.JLT(operand.LabelRef(done))
	body()
	e.SUBQ(operand.Imm(uint64(step)), n)
	e.JMP(operand.LabelRef(loop))
	e.Label(done)
}

// add adds a constant to a pointer.
func (e *emitter) add(n int, p reg.Register) { e.ADDQ(operand.I32(int32(n)), p) }

// at is the operand base + disp.
func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

// row is the operand of row i (0 ≤ i < 6) at a byte displacement, given base, base3 = base + 3·stride and stride.
func row(base, base3, stride reg.Register, i, disp int) operand.Mem {
	if i >= 3 {
		base, i = base3, i-3
	}
	if i == 0 {
		return operand.Mem{Base: base, Disp: disp}
	}
	return operand.Mem{Base: base, Index: stride, Scale: uint8(i), Disp: disp}
}

// triple sets dst = base + 3·stride.
func (e *emitter) triple(base, stride, dst reg.Register) {
	e.LEAQ(operand.Mem{Base: base, Index: stride, Scale: 2}, dst)
	e.ADDQ(stride, dst)
}

// zero clears a vector register.
func (e *emitter) zero(v reg.Register) {
	if e.wide() {
		e.VPXORD(v, v, v)
		return
	}
	e.VPXOR(v, v, v)
}

// words returns read-only memory that holds the words, emitted once a file.
func (e *emitter) words(name string, words ...uint32) operand.Mem {
	if m, ok := e.tables[name]; ok {
		return m
	}
	m := e.StaticGlobal(name + e.name)
	e.DataAttributes(attr.RODATA | attr.NOPTR)
	for _, w := range words {
		e.AppendDatum(operand.U32(w))
	}
	e.tables[name] = m
	return m
}

// splat sets every 32-bit lane to a constant.
func (e *emitter) splat(w uint32, dst reg.Register) {
	e.VBROADCASTSS(e.words(fmt.Sprintf("w%08x", w), w), dst)
}

// whole is memory as wide as a vector with a constant in every lane.
func (e *emitter) whole(w uint32) operand.Mem {
	words := make([]uint32, e.lanes)
	for i := range words {
		words[i] = w
	}
	return e.words(fmt.Sprintf("v%08x", w), words...)
}

// and, or: bitwise on whole vectors; a may be memory.
func (e *emitter) and(a operand.Op, b, dst reg.Register) {
	if e.wide() {
		e.VPANDD(a, b, dst)
		return
	}
	e.VPAND(a, b, dst)
}

func (e *emitter) or(a operand.Op, b, dst reg.Register) {
	if e.wide() {
		e.VPORD(a, b, dst)
		return
	}
	e.VPOR(a, b, dst)
}

// get and put move whole vectors of integers.
func (e *emitter) get(m operand.Mem, dst reg.Register) {
	if e.wide() {
		e.VMOVDQU32(m, dst)
		return
	}
	e.VMOVDQU(m, dst)
}

func (e *emitter) put(src reg.Register, m operand.Mem) {
	if e.wide() {
		e.VMOVDQU32(src, m)
		return
	}
	e.VMOVDQU(src, m)
}

// half is the register of half the width.
func (e *emitter) half(v reg.VecPhysical) reg.Register {
	if e.wide() {
		return v.AsY()
	}
	return v.AsX()
}

// sumInts adds the 32-bit lanes of v into lane 0 of the result; t is overwritten.
func (e *emitter) sumInts(v, t reg.VecPhysical) reg.Register {
	if e.wide() {
		e.VEXTRACTI64X4(operand.Imm(1), v, t.AsY())
		e.VPADDD(t.AsY(), v.AsY(), v.AsY())
	}
	e.VEXTRACTI128(operand.Imm(1), v.AsY(), t.AsX())
	e.VPADDD(t.AsX(), v.AsX(), v.AsX())
	e.VPSHUFD(operand.Imm(0x4e), v.AsX(), t.AsX())
	e.VPADDD(t.AsX(), v.AsX(), v.AsX())
	e.VPSHUFD(operand.Imm(0xb1), v.AsX(), t.AsX())
	e.VPADDD(t.AsX(), v.AsX(), v.AsX())
	return v.AsX()
}
