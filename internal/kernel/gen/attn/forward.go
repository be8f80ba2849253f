package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Fields of attnForwardArgs.
const (
	fQ = iota
	fKT
	fV
	fO
	fRowMax
	fRowSum
	fLo
	fHi
	fWork
	fD
	fLd
	fGroups
	fJ
	fKeys
	fOAt   // of the group
	fO0    // of the group before
	fCols0 // of the group before: 0 for none
	fPanels
)

// Fields of onlineCodesArgs, which begins with attnForwardArgs and its five panels.
const (
	fScale = fPanels + 5 + iota
	fSum
	fKeyScale
)

// Places in the work memory.
const (
	workS     = 0
	workP     = tileRows * rowBytes
	workShift = 2 * tileRows * rowBytes // what a row's scores are shifted by
	workAlpha = workShift + line        // of this group
	workOld   = workAlpha + line        // of the group before
)

// forwardFunc is the forward kernel under construction.
type forwardFunc struct {
	*emitter
	kind                   int // see below
	work, off, q, cols, nv reg.GPVirtual
}

// What is multiplied.
const (
	floats  = iota
	ofCodes // queries and keys are words of four codes
	ofPairs // all are words of two numbers of BF16
)

// forward emits the online softmax of groups of six query rows over one panel of at most 64 keys.
//
// The groups go through two stages in turn. While the weighted sum of the group before runs on P, the maximum of this one, which is
// all latency, is found; then its exponentials, whose instructions overlap with the product of the next. So both units that
// multiply stay busy.
func (e *emitter) forward(kind int) {
	name := [...]string{"attnForwardAVX512", "attnCodesAVX512", "attnPairsAVX512"}[kind]
	see := [...]string{"Online.", "OnlineCodes.", "OnlinePairs."}[kind]
	e.function(name, name+" takes groups of six query rows over a panel of at most 64 keys: one step of the online softmax. See "+see)
	f := &forwardFunc{emitter: e, kind: kind}
	six, lanes := e.GP64(), reg.K2
	e.MOVQ(operand.U32(0x3f), six)
	e.KMOVW(six.As32(), lanes)
	e.MOVQ(operand.U32(0x30), six)
	e.KMOVW(six.As32(), reg.K3)
	f.work, f.off, f.q, f.cols, f.nv = e.get(fWork), e.GP64(), e.get(fQ), e.GP64(), e.GP64()
	e.XORQ(f.off, f.off)
	e.MOVQ(e.get(fO), e.field(fOAt))

	group, next, head, expo := e.label("group"), e.label("next"), e.label("head"), e.label("exp")
	e.Label(group)
	f.visible(next)
	var products, exps [5]string
	for nv := 1; nv <= 4; nv++ {
		products[nv], exps[nv] = e.label("scores"), e.label("exps")
	}
	f.dispatch(products)
	for nv := 4; nv > 0; nv-- {
		e.Label(products[nv])
		f.scores(nv)
		e.JMP(operand.LabelRef(head))
	}
	e.Label(head)
	f.head(lanes)
	f.weigh(expo)
	e.Label(expo)
	f.remember()
	e.expConstants(z[16:23])
	f.dispatch(exps)
	total := e.label("total")
	for nv := 4; nv > 0; nv-- {
		e.Label(exps[nv])
		f.exps(nv)
		e.JMP(operand.LabelRef(total))
	}
	e.Label(total)
	f.total(lanes)

	e.Label(next)
	ldo := e.get(fLd)
	e.LEAQ(operand.Mem{Base: ldo, Index: ldo, Scale: 2}, ldo)
	e.ADDQ(ldo, ldo)
	e.ADDQ(ldo, e.field(fOAt))
	d := e.get(fD)
	e.LEAQ(operand.Mem{Base: d, Index: d, Scale: 2}, d)
	e.LEAQ(operand.Mem{Base: f.q, Index: d, Scale: 8}, f.q) // 6 rows of 4·d bytes
	e.ADDQ(operand.Imm(4*tileRows), f.off)
	e.DECQ(e.field(fGroups))
	e.JNZ(operand.LabelRef(group))
	end := e.label("end")
	f.weigh(end)
	e.Label(end)
	e.VZEROUPPER()
	e.RET()
}

// visible sets cols, the number of keys up to the last that a row of the group sees, and nv, that of their vectors; it goes to next
// if there are none.
func (f *forwardFunc) visible(next string) {
	lo, hi, j, first := f.get(fLo), f.get(fHi), f.get(fJ), f.GP64()
	f.MOVLQSX(operand.Mem{Base: hi, Index: f.off, Scale: 1, Disp: 4 * (tileRows - 1)}, f.cols)
	f.SUBQ(j, f.cols)
	f.JLE(operand.LabelRef(next))
	keys := f.get(fKeys)
	f.CMPQ(f.cols, keys)
	f.CMOVQGT(keys, f.cols)
	f.MOVLQSX(operand.Mem{Base: lo, Index: f.off, Scale: 1}, first)
	f.SUBQ(j, first)
	f.CMPQ(first, f.cols)
	f.JGE(operand.LabelRef(next))
	f.LEAQ(at(f.cols, 15), f.nv)
	f.SHRQ(operand.Imm(4), f.nv)
}

// dispatch jumps to the code for nv vectors.
func (f *forwardFunc) dispatch(to [5]string) {
	for nv := 1; nv < 4; nv++ {
		f.CMPQ(f.nv, operand.Imm(uint64(nv)))
		f.JEQ(operand.LabelRef(to[nv]))
	}
}

// scores computes the group's scores, masks them where rows see different keys, and leaves them in S and each row's
// maximum, not yet folded, in z24 to z29.
func (f *forwardFunc) scores(nv int) {
	multiply := f.multiply
	switch f.kind {
	case ofPairs:
		multiply = f.multiplyPairs
	case ofCodes:
		multiply = f.multiplyCodes
	}
	if f.kind == ofCodes {
		f.beginCodes(nv)
	} else {
		for i := range tileRows {
			for j := range nv {
				f.VPXORD(z[4*i+j], z[4*i+j], z[4*i+j])
			}
		}
	}
	a, ld, b, left := f.GP64(), f.get(fD), f.get(fKT), f.get(fD)
	f.MOVQ(f.q, a)
	f.SHLQ(operand.Imm(2), ld)
	a3 := f.triple(a, ld)
	f.product(nv, left, b, rowBytes, func(i, u int) operand.Mem { return row(a, a3, ld, i, 4*u) }, func(n int) {
		f.ADDQ(operand.Imm(uint64(4*n)), a)
		f.ADDQ(operand.Imm(uint64(4*n)), a3)
	}, multiply)
	switch f.kind {
	case ofPairs:
		f.endPairs(nv)
	case ofCodes:
		f.endCodes(nv)
	}
	f.mask(nv)
	for i := range tileRows {
		for j := range nv {
			f.VMOVUPS(z[4*i+j], at(f.work, workS+rowBytes*i+line*j))
		}
	}
	for i := range tileRows {
		top := z[24+i]
		switch nv {
		case 1:
			f.VMOVAPS(z[4*i], top)
		default:
			f.VMAXPS(z[4*i], z[4*i+1], top)
		}
	}
	for j := 2; j < nv; j++ {
		for i := range tileRows {
			f.VMAXPS(z[4*i+j], z[24+i], z[24+i])
		}
	}
}

// mask puts −∞ where a row does not see a key, unless all rows see all of nv vectors.
func (f *forwardFunc) mask(nv int) {
	full := f.label("full")
	lo, hi, j, edge := f.get(fLo), f.get(fHi), f.get(fJ), f.GP64()
	some := f.label("some")
	f.MOVLQSX(operand.Mem{Base: lo, Index: f.off, Scale: 1, Disp: 4 * (tileRows - 1)}, edge)
	f.CMPQ(edge, j)
	f.JGT(operand.LabelRef(some))
	f.MOVLQSX(operand.Mem{Base: hi, Index: f.off, Scale: 1}, edge)
	f.SUBQ(operand.Imm(uint64(16*nv)), edge)
	f.CMPQ(edge, j)
	f.JGE(operand.LabelRef(full))
	f.Label(some)
	first, range_, place, inf := z[28], z[29], z[30], z[31]
	f.VPBROADCASTD(j.As32(), first)
	for c := range nv {
		f.VPADDD(f.constants.Offset(atIota), first, z[24+c])
		if c+1 < nv {
			sixteen := f.GP32()
			f.MOVL(operand.U32(16), sixteen)
			f.VPBROADCASTD(sixteen, place)
			f.VPADDD(place, first, first)
		}
	}
	f.VBROADCASTSS(f.constants.Offset(atMinusInf), inf)
	for i := range tileRows {
		f.VPBROADCASTD(operand.Mem{Base: lo, Index: f.off, Scale: 1, Disp: 4 * i}, first)
		f.VPBROADCASTD(operand.Mem{Base: hi, Index: f.off, Scale: 1, Disp: 4 * i}, range_)
		f.VPSUBD(first, range_, range_)
		for c := range nv {
			f.VPSUBD(first, z[24+c], place)
			f.VPCMPUD(operand.Imm(1), range_, place, reg.K1) // place − lo < hi − lo, unsigned
			f.VBLENDMPS(z[4*i+c], inf, reg.K1, z[4*i+c])
		}
	}
	f.Label(full)
}

// head folds the maxima, updates rowMax and writes the shifts and the alphas of the group.
func (f *forwardFunc) head(lanes reg.Register) {
	f.fold(func(o ...operand.Op) { f.VMAXPS(o[0], o[1], o[2]) }, reg.K3)
	rowMax := f.get(fRowMax)
	m := operand.Mem{Base: rowMax, Index: f.off, Scale: 1}
	old, top, shift := z[0], z[24], z[1]
	f.VMOVUPS_Z(m, lanes, old)
	f.VMAXPS(old, top, top)
	f.VMOVUPS(top, lanes, m)
	f.VBROADCASTSS(f.constants.Offset(atMinusInf), shift)
	f.VCMPPS(operand.Imm(4), shift, top, reg.K1) // a row without a visible key is shifted by 0
	f.VMOVAPS_Z(top, reg.K1, shift)
	f.VMOVUPS(shift, at(f.work, workShift))
	f.VSUBPS(shift, old, old)
	f.expConstants(z[16:23])
	f.exp(z[0:1], z[2:3], z[3:4], z[16:23])
	f.VMOVUPS(old, at(f.work, workAlpha))
}

// remember makes this group the one before.
func (f *forwardFunc) remember() {
	o := f.get(fOAt)
	f.MOVQ(o, f.field(fO0))
	f.MOVQ(f.cols, f.field(fCols0))
	f.VMOVUPS(at(f.work, workAlpha), z[0])
	f.VMOVUPS(z[0], at(f.work, workOld))
}

// weigh computes O = alpha·O + P·V for the group before, panel by panel of columns, if there is one.
func (f *forwardFunc) weigh(done string) {
	some := f.get(fCols0)
	f.TESTQ(some, some)
	f.JZ(operand.LabelRef(done))
	o, v, panel, ld := f.get(fO0), f.get(fV), f.GP64(), f.get(fLd)
	f.LEAQ(f.field(fPanels), panel)
	next := f.label("columns")
	var to [5]string
	for nv := 1; nv <= 4; nv++ {
		to[nv] = f.label("weighed")
	}
	f.Label(next)
	n := f.GP64()
	f.MOVQ(at(panel, 0), n)
	f.TESTQ(n, n)
	f.JZ(operand.LabelRef(done))
	for nv := 1; nv < 4; nv++ {
		f.CMPQ(n, operand.Imm(uint64(nv)))
		f.JEQ(operand.LabelRef(to[nv]))
	}
	for nv := 4; nv > 0; nv-- {
		f.Label(to[nv])
		o3 := f.triple(o, ld)
		for i := range tileRows {
			x := z[28+i%4]
			f.VBROADCASTSS(at(f.work, workOld+4*i), x)
			for j := range nv {
				f.VMULPS(row(o, o3, ld, i, line*j), x, z[4*i+j])
			}
		}
		p, left, walk := f.GP64(), f.get(fCols0), f.GP64()
		f.LEAQ(at(f.work, workP), p)
		f.MOVQ(v, walk)
		multiply := f.multiply
		if f.kind == ofPairs { // of keys
			multiply = f.multiplyPairs
			f.INCQ(left)
			f.SHRQ(operand.Imm(1), left)
		}
		f.product(nv, left, walk, ld, func(i, u int) operand.Mem { return at(p, rowBytes*i+4*u) }, func(n int) {
			f.ADDQ(operand.Imm(uint64(4*n)), p)
		}, multiply)
		for i := range tileRows {
			for j := range nv {
				f.VMOVUPS(z[4*i+j], row(o, o3, ld, i, line*j))
			}
		}
		f.ADDQ(operand.U32(uint32(line*nv)), o)
		f.ADDQ(operand.U32(uint32(line*nv)), v)
		f.ADDQ(operand.Imm(8), panel)
		f.JMP(operand.LabelRef(next))
	}
}

// exps turns S into weights P, and leaves each row's sum, not yet folded, in z24 to z29.
func (f *forwardFunc) exps(nv int) {
	if f.kind == ofPairs {
		f.beginRounding()
	}
	for i := range tileRows {
		x, r, p := z[0:nv], z[4:4+nv], z[8:8+nv]
		shift := z[12+i%4]
		f.VBROADCASTSS(at(f.work, workShift+4*i), shift)
		for j := range nv {
			f.VMOVUPS(at(f.work, workS+rowBytes*i+line*j), x[j])
		}
		for j := range nv {
			f.VSUBPS(shift, x[j], x[j])
		}
		f.exp(x, r, p, z[16:23])
		if f.kind == ofPairs {
			f.round(x, r, func(j int) operand.Mem { return at(f.work, workP+rowBytes*i+line/2*j) })
		} else {
			for j := range nv {
				f.VMOVUPS(x[j], at(f.work, workP+rowBytes*i+line*j))
			}
		}
		sum := z[24+i]
		if nv == 1 {
			f.VMOVAPS(x[0], sum)
			continue
		}
		f.VADDPS(x[0], x[1], sum)
		if nv > 2 {
			if nv > 3 {
				f.VADDPS(x[2], x[3], x[2])
			}
			f.VADDPS(x[2], sum, sum)
		}
	}
}

// total updates rowSum.
func (f *forwardFunc) total(lanes reg.Register) {
	f.fold(func(o ...operand.Op) { f.VADDPS(o[0], o[1], o[2]) }, reg.K3)
	rowSum := f.get(fRowSum)
	m := operand.Mem{Base: rowSum, Index: f.off, Scale: 1}
	f.VMOVUPS_Z(m, lanes, z[0])
	f.VFMADD132PS(at(f.work, workAlpha), z[24], z[0]) // z0·alpha + z24
	f.VMOVUPS(z[0], lanes, m)
}
