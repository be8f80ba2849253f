package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// exp2 are the coefficients of 2^y on 0 ≤ y−⌊y⌋ < 1 from the highest power down (package isa has the same).
var exp2 = []float32{0.00186713007244494, 0.009017030315877226, 0.05579991310968577, 0.24016445015286672, 0.6931513118048798, 1}

const log2e = 1.4426950408889634

// Where things lie, in bytes; the constants of package kernel say the same.
const (
	backRows = 96 // of scores, at most
	scoreRow = 4 * 64
	toDP     = backRows * scoreRow    // from scores to dP
	rowBytes = 16                     // of a BackRow
	across   = 3 * pieces * tileBytes // from 16 columns of weights to the next
	toDsCols = 4 * across             // from weights to dS by columns
	down     = 2 * pieces * tileBytes // from 16 rows of dS to the next
	runWords = 4                      // of a WeighRun
	runUnits = 16                     // of a WeighRun
)

var (
	poly       = z[16:22]
	log, upper = z[22], z[23]
)

func (e *emitter) constants() {
	for i, c := range exp2 {
		e.splat(math.Float32bits(c), poly[i])
	}
	e.splat(math.Float32bits(log2e), log)
	e.splat(0xffff0000, upper)
}

// firstRun begins the first run, if there is one.
func (e *emitter) firstRun() {
	done := e.label("begun")
	e.XORQ(units, units)
	e.CMPQ(e.field(rRunsLeft), operand.Imm(0))
	e.JEQ(operand.LabelRef(done))
	e.beginRun()
	e.Label(done)
}

// beginRun loads what a run is about. temp holds the arguments.
func (e *emitter) beginRun() {
	e.MOVQ(word(temp, rRuns), units)
	for n, p := range []reg.Register{scores, rows, weights, dsRows} {
		e.MOVQ(word(units, n), p)
	}
	e.MOVQ(operand.U32(runUnits), units)
}

// made moves on by n units, and to the next run where there is one. units is 0 where there is none.
func (e *emitter) made(n int) {
	done := e.label("same")
	e.add(n*scoreRow, scores)
	e.add(n*rowBytes, rows)
	e.add(n*line, weights)
	e.add(n*line, dsRows)
	e.SUBQ(operand.Imm(uint64(n)), units)
	e.JNZ(operand.LabelRef(done))
	e.ADDQ(operand.Imm(8*runWords), e.field(rRuns))
	e.DECQ(word(temp, rRunsLeft))
	e.JZ(operand.LabelRef(done))
	e.beginRun()
	e.Label(done)
}

// unit are the instructions, in small parts, that make weights and dS of rows p and p+16 for 32 columns, and cut them: the n-th rows from
// where the run is.
func (e *emitter) unit(n int) (parts []func()) {
	x, d := z[0:4], z[4:8] // rows p and p+16 of 16 columns, then of the next 16
	r, p := z[8:12], z[12:16]
	place := func(i, disp int) operand.Mem { return at(scores, scoreRow*n+disp+i%2*16*scoreRow+i/2*line) }
	row := func(i, disp int) operand.Mem { return at(rows, rowBytes*n+i%2*16*rowBytes+disp) }
	seen := []reg.OpmaskPhysical{reg.K1, reg.K2, reg.K3, reg.K4}
	add := func(f ...func()) { parts = append(parts, f...) }
	each := func(f func(i int)) { add(func() { f(0); f(1) }, func() { f(2); f(3) }) }

	for i := range 2 {
		add(func() { e.VBROADCASTSS(row(i, 0), z[24+i]) }, func() { e.VBROADCASTSS(row(i, 4), z[26+i]) })
	}
	each(func(i int) { e.VMOVUPS(place(i, 0), x[i]) })
	each(func(i int) { e.VSUBPS(z[24+i%2], x[i], x[i]) })
	each(func(i int) { e.VMULPS(log, x[i], x[i]) })
	each(func(i int) { e.VREDUCEPS(operand.Imm(1), x[i], r[i]) })
	each(func(i int) { e.VMOVAPS(poly[0], p[i]) })
	each(func(i int) { e.KMOVW(row(i, 8+i/2*2), seen[i]) })
	for c := 1; c < len(poly); c++ {
		each(func(i int) { e.VFMADD213PS(poly[c], r[i], p[i]) })
	}
	each(func(i int) { e.VSCALEFPS_Z(x[i], p[i], seen[i], x[i]) })
	each(func(i int) { e.VMOVUPS(place(i, toDP), d[i]) })
	each(func(i int) { e.VSUBPS(z[26+i%2], d[i], d[i]) })
	each(func(i int) { e.VMULPS(x[i], d[i], d[i]) })
	for i := range 2 {
		lo, hi := z[8:10], z[10:12]
		add(func() { e.cut(x[2*i], lo, upper) }, func() { e.cut(x[2*i+1], hi, upper) })
		for k, pair := range [][]reg.VecPhysical{{lo[0], hi[0]}, {lo[1], hi[1]}, {x[2*i], x[2*i+1]}} {
			add(func() {
				e.VPSRLD(operand.Imm(16), pair[0], pair[0])
				e.join(pair[1], pair[0], k)
				e.VMOVDQU32(pair[0], at(weights, line*n+across*i+tileBytes*k))
			})
		}
	}
	for k := range pieces {
		part := z[8:12]
		if k == pieces-1 {
			part = d
		} else {
			each(func(i int) { e.VPANDD(upper, d[i], part[i]) })
			each(func(i int) { e.VSUBPS(part[i], d[i], d[i]) })
		}
		low := z[12:15]
		add(func() {
			for i := range low {
				e.VPSRLD(operand.Imm(16), part[i], low[i])
			}
		})
		both := z[28] // the first line by columns and by rows begin with the same half
		add(func() {
			e.VMOVAPS(low[0], both)
			e.join(part[1], low[0], k)
			e.VMOVDQU32(low[0], at(weights, line*n+toDsCols+tileBytes*k))
			e.join(part[2], both, k)
			e.VMOVDQU32(both, at(dsRows, line*n+tileBytes*k))
		}, func() {
			e.join(part[3], low[1], k)
			e.VMOVDQU32(low[1], at(dsRows, line*n+down+tileBytes*k))
			e.join(part[3], low[2], k)
			e.VMOVDQU32(low[2], at(weights, line*n+toDsCols+across+tileBytes*k))
		})
	}
	return parts
}
