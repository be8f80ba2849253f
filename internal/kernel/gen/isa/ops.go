package isa

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

type ins func(ops ...operand.Op)

// last emits op pre…, b, rest…, where b is the operand that may stand in memory (the last source in Intel's order): a
// constant is read in place unless it is pinned. bcst is the form with an embedded broadcast, nil when there is none.
func (k *K) last(op, bcst ins, pre []operand.Op, b V, s reg.Spec, rest ...operand.Op) {
	emit := op
	var m operand.Op
	switch p, ok := k.pinned[b.bits]; {
	case !b.isConst():
		m = b.r
	case ok:
		m = resize(p, s).r
	case k.Arch.EVEX && bcst != nil:
		m, emit = k.constant(b.bits), bcst
	case k.Arch.EVEX:
		m = k.inReg(b, s).r
	default:
		m = k.constant(b.bits)
	}
	emit(append(append(append([]operand.Op{}, pre...), m), rest...)...)
}

// bin emits d = a op b.
func (k *K) bin(op, bcst ins, a, b V) V {
	var s reg.Spec
	switch {
	case !a.isConst():
		s = specOf(a)
	case !b.isConst():
		s = specOf(b)
	default:
		s = k.Arch.spec()
	}
	a = k.inReg(a, s)
	d := k.vec(s)
	k.last(op, bcst, nil, b, s, a.r, d.r)
	return d
}

// com is bin for operations that commute: a constant goes where memory may stand.
func (k *K) com(op, bcst ins, a, b V) V {
	if a.isConst() {
		a, b = b, a
	}
	return k.bin(op, bcst, a, b)
}

// Add returns a+b.
func (k *K) Add(a, b V) V { return k.com(k.VADDPS, k.VADDPS_BCST, a, b) }

// Sub returns a−b.
func (k *K) Sub(a, b V) V { return k.bin(k.VSUBPS, k.VSUBPS_BCST, a, b) }

// Mul returns a·b.
func (k *K) Mul(a, b V) V { return k.com(k.VMULPS, k.VMULPS_BCST, a, b) }

// Div returns a/b.
func (k *K) Div(a, b V) V { return k.bin(k.VDIVPS, k.VDIVPS_BCST, a, b) }

// Max returns the larger of a and b, and b when either is a NaN.
func (k *K) Max(a, b V) V { return k.bin(k.VMAXPS, k.VMAXPS_BCST, a, b) }

// Min returns the smaller of a and b, and b when either is a NaN.
func (k *K) Min(a, b V) V { return k.bin(k.VMINPS, k.VMINPS_BCST, a, b) }

// Sqrt returns √a.
func (k *K) Sqrt(a V) V {
	d := k.like(a)
	k.VSQRTPS(a.r, d.r)
	return d
}

// And returns a&b.
func (k *K) And(a, b V) V { return k.com(k.VANDPS, k.VANDPS_BCST, a, b) }

// Or returns a|b.
func (k *K) Or(a, b V) V { return k.com(k.VORPS, k.VORPS_BCST, a, b) }

// Xor returns a^b.
func (k *K) Xor(a, b V) V { return k.com(k.VXORPS, k.VXORPS_BCST, a, b) }

// Abs returns |a|.
func (k *K) Abs(a V) V { return k.And(a, Bits(0x7fffffff)) }

// IntAdd returns a+b on 32-bit integer lanes.
func (k *K) IntAdd(a, b V) V { return k.com(k.VPADDD, k.VPADDD_BCST, a, b) }

// IntSub returns a−b on 32-bit integer lanes.
func (k *K) IntSub(a, b V) V { return k.bin(k.VPSUBD, k.VPSUBD_BCST, a, b) }

// UintMax returns the larger of a and b as unsigned 32-bit integers.
func (k *K) UintMax(a, b V) V { return k.com(k.VPMAXUD, k.VPMAXUD_BCST, a, b) }

// MulEven returns the 64-bit products of the even 32-bit lanes.
func (k *K) MulEven(a, b V) V { return k.com(k.VPMULUDQ, nil, a, b) }

// ShiftLeft returns a<<n on 32-bit lanes.
func (k *K) ShiftLeft(a V, n uint8) V {
	d := k.like(a)
	k.VPSLLD(operand.Imm(uint64(n)), a.r, d.r)
	return d
}

// ShiftRightInt returns a>>n with the sign on 32-bit lanes.
func (k *K) ShiftRightInt(a V, n uint8) V {
	d := k.like(a)
	k.VPSRAD(operand.Imm(uint64(n)), a.r, d.r)
	return d
}

// AddTo adds b to a in place.
func (k *K) AddTo(a, b V) { k.last(k.VADDPS, k.VADDPS_BCST, nil, b, specOf(a), a.r, a.r) }

// MaxTo replaces a by the larger of a and b, and by b when either is a NaN.
func (k *K) MaxTo(a, b V) { k.last(k.VMAXPS, k.VMAXPS_BCST, nil, b, specOf(a), a.r, a.r) }

// UintMaxTo replaces a by the larger of a and b as unsigned 32-bit integers.
func (k *K) UintMaxTo(a, b V) { k.last(k.VPMAXUD, k.VPMAXUD_BCST, nil, b, specOf(a), a.r, a.r) }

// FMATo adds a·b to acc in place.
func (k *K) FMATo(acc, a, b V) {
	if a.isConst() {
		a, b = b, a
	}
	a = k.inReg(a, specOf(acc))
	k.last(k.VFMADD231PS, k.VFMADD231PS_BCST, nil, b, specOf(acc), a.r, acc.r)
}

// FMSTo subtracts a·b from acc in place.
func (k *K) FMSTo(acc, a, b V) {
	if a.isConst() {
		a, b = b, a
	}
	a = k.inReg(a, specOf(acc))
	k.last(k.VFNMADD231PS, k.VFNMADD231PS_BCST, nil, b, specOf(acc), a.r, acc.r)
}

// FMSFrom replaces acc by a·b−acc.
func (k *K) FMSFrom(acc, a, b V) {
	if a.isConst() {
		a, b = b, a
	}
	a = k.inReg(a, specOf(acc))
	k.last(k.VFMSUB231PS, k.VFMSUB231PS_BCST, nil, b, specOf(acc), a.r, acc.r)
}

// Horner replaces p by p·x+c.
func (k *K) Horner(p, x, c V) {
	x = k.inReg(x, specOf(p))
	k.last(k.VFMADD213PS, k.VFMADD213PS_BCST, nil, c, specOf(p), x.r, p.r)
}

// Poly returns c₀+c₁x+c₂x²+…
func (k *K) Poly(x V, c ...float64) V {
	n := len(c) - 1
	p := k.Mut2(C(c[n]), x)
	for i := n - 1; i >= 0; i-- {
		k.Horner(p, x, C(c[i]))
	}
	return p
}

// Mut2 is Mut with the width of like.
func (k *K) Mut2(v, like V) V {
	if !v.isConst() {
		return k.Mut(v)
	}
	s := specOf(like)
	if p, ok := k.pinned[v.bits]; ok {
		return k.Mut(resize(p, s))
	}
	return k.broadcastConst(v, s)
}

// AtLeast returns max(x, c), NaN when x is.
func (k *K) AtLeast(x, c V) V { return k.Max(c, x) }

// AtMost returns min(x, c), NaN when x is.
func (k *K) AtMost(x, c V) V { return k.Min(c, x) }

// ShiftRight64 returns a>>n on 64-bit lanes.
func (k *K) ShiftRight64(a V, n uint8) V {
	d := k.like(a)
	k.VPSRLQ(operand.Imm(uint64(n)), a.r, d.r)
	return d
}

// Interleave returns the even 32-bit lanes of even, and in the odd lanes the even ones of odd.
func (k *K) Interleave(even, odd V) V {
	t := k.like(odd)
	k.VMOVSLDUP(odd.r, t.r)
	if k.Arch.EVEX {
		return k.Select(k.oddLanes(), t, even)
	}
	d := k.like(even)
	k.VBLENDPS(operand.Imm(0xaa), t.r, even.r, d.r)
	return d
}

// SwapPairs exchanges lanes 2i and 2i+1.
func (k *K) SwapPairs(a V) V {
	d := k.like(a)
	k.VPERMILPS(operand.Imm(0xb1), a.r, d.r)
	return d
}

// MulSubAdd replaces p by p·x−c in even lanes and p·x+c in odd lanes.
func (k *K) MulSubAdd(p, x, c V) { k.VFMADDSUB213PS(c.r, x.r, p.r) }
