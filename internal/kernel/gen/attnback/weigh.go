package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// exp2 are the coefficients of 2^y on 0 ≤ y−⌊y⌋ < 1 from the highest power down (package isa has the same).
var exp2 = []float32{0.00186713007244494, 0.009017030315877226, 0.05579991310968577, 0.24016445015286672, 0.6931513118048798, 1}

const log2e = 1.4426950408889634

// weigh emits what lies between the products of the backward pass.
func (e *emitter) weigh() {
	e.function("attnBackWeighAVX512", "func(s, dp, rowMax, delta *float32, weights, dsCols, dsRows *uint16, steps, halves int)",
		"computes P = e^(s−rowMax) and dS = P∘(dp−delta) for 32·steps rows of 64, of which 32·halves count, and cuts them into pieces: P",
		"and dS by columns, as a factor whose rows are summed over, dS by rows, as one whose columns are. steps ≥ 1, halves 1 or 2.")
	poly, log, upper := z[16:22], z[22], z[23]
	for i, c := range exp2 {
		e.splat(math.Float32bits(c), poly[i])
	}
	e.splat(math.Float32bits(log2e), log)
	e.splat(0xffff0000, upper)
	s, dp, rowMax, delta := e.arg("s"), e.arg("dp"), e.arg("rowMax"), e.arg("delta")
	weights, dsCols, dsRows, steps := e.arg("weights"), e.arg("dsCols"), e.arg("dsRows"), e.arg("steps")
	// Distances of tiles: of columns, and of rows.
	across, down := e.GP64(), e.GP64()
	e.IMUL3Q(operand.U32(pieces*tileBytes), steps, across)
	e.MOVQ(e.slot("halves"), down)
	e.IMUL3Q(operand.U32(pieces*tileBytes), down, down)
	halves, lines := e.GP64(), e.GP64()
	const row, half = 256, 16 * 256
	e.times(steps, func() {
		e.MOVQ(e.slot("halves"), halves)
		e.times(halves, func() {
			e.MOVQ(operand.U32(16), lines)
			e.times(lines, func() {
				x, d := z[0:4], z[4:8] // rows p and p+16 of 16 columns, then of the next 16
				place := func(base reg.Register, i int) operand.Mem { return at(base, i%2*half+i/2*line) }
				each := func(f func(i int)) {
					for i := range x {
						f(i)
					}
				}
				for i := range 2 {
					e.VBROADCASTSS(at(rowMax, 64*i), z[24+i])
					e.VBROADCASTSS(at(delta, 64*i), z[26+i])
				}
				each(func(i int) { e.VMOVUPS(place(s, i), x[i]) })
				each(func(i int) { e.VSUBPS(z[24+i%2], x[i], x[i]) })
				r, p := z[8:12], z[12:16]
				each(func(i int) { e.VMULPS(log, x[i], x[i]) })
				each(func(i int) { e.VREDUCEPS(operand.Imm(1), x[i], r[i]) })
				each(func(i int) { e.VMOVAPS(poly[0], p[i]) })
				for c := 1; c < len(poly); c++ {
					each(func(i int) { e.VFMADD213PS(poly[c], r[i], p[i]) })
				}
				each(func(i int) { e.VSCALEFPS(x[i], p[i], x[i]) })
				each(func(i int) { e.VMOVUPS(place(dp, i), d[i]) })
				each(func(i int) { e.VSUBPS(z[26+i%2], d[i], d[i]) })
				each(func(i int) { e.VMULPS(x[i], d[i], d[i]) })
				to := func(base reg.Register, index reg.Register, piece int) operand.Mem {
					m := at(base, tileBytes*piece)
					if index != nil {
						m.Index, m.Scale = index, 1
					}
					return m
				}
				second := func(i int, r reg.Register) reg.Register {
					if i == 0 {
						return nil
					}
					return r
				}
				for i := range 2 {
					lo, hi := z[8:10], z[10:12]
					e.cut(x[2*i], lo, upper)
					e.cut(x[2*i+1], hi, upper)
					for k, pair := range [][]reg.VecPhysical{{lo[0], hi[0]}, {lo[1], hi[1]}, {x[2*i], x[2*i+1]}} {
						e.pair(pair[0], pair[1])
						e.VMOVDQU32(pair[1], to(weights, second(i, across), k))
					}
				}
				for k := range pieces {
					part := z[8:12]
					if k == pieces-1 {
						part = d
						for _, v := range d[1:] { // as cut does
							e.VPANDD(upper, v, v)
						}
					} else {
						each(func(i int) { e.VPANDD(upper, d[i], part[i]) })
						each(func(i int) { e.VSUBPS(part[i], d[i], d[i]) })
					}
					low := z[12:15]
					for i := range low {
						e.VPSRLD(operand.Imm(16), part[i], low[i])
					}
					for i := range 2 {
						e.VPORD(low[2*i], part[2*i+1], z[0])
						e.VMOVDQU32(z[0], to(dsCols, second(i, across), k))
						e.VPORD(low[i], part[2+i], z[1])
						e.VMOVDQU32(z[1], to(dsRows, second(i, down), k))
					}
				}
				e.add(row, s)
				e.add(row, dp)
				e.add(4, rowMax)
				e.add(4, delta)
				for _, p := range []reg.Register{weights, dsCols, dsRows} {
					e.add(line, p)
				}
			})
			// The same rows of the next 32 columns: two tiles of columns on, and one of rows.
			for _, p := range []reg.Register{s, dp} {
				e.add(2*line-half, p)
			}
			for _, p := range []reg.Register{rowMax, delta} {
				e.add(-64, p)
			}
			for _, p := range []reg.Register{weights, dsCols} {
				e.add(-tileBytes, p)
				e.LEAQ(operand.Mem{Base: p, Index: across, Scale: 2}, p)
			}
			e.add((pieces-1)*tileBytes, dsRows)
		})
		e.MOVQ(e.slot("halves"), halves)
		back := e.GP64()
		for range 2 {
			for _, p := range []reg.Register{weights, dsCols} {
				e.MOVQ(across, back)
				e.IMULQ(halves, back)
				e.SUBQ(back, p)
			}
		}
		for _, p := range []reg.Register{weights, dsCols} {
			e.add(pieces*tileBytes, p)
		}
		e.ADDQ(down, dsRows)
		e.SHLQ(operand.Imm(7), halves)
		for _, p := range []reg.Register{s, dp} {
			e.SUBQ(halves, p)
			e.add(32*row, p)
		}
		for _, p := range []reg.Register{rowMax, delta} {
			e.add(128, p)
		}
	})
	e.VZEROUPPER()
	e.RET()
}
