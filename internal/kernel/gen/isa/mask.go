package isa

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Mask selects lanes: a vector of all-one lanes on AVX2, an opmask on AVX-512.
type Mask struct {
	v V
	k reg.OpmaskVirtual
}

// Predicates of Cmp, as VCMPPS numbers them (quiet).
const (
	EQ    = 0x00
	UNORD = 0x03
	LT    = 0x11
	LE    = 0x12
	GT    = 0x1e
)

// Cmp returns the lanes in which a pred b.
func (k *K) Cmp(pred uint8, a, b V) Mask {
	s := specOf(a)
	if k.Arch.EVEX {
		m := Mask{k: k.K()}
		k.last(k.VCMPPS, k.VCMPPS_BCST, []operand.Op{operand.Imm(uint64(pred))}, b, s, a.r, m.k)
		return m
	}
	d := k.vec(s)
	k.last(k.VCMPPS, nil, []operand.Op{operand.Imm(uint64(pred))}, b, s, a.r, d.r)
	return Mask{v: d}
}

// UintLess returns the lanes in which a < b as unsigned integers, for a b that Flip has prepared.
func (k *K) UintLess(a, b V) Mask {
	if k.Arch.EVEX {
		m := Mask{k: k.K()}
		k.VPCMPUD(operand.Imm(1), b.r, a.r, m.k)
		return m
	}
	f := k.Xor(a, Bits(0x80000000))
	d := k.like(a)
	k.VPCMPGTD(f.r, b.r, d.r)
	return Mask{v: d}
}

// Flip prepares the right operand of UintLess: AVX2 compares signed integers only, so the top bits are flipped.
func (k *K) Flip(b V) V {
	if k.Arch.EVEX {
		return b
	}
	return k.Xor(b, Bits(0x80000000))
}

// NoLanes returns an empty mask that OrTo may fill.
func (k *K) NoLanes() Mask {
	if k.Arch.EVEX {
		m := k.K()
		k.KXORW(m, m, m)
		return Mask{k: m}
	}
	return Mask{v: k.Zero()}
}

// OrTo adds the lanes of b to a.
func (k *K) OrTo(a, b Mask) {
	if k.Arch.EVEX {
		k.KORW(a.k, b.k, a.k)
		return
	}
	k.VORPS(a.v.r, b.v.r, a.v.r)
}

// Select returns yes in the lanes of m and no elsewhere.
func (k *K) Select(m Mask, yes, no V) V {
	var s reg.Spec
	switch {
	case !yes.isConst():
		s = specOf(yes)
	case !no.isConst():
		s = specOf(no)
	case m.k == nil:
		s = specOf(m.v)
	default:
		s = k.Arch.spec()
	}
	no = k.inReg(no, s)
	d := k.vec(s)
	if k.Arch.EVEX {
		k.last(k.VBLENDMPS, k.VBLENDMPS_BCST, nil, yes, s, no.r, m.k, d.r)
	} else {
		k.last(func(o ...operand.Op) { k.VBLENDVPS(o[0], o[1], o[2], o[3]) }, nil, []operand.Op{m.v.r}, yes, s, no.r, d.r)
	}
	return d
}

// Keep returns v in the lanes of m and 0 elsewhere.
func (k *K) Keep(m Mask, v V) V {
	d := k.like(v)
	if k.Arch.EVEX {
		k.VMOVAPS_Z(v.r, m.k, d.r)
	} else {
		k.VANDPS(m.v.r, v.r, d.r)
	}
	return d
}

// Drop returns 0 in the lanes of m and v elsewhere.
func (k *K) Drop(m Mask, v V) V {
	if k.Arch.EVEX {
		n := k.K()
		k.KNOTW(m.k, n)
		return k.Keep(Mask{k: n}, v)
	}
	d := k.like(v)
	k.VANDNPS(v.r, m.v.r, d.r)
	return d
}

// firstLanes returns the mask of the first n lanes, 0 ≤ n < Lanes.
func (k *K) firstLanes(n reg.Register) Mask {
	if k.Arch.EVEX {
		t := k.GP32()
		k.MOVL(operand.I32(-1), t)
		k.BZHIL(n.(reg.GPVirtual).As32(), t, t)
		m := Mask{k: k.K()}
		k.KMOVW(t, m.k)
		return m
	}
	const name = "laneMask"
	var table operand.Mem
	if _, ok := k.consts[maskTable]; ok {
		table = operand.NewDataAddr(operand.Symbol{Name: name, Static: true}, 0)
	} else {
		k.consts[maskTable] = name
		table = k.StaticGlobal(name)
		k.DataAttributes(readOnly)
		for i := range 16 {
			var w operand.U32
			if i < 8 {
				w = 0xffffffff
			}
			k.AppendDatum(w)
		}
	}
	p, q := k.GP64(), k.GP64()
	k.LEAQ(table, p)
	k.MOVQ(n, q)
	k.NEGQ(q)
	v := k.New()
	k.VMOVUPS(operand.Mem{Base: p, Index: q, Scale: 4, Disp: 32}, v.r)
	return Mask{v: v}
}

// maskTable is the key of the lane-mask table among the constants; no float constant is this NaN.
const maskTable = 0xffdead01

func (k *K) oddLanes() Mask {
	t := k.GP32()
	k.MOVL(operand.U32(0xaaaa), t)
	m := Mask{k: k.K()}
	k.KMOVW(t, m.k)
	return m
}
