package isa

import "github.com/mmcloughlin/avo/operand"

// fold reduces v to 128 bits by op on halves.
func (k *K) fold(v V, op func(a, b V) V) V {
	if k.Arch.EVEX && specOf(v) == specOf(k.New()) {
		h := V{r: k.YMM()}
		k.VEXTRACTF64X4(operand.Imm(1), v.r, h.r)
		v = op(resize(v, specOf(h)), h)
	}
	h := V{r: k.XMM()}
	if k.Arch.EVEX {
		k.VEXTRACTF32X4(operand.Imm(1), v.r, h.r)
	} else {
		k.VEXTRACTF128(operand.Imm(1), v.r, h.r)
	}
	return op(v.X(), h)
}

// Reduce combines all lanes of v by op into lane 0.
func (k *K) Reduce(v V, op func(a, b V) V) V {
	v = k.fold(v, op)
	for _, imm := range []uint64{0x4e, 0xb1} {
		t := k.like(v)
		k.VPERMILPS(operand.Imm(imm), v.r, t.r)
		v = op(v, t)
	}
	return v
}

// Reduce4 combines the lanes of each of four vectors by op: lane i of the 128-bit result belongs to v[i].
func (k *K) Reduce4(v [4]V, op func(a, b V) V) V {
	for i := range v {
		v[i] = k.fold(v[i], op)
	}
	pair := func(a, b V) V {
		lo, hi := k.like(a), k.like(a)
		k.VUNPCKLPS(b.r, a.r, lo.r)
		k.VUNPCKHPS(b.r, a.r, hi.r)
		return op(lo, hi)
	}
	p, q := pair(v[0], v[1]), pair(v[2], v[3])
	lo, hi := k.like(p), k.like(p)
	k.VSHUFPS(operand.Imm(0x44), q.r, p.r, lo.r)
	k.VSHUFPS(operand.Imm(0xee), q.r, p.r, hi.r)
	return op(lo, hi)
}

// Spread broadcasts lane i < 4 of the 128-bit v.
func (k *K) Spread(v V, i int) V {
	if i > 0 {
		t := k.like(v)
		k.VPERMILPS(operand.Imm(uint64(i*0x55)), v.r, t.r)
		v = t
	}
	d := k.New()
	k.VBROADCASTSS(v.r, d.r)
	return d
}
