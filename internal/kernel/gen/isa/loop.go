package isa

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// It is one step of a loop: a full vector, or the masked rest.
type It struct {
	k    *K
	idx  reg.GPVirtual
	disp int
	U    int  // which of the unrolled vectors this is, 0 in the rest
	tail bool // fewer than Lanes elements
	mask Mask
}

// Range runs body over n elements: unroll vectors a turn, then single vectors, then the masked rest. n is not changed.
func (k *K) Range(n reg.Register, unroll int, body func(it *It)) {
	w, bytes := k.Arch.Lanes, k.Arch.Bytes()
	idx, rem := k.GP64(), k.GP64()
	k.XORQ(idx, idx)
	k.MOVQ(n, rem)
	turn := func(u int) {
		loop, done := k.label("loop"), k.label("done")
		k.CMPQ(rem, operand.I32(int32(u*w)))
		k.JLT(operand.LabelRef(done))
		k.Label(loop)
		for i := range u {
			body(&It{k: k, idx: idx, disp: i * bytes, U: i})
		}
		k.ADDQ(operand.I32(int32(u*bytes)), idx)
		k.SUBQ(operand.I32(int32(u*w)), rem)
		k.CMPQ(rem, operand.I32(int32(u*w)))
		k.JGE(operand.LabelRef(loop))
		k.Label(done)
	}
	if unroll > 1 {
		turn(unroll)
	}
	turn(1)
	end := k.label("end")
	k.TESTQ(rem, rem)
	k.JZ(operand.LabelRef(end))
	body(&It{k: k, idx: idx, tail: true, mask: k.firstLanes(rem)})
	k.Label(end)
}

func (it *It) mem(p reg.Register) operand.Mem {
	return operand.Mem{Base: p, Index: it.idx, Scale: 1, Disp: it.disp}
}

// Load reads the step's elements of p, 0 in lanes beyond the end.
func (it *It) Load(p reg.Register) V {
	k := it.k
	v := k.New()
	switch {
	case !it.tail:
		k.VMOVUPS(it.mem(p), v.r)
	case k.Arch.EVEX:
		k.VMOVUPS_Z(it.mem(p), it.mask.k, v.r)
	default:
		k.VMASKMOVPS(it.mem(p), it.mask.v.r, v.r)
	}
	return v
}

// LoadOr is Load with other in lanes beyond the end.
func (it *It) LoadOr(p reg.Register, other V) V {
	v := it.Load(p)
	if it.tail {
		v = it.k.Select(it.mask, v, other)
	}
	return v
}

// Keep returns v with 0 in lanes beyond the end.
func (it *It) Keep(v V) V {
	if !it.tail {
		return v
	}
	return it.k.Keep(it.mask, v)
}

// Store writes the step's elements to p.
func (it *It) Store(p reg.Register, v V) {
	k := it.k
	switch {
	case !it.tail:
		k.VMOVUPS(v.r, it.mem(p))
	case k.Arch.EVEX:
		k.VMOVUPS(v.r, it.mask.k, it.mem(p))
	default:
		k.VMASKMOVPS(v.r, it.mask.v.r, it.mem(p))
	}
}

// Rows runs body once for each of rows rows, rows ≥ 0; body advances its own pointers.
func (k *K) Rows(rows reg.Register, body func()) {
	left := k.GP64()
	loop, end := k.label("row"), k.label("rows")
	k.MOVQ(rows, left)
	k.TESTQ(left, left)
	k.JLE(operand.LabelRef(end))
	k.Label(loop)
	body()
	k.DECQ(left)
	k.JNZ(operand.LabelRef(loop))
	k.Label(end)
}

// RangeWhole is Range over whole vectors only: n is a multiple of Lanes.
func (k *K) RangeWhole(n reg.Register, body func(it *It)) {
	idx, rem := k.GP64(), k.GP64()
	loop, end := k.label("loop"), k.label("end")
	k.XORQ(idx, idx)
	k.MOVQ(n, rem)
	k.TESTQ(rem, rem)
	k.JLE(operand.LabelRef(end))
	k.Label(loop)
	body(&It{k: k, idx: idx})
	k.ADDQ(operand.I32(int32(k.Arch.Bytes())), idx)
	k.SUBQ(operand.I32(int32(k.Arch.Lanes)), rem)
	k.JG(operand.LabelRef(loop))
	k.Label(end)
}
