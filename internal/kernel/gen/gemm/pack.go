package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// pack emits the copies into panels and the transposition.
func (e *emitter) pack() {
	e.packPanels()
	e.transpose()
	if e.lanes == 8 {
		e.packSix()
	}
}

// packPanels emits dst[q][p][:] = src[p][q·w : (q+1)·w] with w the columns of a full tile, row by row so that the source is
// read in order.
func (e *emitter) packPanels() {
	e.function("packPanels", "func(dst *float32, panel int, src *float32, lds, rows, panels int)",
		"packPanels"+e.name+" copies whole panels of columns: dst[q·panel+p·w+j] = src[p·lds+q·w+j] for p < rows, q < panels,",
		"j < w, the width of a full tile. panel and lds are in bytes. rows ≥ 1, panels ≥ 1.")
	dst, panel, src, lds := e.arg("dst"), e.arg("panel"), e.arg("src"), e.arg("lds")
	rows, panels := e.arg("rows"), e.arg("panels")
	nv := e.acc / tileRows
	to, from, left := e.GP64(), e.GP64(), e.GP64()
	row, next := e.label("row"), e.label("panel")
	e.Label(row)
	e.MOVQ(dst, to)
	e.MOVQ(src, from)
	e.MOVQ(panels, left)
	e.Label(next)
	for line := 0; line < nv*e.bytes(); line += 64 { // four rows ahead: a new row is too far for the hardware to foresee
		e.PREFETCHT0(operand.Mem{Base: from, Index: lds, Scale: 4, Disp: line})
	}
	for j := range nv {
		e.VMOVUPS(at(from, j*e.bytes()), e.regs[j])
	}
	for j := range nv {
		e.VMOVUPS(e.regs[j], at(to, j*e.bytes()))
	}
	e.ADDQ(operand.U32(uint32(nv*e.bytes())), from)
	e.ADDQ(panel, to)
	e.DECQ(left)
	e.JNZ(operand.LabelRef(next))
	e.ADDQ(operand.U32(uint32(nv*e.bytes())), dst)
	e.ADDQ(lds, src)
	e.DECQ(rows)
	e.JNZ(operand.LabelRef(row))
	e.ret()
}

// packSix emits dst[g][p][:] = src[p][6g : 6g+6], eight rows of the source at a time: they fill whole lines of dst, and are
// few enough that a stride which maps them all to one set of the first-level cache does no harm.
func (e *emitter) packSix() {
	e.function("packSix", "func(dst *float32, group int, src *float32, lds, rows, groups int)",
		"packSix"+e.name+" copies groups of six columns: dst[g·group+p·6+i] = src[p·lds+6g+i] for p < rows, g < groups, i < 6.",
		"group and lds are in bytes. rows ≥ 0, groups ≥ 1.")
	dst, group, src, lds := e.arg("dst"), e.arg("group"), e.arg("src"), e.arg("lds")
	rows, groups := e.arg("rows"), e.arg("groups")
	to, from, from3, from6, left := e.GP64(), e.GP64(), e.GP64(), e.GP64(), e.GP64()
	for _, n := range []int{8, 1} {
		chunk, next, done := e.label("chunk"), e.label("group"), e.label("done")
		e.Label(chunk)
		e.CMPQ(rows, operand.Imm(uint64(n)))
		e.JLT(operand.LabelRef(done))
		e.MOVQ(dst, to)
		e.MOVQ(src, from)
		e.MOVQ(groups, left)
		e.triple(src, lds, from3)
		e.triple(from3, lds, from6)
		e.Label(next)
		for p := range n {
			e.VMOVUPS(eight(from, from3, from6, lds, p, 0), e.regs[p].AsX())
			e.VMOVSD(eight(from, from3, from6, lds, p, 16), e.regs[8+p%8].AsX())
			e.VMOVUPS(e.regs[p].AsX(), at(to, 24*p))
			e.VMOVSD(e.regs[8+p%8].AsX(), at(to, 24*p+16))
		}
		for _, p := range []reg.Register{from, from3, from6} {
			e.ADDQ(operand.Imm(24), p)
		}
		e.ADDQ(group, to)
		e.DECQ(left)
		e.JNZ(operand.LabelRef(next))
		e.ADDQ(operand.U32(uint32(24*n)), dst)
		for range n / 8 {
			e.LEAQ(operand.Mem{Base: src, Index: lds, Scale: 8}, src)
		}
		if n == 1 {
			e.ADDQ(lds, src)
		}
		e.SUBQ(operand.Imm(uint64(n)), rows)
		e.JMP(operand.LabelRef(chunk))
		e.Label(done)
	}
	e.ret()
}

// eight is the operand of row i (0 ≤ i < 8), given base, base + 3·stride and base + 6·stride.
func eight(base, base3, base6, stride reg.Register, i, disp int) operand.Mem {
	if i >= 6 {
		return row(base6, nil, stride, i-6, disp)
	}
	return row(base, base3, stride, i, disp)
}

// transpose emits the transposition of a strip of as many rows as a vector has lanes. Four columns at a time, vector i takes
// rows i, i+4, …, four numbers of each, so that what is left to do happens within quarters of vectors.
func (e *emitter) transpose() {
	n := e.lanes
	name := fmt.Sprintf("transpose%d", n)
	e.function(name, "func(dst *float32, ldd int, src *float32, lds, blocks int, scale float32)",
		fmt.Sprintf("%s%s turns %d rows into columns: dst[j·ldd+i] = scale·src[i·lds+j] for i < %d, j < 8·blocks.", name, e.name, n, n),
		"ldd and lds are in bytes. blocks ≥ 1.")
	dst, ldd, src, lds, blocks := e.arg("dst"), e.arg("ldd"), e.arg("src"), e.arg("lds"), e.arg("blocks")
	scale := e.regs[15]
	e.VBROADCASTSS(e.memArg("scale"), scale)
	from := []reg.Register{src}
	for i := 3; i < n; i += 3 {
		p := e.GP64()
		e.triple(from[len(from)-1], lds, p)
		from = append(from, p)
	}
	dst3 := e.GP64()
	e.triple(dst, ldd, dst3)
	loop := e.label("loop")
	e.Label(loop)
	for half := range 2 {
		r, t, o := e.regs[0:4], e.regs[4:8], e.regs[8:12]
		for i := range 4 {
			e.VMOVUPS(row(from[i/3], nil, lds, i%3, 16*half), r[i].AsX())
			for q := 1; q < n/4; q++ {
				j := i + 4*q
				e.insert(q, row(from[j/3], nil, lds, j%3, 16*half), r[i])
			}
		}
		e.VUNPCKLPS(r[1], r[0], t[0]) // columns 0, 1 of rows 0, 1 (4, 5, …)
		e.VUNPCKHPS(r[1], r[0], t[1]) // columns 2, 3
		e.VUNPCKLPS(r[3], r[2], t[2]) // columns 0, 1 of rows 2, 3 (6, 7, …)
		e.VUNPCKHPS(r[3], r[2], t[3])
		e.VSHUFPS(operand.Imm(0x44), t[2], t[0], o[0])
		e.VSHUFPS(operand.Imm(0xee), t[2], t[0], o[1])
		e.VSHUFPS(operand.Imm(0x44), t[3], t[1], o[2])
		e.VSHUFPS(operand.Imm(0xee), t[3], t[1], o[3])
		for j := range 4 {
			e.VMULPS(scale, o[j], o[j])
			e.VMOVUPS(o[j], row(dst, dst3, ldd, j, 0))
		}
		for _, p := range []reg.Register{dst, dst3} {
			e.LEAQ(operand.Mem{Base: p, Index: ldd, Scale: 4}, p)
		}
	}
	for _, p := range from {
		e.ADDQ(operand.Imm(32), p)
	}
	e.DECQ(blocks)
	e.JNZ(operand.LabelRef(loop))
	e.ret()
}

// insert replaces quarter q, or half, of v by four numbers in memory.
func (e *emitter) insert(q int, m operand.Mem, v reg.VecPhysical) {
	if e.lanes == 16 {
		e.VINSERTF32X4(operand.Imm(uint64(q)), m, v, v)
		return
	}
	e.VINSERTF128(operand.Imm(uint64(q)), m, v, v)
}
