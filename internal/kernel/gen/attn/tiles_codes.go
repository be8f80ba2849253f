package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
)

// scoresOfCodes leaves the scores of the group that was found in the work memory: sums of products of codes, 64 in a step, times the scale of the row,
// times that of the key.
func (t *tiles) scoresOfCodes() {
	half, step, row := t.label("half"), t.label("step"), t.label("scaled")
	panel, halves, steps := reg.RAX, reg.R10, reg.R11
	t.move(t.arg(tSteps), panel)
	t.SHLQ(operand.Imm(10), panel) // tileBytes
	t.move(t.arg(tK), tA2)
	t.move(t.arg(tSAt), tTo)
	t.move(t.arg(tHalvesAt), halves)
	t.Label(half)
	t.move(tA2, tA) // where the last half's second tiles ended
	t.ADDQ(panel, tA2)
	t.move(t.arg(tQAt), tB)
	t.move(tB, tB2)
	t.ADDQ(panel, tB2)
	t.move(t.arg(tSteps), steps)
	for i := range 4 {
		amx.Zero(t.Context, uint8(i))
	}
	t.Label(step)
	for i, r := range []reg.GPPhysical{tA, tA2, tB, tB2} {
		amx.Load(t.Context, r, tLine, 0, uint8(4+i))
	}
	for i := range 2 {
		for j := range 2 {
			amx.SignedBytes(t.Context, uint8(4+i), uint8(6+j), uint8(2*i+j))
		}
	}
	for _, r := range []reg.Register{tA, tA2, tB, tB2} {
		t.ADDQ(operand.U32(tileBytes), r)
	}
	t.DECQ(steps)
	t.JNZ(operand.LabelRef(step))
	t.each(2, t.store)
	t.ADDQ(operand.U32(blockKeys*scoreRow), tTo)
	t.DECQ(halves)
	t.JNZ(operand.LabelRef(half))

	const unroll = 4
	scales, keys, rows := reg.R9, reg.R10, reg.R11
	t.move(t.arg(tRowScale), scales)
	t.ADDQ(t.arg(tOffAt), scales)
	for i := range 2 {
		t.VMOVUPS(at(scales, 64*i), z[i])
	}
	t.move(t.arg(tKeyScale), keys)
	t.move(t.arg(tSAt), tTo)
	t.move(t.arg(tHalvesAt), rows)
	t.SHLQ(operand.Imm(3), rows) // blockKeys / unroll
	t.Label(row)
	for u := range unroll {
		key, x := z[2+u], z[8+2*u:10+2*u]
		t.VBROADCASTSS(at(keys, 4*u), key)
		for i := range x {
			t.VCVTDQ2PS(at(tTo, scoreRow*u+64*i), x[i])
		}
		for i := range x {
			t.VMULPS(z[i], x[i], x[i])
		}
		for i := range x {
			t.VMULPS(key, x[i], x[i])
		}
		for i := range x {
			t.VMOVUPS(x[i], at(tTo, scoreRow*u+64*i))
		}
	}
	t.ADDQ(operand.Imm(4*unroll), keys)
	t.ADDQ(operand.U32(unroll*scoreRow), tTo)
	t.DECQ(rows)
	t.JNZ(operand.LabelRef(row))
}
