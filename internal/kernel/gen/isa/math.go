package isa

import "github.com/mmcloughlin/avo/operand"

// Minimax polynomials, fitted by Lawson's iteration on Chebyshev points with the leading coefficients held exact, so that
// 2⁰ = e⁰ = 1.
var (
	exp2Poly = []float64{1, 0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149}    // |r| ≤ 1/2, relative error 9.2e-8
	exp2Frac = []float64{1, 0.6931513118048798, 0.24016445015286672, 0.05579991310968577, 0.009017030315877226, 0.00186713007244494}     // 0 ≤ r < 1, 8.3e-8
	expPoly  = []float64{1, 1, 0.4999999403953552, 0.1666651964187622, 0.04166840761899948, 0.008368921466171741, 0.0013814173871651292} // |r| ≤ ln2/2, 3.2e-9
	// millsPoly is h(a)/t in t = 1/(1+0.35a), where Φ(−a) = e^(−a²/2)·h(a): a ∈ [0,14], relative error 3.2e-8.
	millsPoly = []float64{0.13962140679359436, 0.13986186683177948, 0.11983288824558258, 0.10550786554813385, -0.023109380155801773,
		0.15917329490184784, -0.2557133138179779, 0.14397116005420685, -0.029145799577236176}
	// tanhPoly is (tanh(x)−x)/x³ in x², |x| < 0.625 (Moshier, Cephes tanhf).
	tanhPoly = []float64{-3.33332819422e-1, 1.33314422036e-1, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3}
)

const (
	log2e = 1.4426950408889634
	ln2Hi = 0.693147182464599609375 // float32(ln 2)
	ln2Lo = -1.904654299957768e-9   // ln 2 − ln2Hi
	magic = 3 << 22                 // 1.5·2²³: adding it rounds to an integer, which then stands in the low bits
	bias  = 127                     // of the exponent of a float32
)

// PinExpFast keeps the constants of ExpFast in registers.
func (k *K) PinExpFast() {
	poly := exp2Frac
	if !k.Arch.EVEX {
		k.Pin(C(magic+bias), C(log2e), C(-88))
		poly = exp2Poly
	}
	for i := len(poly) - 1; i >= 0; i-- {
		k.Pin(C(poly[i]))
	}
	k.Pin(C(log2e))
}

// ExpFast returns e^x for x < 88 in the fewest instructions: e⁰ is 1, e^−Inf is 0, the power of a NaN is a NaN. Relative error
// 2.2e-7, and the rounding of x·log₂e to float32. A result below 2^−126 may be 0.
func (k *K) ExpFast(x V) V {
	if k.Arch.EVEX {
		y := k.Mul(x, C(log2e))
		r, d := k.like(x), k.like(x)
		k.VREDUCEPS(operand.Imm(1), y.r, r.r) // y − ⌊y⌋; VSCALEFPS multiplies by 2^⌊y⌋
		p := k.Poly(r, exp2Frac...)
		k.VSCALEFPS(y.r, p.r, d.r)
		return d
	}
	x = k.AtLeast(x, C(-88))
	t := k.Mut2(C(magic+bias), x)
	k.FMATo(t, x, C(log2e))
	r := k.Sub(t, C(magic+bias))
	k.FMSFrom(r, x, C(log2e))
	p := k.Poly(r, exp2Poly...)
	// t holds n+bias in its low bits: shifted into the exponent it is 2^n, and 0 for n = −bias.
	return k.Mul(p, k.ShiftLeft(t, 23))
}

// expReduce returns n = round(x·log2 e), the float32 that has n+add in its low bits, and e^(x−n·ln2).
func (k *K) expReduce(x V, add float64) (t, p V) {
	t = k.Mut2(C(magic+add), x)
	k.FMATo(t, x, C(log2e))
	n := k.Sub(t, C(magic+add))
	r := k.Mut(x)
	k.FMSTo(r, n, C(ln2Hi))
	k.FMSTo(r, n, C(ln2Lo))
	return t, k.Poly(r, expPoly...)
}

// PinExp keeps the constants of Exp and ExpFlush in registers.
func (k *K) PinExp() {
	k.Pin(C(log2e), C(ln2Hi), C(ln2Lo), C(1))
	for i := len(expPoly) - 1; i >= 2; i-- {
		k.Pin(C(expPoly[i]))
	}
}

// Exp returns e^x, denormal results included. Error below 1.2 ulp.
func (k *K) Exp(x V) V {
	x = k.AtMost(k.AtLeast(x, C(-104)), C(89))
	if k.Arch.EVEX {
		return k.expScalef(x)
	}
	t, p := k.expReduce(x, 0)
	// 2^n in two factors, so that neither leaves the normal range.
	n := k.IntSub(t, C(magic))
	half := k.ShiftRightInt(n, 1)
	one := C(1)
	p = k.Mul(p, k.IntAdd(k.ShiftLeft(half, 23), one))
	return k.Mul(p, k.IntAdd(k.ShiftLeft(k.IntSub(n, half), 23), one))
}

// ExpFlush returns e^x with less work than Exp: 0 below −87.6, +Inf above 88.4 on AVX2.
func (k *K) ExpFlush(x V) V {
	if k.Arch.EVEX {
		return k.Exp(x)
	}
	x = k.AtMost(k.AtLeast(x, C(-88)), C(89))
	t, p := k.expReduce(x, bias)
	return k.Mul(p, k.ShiftLeft(t, 23))
}

func (k *K) expScalef(x V) V {
	n, d := k.like(x), k.like(x)
	k.VRNDSCALEPS(operand.Imm(0), k.Mul(x, C(log2e)).r, n.r)
	r := k.Mut(x)
	k.FMSTo(r, n, C(ln2Hi))
	k.FMSTo(r, n, C(ln2Lo))
	p := k.Poly(r, expPoly...)
	k.VSCALEFPS(n.r, p.r, d.r)
	return d
}

// Sigmoid returns 1/(1+e^−x).
func (k *K) Sigmoid(x V) V {
	e := k.ExpFlush(k.Xor(x, Bits(0x80000000)))
	return k.Div(C(1), k.Add(e, C(1)))
}

// Tanh returns tanh x, error below 2 ulp.
func (k *K) Tanh(x V) V {
	a := k.Abs(x)
	z := k.Mul(x, x)
	small := k.Poly(z, tanhPoly...)
	small = k.Mul(small, z)
	k.Horner(small, x, x)
	e := k.ExpFlush(k.Mul(k.AtMost(a, C(10)), C(2)))
	big := k.Sub(C(1), k.Div(C(2), k.Add(e, C(1))))
	big = k.Or(big, k.And(x, Bits(0x80000000)))
	return k.Select(k.Cmp(LT, a, C(0.625)), small, big)
}

// Phi returns the normal distribution Φ(x) and e^(−x²/2), for |x| ≤ 16. Φ has an absolute error below 1e-7.
func (k *K) Phi(x V) (phi, e V) {
	e = k.ExpFlush(k.Mul(k.Mul(x, x), C(-0.5)))
	d := k.Mut2(C(1), x)
	k.FMATo(d, k.Abs(x), C(0.35))
	t := k.Div(C(1), d)
	low := k.Mul(k.Mul(k.Poly(t, millsPoly...), t), e)
	high := k.Sub(C(1), low)
	return k.Select(k.Cmp(LT, x, C(0)), low, high), e
}
