package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/isa"
)

// doubles is a vector of float32 as float64: the lower half of its lanes, and the upper one.
type doubles [2]isa.V

// each calls f for both halves.
func each(f func(half int)) { f(0); f(1) }

// widen converts v.
func widen(k *isa.K, v isa.V) doubles {
	d := doubles{k.New(), k.New()}
	k.VCVTPS2PD(v.Half(), d[0].R())
	k.VCVTPS2PD(k.Upper(v), d[1].R())
	return d
}

// widenAt converts the float32 numbers at m.
func widenAt(k *isa.K, m operand.Mem) doubles {
	d := doubles{k.New(), k.New()}
	each(func(i int) { k.VCVTPS2PD(m.Offset(i*k.Arch.Bytes()/2), d[i].R()) })
	return d
}

// narrow converts d back, each number rounded to nearest.
func narrow(k *isa.K, d doubles) isa.V {
	v, upper := k.New(), k.New()
	if k.Arch.EVEX {
		k.VCVTPD2PS(d[0].R(), v.Half())
		k.VCVTPD2PS(d[1].R(), upper.Half())
		k.VINSERTF64X4(operand.Imm(1), upper.Half(), v.R(), v.R())
	} else {
		k.VCVTPD2PSY(d[0].R(), v.Half())
		k.VCVTPD2PSY(d[1].R(), upper.Half())
		k.VINSERTF128(operand.Imm(1), upper.Half(), v.R(), v.R())
	}
	return v
}

// nearest rounds to integers, ties to even.
func nearest(k *isa.K, d isa.V) isa.V {
	r := k.New()
	if k.Arch.EVEX {
		k.VRNDSCALEPD(operand.Imm(0), d.R(), r.R())
	} else {
		k.VROUNDPD(operand.Imm(0), d.R(), r.R())
	}
	return r
}

// divide returns the quotients x/scale, correctly rounded, from the rounded inverse of each scale: the quotient that the inverse
// gives, and a step of Newton's method with its exact remainder (Markstein 1990). x is used up.
func divide(k *isa.K, x doubles, scale, inverse [2]operand.Op) doubles {
	q := doubles{k.New(), k.New()}
	each(func(i int) {
		k.VMULPD(inverse[i], x[i].R(), q[i].R())
		k.VFNMADD231PD(scale[i], q[i].R(), x[i].R())
		k.VFMADD231PD(inverse[i], x[i].R(), q[i].R())
	})
	return q
}

// both is the registers of d as operands.
func both(d doubles) [2]operand.Op { return [2]operand.Op{d[0].R(), d[1].R()} }

// columns is a loop over rows·cols numbers of a matrix, a vector at a time. Pointers of params are to matrices with a distance of ld
// bytes between rows; arrays hold a number for each column.
type columns struct {
	*isa.K
	at reg.GPVirtual // bytes into a row of float32
}

// newColumns calls body once for each vector.
func newColumns(k *isa.K, matrices []string, body func(c *columns, m map[string]reg.GPVirtual)) {
	ptr := map[string]reg.GPVirtual{}
	for _, name := range matrices {
		ptr[name] = k.Arg(name)
	}
	c := &columns{K: k, at: k.GP64()}
	ld, cols := k.Bytes("ld"), k.Bytes("cols")
	k.Rows(k.Arg("rows"), func() {
		again := k.NewLabel("columns")
		k.XORQ(c.at, c.at)
		k.Label(again)
		body(c, ptr)
		k.ADDQ(operand.I32(int32(k.Arch.Bytes())), c.at)
		k.CMPQ(c.at, cols)
		k.JLT(operand.LabelRef(again))
		for _, name := range matrices {
			k.Move(ptr[name], ld)
		}
	})
}

// floats is the vector of a matrix's row, or of an array, at p.
func (c *columns) floats(p reg.Register) operand.Mem {
	return operand.Mem{Base: p, Index: c.at, Scale: 1}
}

// float64s is the two vectors of an array of float64.
func (c *columns) float64s(p reg.Register) [2]operand.Op {
	m := operand.Mem{Base: p, Index: c.at, Scale: 2}
	return [2]operand.Op{m, m.Offset(c.Arch.Bytes())}
}
