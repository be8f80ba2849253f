package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/isa"
)

const (
	sizes = "ld, rows, cols int"
	steps = "scale *float32, inverse *float64, low, high *float32, "
)

// rowRange is the smallest and the largest of a row.
func rowRange() isa.Fn {
	return isa.Fn{Name: "rowRange", Params: "x *float32, n int", Result: "(lo, hi float32)",
		Doc: "returns the smallest and the largest of x, which has no NaN. n is a positive multiple of 16.",
		Body: func(k *isa.K) {
			x, n := k.Arg("x"), k.Arg("n")
			lo := k.Get(operand.Mem{Base: x})
			hi := k.Mut(lo)
			k.RangeWhole(n, func(it *isa.It) {
				v := it.Load(x)
				k.VMINPS(v.R(), lo.R(), lo.R())
				k.MaxTo(hi, v)
			})
			k.Result(0, k.Reduce(lo, k.Min))
			k.Result(1, k.Reduce(hi, k.Max))
		}}
}

// columnRange is lo[j] = min(lo[j], x[i][j]) and hi[j] = max(hi[j], x[i][j]).
func columnRange() isa.Fn {
	return isa.Fn{Name: "columnRange", Params: "lo, hi, x *float32, " + sizes,
		Doc: "computes lo[j] = min(lo[j], x[i·ld+j]) and hi[j] = max(hi[j], x[i·ld+j]) for i < rows, j < cols, a multiple of 16.\nx has no NaN.",
		Body: func(k *isa.K) {
			lo, hi := k.Arg("lo"), k.Arg("hi")
			newColumns(k, []string{"x"}, func(c *columns, m map[string]reg.GPVirtual) {
				v := k.Get(c.floats(m["x"]))
				a, b := k.New(), k.New()
				k.VMINPS(c.floats(lo), v.R(), a.R())
				k.VMAXPS(c.floats(hi), v.R(), b.R())
				k.Put(c.floats(lo), a)
				k.Put(c.floats(hi), b)
			})
		}}
}

// rounder is the grids of columns.
type rounder struct{ scale, inverse, low, high reg.GPVirtual }

func newRounder(k *isa.K) rounder {
	return rounder{k.Arg("scale"), k.Arg("inverse"), k.Arg("low"), k.Arg("high")}
}

// quotients are x/scale.
func (r rounder) quotients(c *columns, x isa.V) doubles {
	scale := widenAt(c.K, c.floats(r.scale))
	return divide(c.K, widen(c.K, x), both(scale), c.float64s(r.inverse))
}

// value is scale·clamp(round(x/scale), low, high), never −0.
func (r rounder) value(c *columns, x isa.V) isa.V {
	q := r.quotients(c, x)
	each(func(i int) { q[i] = nearest(c.K, q[i]) })
	v := narrow(c.K, q)
	c.VMAXPS(c.floats(r.low), v.R(), v.R())
	c.VMINPS(c.floats(r.high), v.R(), v.R())
	v = c.Add(v, c.Zero())
	c.VMULPS(c.floats(r.scale), v.R(), v.R())
	return v
}

// roundColumns is y = scale·clamp(round(x/scale), low, high).
func roundColumns() isa.Fn {
	return isa.Fn{Name: "roundColumns", Params: "y, x *float32, " + steps + sizes,
		Doc: "computes y[i·ld+j] = scale[j]·clamp(round(x[i·ld+j]/scale[j]), low[j], high[j]) for i < rows, j < cols, a multiple of 16.\ninverse[j] is 1/scale[j].",
		Body: func(k *isa.K) {
			r := newRounder(k)
			newColumns(k, []string{"y", "x"}, func(c *columns, m map[string]reg.GPVirtual) {
				k.Put(c.floats(m["y"]), r.value(c, k.Get(c.floats(m["x"]))))
			})
		}}
}

// columnErrors is sum += (y − x)² with y of roundColumns.
func columnErrors() isa.Fn {
	return isa.Fn{Name: "columnErrors", Params: "sum *float64, x *float32, " + steps + sizes,
		Doc: "adds to sum[j] the squares of y[i·ld+j] − x[i·ld+j], in float64 and in the order of i, with y of roundColumns.",
		Body: func(k *isa.K) {
			r, sum := newRounder(k), k.Arg("sum")
			newColumns(k, []string{"x"}, func(c *columns, m map[string]reg.GPVirtual) {
				x := k.Get(c.floats(m["x"]))
				y, d := widen(k, r.value(c, x)), widen(k, x)
				at := c.float64s(sum)
				each(func(i int) {
					k.VSUBPD(d[i].R(), y[i].R(), d[i].R())
					k.VMULPD(d[i].R(), d[i].R(), d[i].R())
					k.VADDPD(at[i], d[i].R(), d[i].R())
					k.VMOVUPD(d[i].R(), at[i])
				})
			})
		}}
}

// passColumns is the gradient of roundColumns straight through the rounding, and nothing where it clamps.
func passColumns() isa.Fn {
	return isa.Fn{Name: "passColumns", Params: "dx, dy, x *float32, " + steps + sizes,
		Doc: "computes dx = dy where low − ½ ≤ x/scale ≤ high + ½, and 0 elsewhere; sizes and arrays are those of roundColumns.",
		Body: func(k *isa.K) {
			r, half := newRounder(k), k.Double(0.5)
			newColumns(k, []string{"dx", "dy", "x"}, func(c *columns, m map[string]reg.GPVirtual) {
				q := r.quotients(c, k.Get(c.floats(m["x"])))
				dy := widenAt(k, c.floats(m["dy"]))
				low, high := widenAt(k, c.floats(r.low)), widenAt(k, c.floats(r.high))
				each(func(i int) {
					k.VSUBPD(half.R(), low[i].R(), low[i].R())
					k.VADDPD(half.R(), high[i].R(), high[i].R())
					dropDouble(k, dy[i], less(k, q[i], low[i]))
					dropDouble(k, dy[i], less(k, high[i], q[i]))
				})
				k.Put(c.floats(m["dx"]), narrow(k, dy))
			})
		}}
}

// lanes is the result of a comparison of float64 numbers.
type lanes struct{ r reg.Register }

// compare sets the lanes in which a pred b.
func compare(k *isa.K, pred uint8, a, b isa.V) lanes {
	if k.Arch.EVEX {
		m := k.K()
		k.VCMPPD(operand.Imm(uint64(pred)), b.R(), a.R(), m)
		return lanes{m}
	}
	d := k.New()
	k.VCMPPD(operand.Imm(uint64(pred)), b.R(), a.R(), d.R())
	return lanes{d.R()}
}

func less(k *isa.K, a, b isa.V) lanes        { return compare(k, isa.LT, a, b) }
func lessOrEqual(k *isa.K, a, b isa.V) lanes { return compare(k, isa.LE, a, b) }

// dropDouble zeroes the lanes of v that m has.
func dropDouble(k *isa.K, v isa.V, m lanes) {
	if k.Arch.EVEX {
		n := k.K()
		k.KNOTB(m.r, n)
		k.VMOVAPD_Z(v.R(), n, v.R())
		return
	}
	k.VANDNPD(v.R(), m.r, v.R())
}

// put replaces the lanes of v that m has by those of x.
func put(k *isa.K, v isa.V, m lanes, x isa.V) {
	if k.Arch.EVEX {
		k.VBLENDMPD(x.R(), v.R(), m.r, v.R())
		return
	}
	k.VBLENDVPD(m.r, x.R(), v.R(), v.R())
}

// learnColumns is the gradient of roundColumns, and that of its scales, for −low = high.
func learnColumns() isa.Fn {
	return isa.Fn{Name: "learnColumns", Params: "dx *float32, sum *float64, dy, x *float32, " + steps + sizes,
		Doc: "computes, with v = x/scale, dx = dy where low < v < high, and 0 elsewhere, and adds to sum[j], in float64 and in the order of i,\n" +
			"dy·(round(v) − v) there, dy·low where v ≤ low, and dy·high where v ≥ high. low is −high. Sizes and arrays are those of\nroundColumns.",
		Body: func(k *isa.K) {
			r, sum := newRounder(k), k.Arg("sum")
			newColumns(k, []string{"dx", "dy", "x"}, func(c *columns, m map[string]reg.GPVirtual) {
				q := r.quotients(c, k.Get(c.floats(m["x"])))
				dy := widenAt(k, c.floats(m["dy"]))
				low, high := widenAt(k, c.floats(r.low)), widenAt(k, c.floats(r.high))
				at := c.float64s(sum)
				each(func(i int) {
					t := nearest(k, q[i])
					k.VSUBPD(q[i].R(), t.R(), t.R())
					below, above := lessOrEqual(k, q[i], low[i]), lessOrEqual(k, high[i], q[i])
					put(k, t, below, low[i])
					put(k, t, above, high[i])
					k.VMULPD(dy[i].R(), t.R(), t.R())
					k.VADDPD(at[i], t.R(), t.R())
					k.VMOVUPD(t.R(), at[i])
					dropDouble(k, dy[i], below)
					dropDouble(k, dy[i], above)
				})
				k.Put(c.floats(m["dx"]), narrow(k, dy))
			})
		}}
}

// roundRow is y = scale·round(clamp(x, −end, end)·inverse).
func roundRow() isa.Fn {
	return isa.Fn{Name: "roundToScale", Params: "y, x *float32, n int, scale, inverse, end float32",
		Doc: "computes y[i] = scale·round(clamp(x[i], −end, end)·inverse), ties to even. A NaN stays one.",
		Body: func(k *isa.K) {
			y, x, n := k.Arg("y"), k.Arg("x"), k.Arg("n")
			scale, inverse, end := k.Scalar("scale"), k.Scalar("inverse"), k.Scalar("end")
			least := k.Xor(end, isa.Bits(0x80000000))
			k.Range(n, 2, func(it *isa.It) {
				v := k.Mul(k.AtMost(k.AtLeast(it.Load(x), least), end), inverse)
				r := k.New()
				if k.Arch.EVEX {
					k.VRNDSCALEPS(operand.Imm(0), v.R(), r.R())
				} else {
					k.VROUNDPS(operand.Imm(0), v.R(), r.R())
				}
				it.Store(y, k.Mul(r, scale))
			})
		}}
}
