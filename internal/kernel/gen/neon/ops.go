package main

// binary returns a op b.
func (k *K) binary(op string, a, b V) V {
	a, b = k.Reg(a), k.Reg(b)
	d := k.fresh()
	k.with(func(r []int) string { return three(op, r[0], r[1], r[2]) }, d, a, b)
	return d
}

// unary returns op a.
func (k *K) unary(op string, a V) V {
	a = k.Reg(a)
	d := k.fresh()
	k.with(func(r []int) string { return two(op, r[0], r[1]) }, d, a)
	return d
}

// change writes a op b to d, an operand itself: one of a and b, or what a fused instruction adds to.
func (k *K) change(op string, d, a, b V) {
	a, b = k.Reg(a), k.Reg(b)
	k.with(func(r []int) string { return three(op, r[0], r[1], r[2]) }, d, a, b)
}

// Add returns a+b.
func (k *K) Add(a, b V) V { return k.binary("fadd", a, b) }

// Sub returns a−b.
func (k *K) Sub(a, b V) V { return k.binary("fsub", a, b) }

// Mul returns a·b.
func (k *K) Mul(a, b V) V { return k.binary("fmul", a, b) }

// Div returns a/b.
func (k *K) Div(a, b V) V { return k.binary("fdiv", a, b) }

// Sqrt returns √a.
func (k *K) Sqrt(a V) V { return k.unary("fsqrt", a) }

// Abs returns |a|.
func (k *K) Abs(a V) V { return k.unary("fabs", a) }

// Neg returns −a.
func (k *K) Neg(a V) V { return k.unary("fneg", a) }

// AtLeast returns max(x, c), NaN when x is.
func (k *K) AtLeast(x, c V) V { return k.binary("fmax", x, c) }

// AtMost returns min(x, c), NaN when x is.
func (k *K) AtMost(x, c V) V { return k.binary("fmin", x, c) }

// Larger returns the larger of a and b, the number when one is a NaN.
func (k *K) Larger(a, b V) V { return k.binary("fmaxnm", a, b) }

// AddTo adds b to a in place.
func (k *K) AddTo(a, b V) { k.change("fadd", a, a, b) }

// MaxTo replaces a by the larger of a and b, a NaN when one is.
func (k *K) MaxTo(a, b V) { k.change("fmax", a, a, b) }

// LargerTo replaces a by the larger of a and b, the number when one is a NaN.
func (k *K) LargerTo(a, b V) { k.change("fmaxnm", a, a, b) }

// FMATo adds a·b to acc in place.
func (k *K) FMATo(acc, a, b V) { k.change("fmla", acc, a, b) }

// FMSTo subtracts a·b from acc in place.
func (k *K) FMSTo(acc, a, b V) { k.change("fmls", acc, a, b) }

// Horner returns p·x+c.
func (k *K) Horner(p, x, c V) V {
	d := k.Mut(c)
	k.FMATo(d, p, x)
	return d
}

// Poly returns c₀+c₁x+c₂x²+…
func (k *K) Poly(x V, c ...float64) V {
	n := len(c) - 1
	p := k.Reg(C(c[n]))
	for i := n - 1; i >= 0; i-- {
		p = k.Horner(p, x, C(c[i]))
	}
	return p
}

// IntAdd returns a+b on integer lanes.
func (k *K) IntAdd(a, b V) V { return k.binary("add", a, b) }

// IntSub returns a−b on integer lanes.
func (k *K) IntSub(a, b V) V { return k.binary("sub", a, b) }

// Xor returns a^b.
func (k *K) Xor(a, b V) V { return k.binary("eor", a, b) }

// ShiftLeft returns a<<n on integer lanes.
func (k *K) ShiftLeft(a V, n int) V {
	d := k.fresh()
	k.with(func(r []int) string { return shiftLeft(r[0], r[1], n) }, d, a)
	return d
}

// ShiftRightInt returns a>>n on signed integer lanes.
func (k *K) ShiftRightInt(a V, n int) V {
	d := k.fresh()
	k.with(func(r []int) string { return shiftRightInt(r[0], r[1], n) }, d, a)
	return d
}

// A mask is a V whose lanes are all ones or all zeros. A comparison with a NaN is false.

// Equal is the mask of a = b.
func (k *K) Equal(a, b V) V { return k.binary("fcmeq", a, b) }

// Less is the mask of a < b.
func (k *K) Less(a, b V) V { return k.binary("fcmgt", b, a) }

// AtMostMask is the mask of a ≤ b.
func (k *K) AtMostMask(a, b V) V { return k.binary("fcmge", b, a) }

// UintLess is the mask of a < b on unsigned integer lanes.
func (k *K) UintLess(a, b V) V { return k.binary("cmhi", b, a) }

// Select returns yes where the mask is set and no elsewhere. The mask is overwritten.
func (k *K) Select(mask, yes, no V) V {
	k.change("bsl", mask, yes, no)
	return mask
}

// Sign returns the magnitude's bits with the sign of x.
func (k *K) Sign(magnitude, x V) V { return k.Select(k.Mut(Bits(0x80000000)), x, magnitude) }

// Where returns v where the mask is set, 0 elsewhere.
func (k *K) Where(mask, v V) V { return k.binary("and", v, mask) }

// Except returns v where the mask is not set, 0 elsewhere.
func (k *K) Except(mask, v V) V { return k.binary("bic", v, mask) }

// Spread returns a lane of v in every lane.
func (k *K) Spread(v V, lane int) V {
	d := k.fresh()
	k.with(func(r []int) string { return spread(r[0], r[1], lane) }, d, v)
	return d
}

// SumLanes returns the sum of the lanes of v in lane 0.
func (k *K) SumLanes(v V) V {
	v = k.binary("faddp", v, v)
	return k.binary("faddp", v, v)
}

// Fold4 returns the lanes of each of four vectors folded by a pairwise op, one in each lane.
func (k *K) Fold4(op string, v []V) V {
	return k.binary(op, k.binary(op, v[0], v[1]), k.binary(op, v[2], v[3]))
}

// MulWide returns the low and the high words of the 64-bit products of unsigned lanes.
func (k *K) MulWide(a, b V) (low, high V) {
	b = k.Reg(b)
	first, second := k.binary("umull", a, b), k.binary("umull2", a, b)
	return k.binary("uzp1", first, second), k.binary("uzp2", first, second)
}
