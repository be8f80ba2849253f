package main

// The polynomials and constants are those of package isa, so that amd64 and arm64 compute alike.
var (
	exp2Poly  = []float64{1, 0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149}    // |r| ≤ 1/2, relative error 9.2e-8
	expPoly   = []float64{1, 1, 0.4999999403953552, 0.1666651964187622, 0.04166840761899948, 0.008368921466171741, 0.0013814173871651292} // |r| ≤ ln2/2, 3.2e-9
	millsPoly = []float64{0.13962140679359436, 0.13986186683177948, 0.11983288824558258, 0.10550786554813385, -0.023109380155801773,
		0.15917329490184784, -0.2557133138179779, 0.14397116005420685, -0.029145799577236176} // h(a)/t, t = 1/(1+0.35a), Φ(−a) = e^(−a²/2)·h(a), 3.2e-8
	tanhPoly = []float64{-3.33332819422e-1, 1.33314422036e-1, -5.37397155531e-2, 2.06390887954e-2, -5.70498872745e-3} // (tanh(x)−x)/x³ in x², |x| < 0.625
)

const (
	log2e = 1.4426950408889634
	ln2Hi = 0.693147182464599609375 // float32(ln 2)
	ln2Lo = -1.904654299957768e-9   // ln 2 − ln2Hi
	magic = 3 << 22                 // 1.5·2²³: adding it rounds to an integer, which then stands in the low bits
	bias  = 127                     // of the exponent of a float32
)

var (
	minusInf = Bits(0xff800000)
	plusInf  = Bits(0x7f800000)
	one      = C(1)
)

// PinExpFast keeps the constants of ExpFast in registers that are not added to in place.
func (k *K) PinExpFast() { k.Pin(C(magic+bias), C(-88), C(log2e), C(exp2Poly[len(exp2Poly)-1])) }

// ExpFast returns e^x for x < 88 in the fewest instructions: e⁰ is 1, e^−Inf is 0, the power of a NaN is a NaN. Relative error
// 2.2e-7, and the rounding of x·log₂e to float32. A result below 2^−126 may be 0.
func (k *K) ExpFast(x V) V {
	x = k.AtLeast(x, C(-88))
	t := k.Mut(C(magic + bias))
	k.FMATo(t, x, C(log2e))
	r := k.Neg(k.Sub(t, C(magic+bias)))
	k.FMATo(r, x, C(log2e))
	p := k.Poly(r, exp2Poly...)
	// t holds n+bias in its low bits: shifted into the exponent it is 2^n, and 0 for n = −bias.
	return k.Mul(p, k.ShiftLeft(t, 23))
}

// expReduce returns t, the float32 that has n+add in its low bits for n = round(x·log2 e), and e^(x−n·ln2).
func (k *K) expReduce(x V, add float64) (t, p V) {
	t = k.Mut(C(magic + add))
	k.FMATo(t, x, C(log2e))
	n := k.Sub(t, C(magic+add))
	r := k.Mut(x)
	k.FMSTo(r, n, C(ln2Hi))
	k.FMSTo(r, n, C(ln2Lo))
	return t, k.Poly(r, expPoly...)
}

// PinExp keeps the constants of Exp and ExpFlush in registers that are not added to in place.
func (k *K) PinExp() {
	k.Pin(C(log2e), C(ln2Hi), C(ln2Lo), one, C(-88), C(89), C(magic+bias), C(expPoly[len(expPoly)-1]))
}

// Exp returns e^x, denormal results included. Error below 1.2 ulp.
func (k *K) Exp(x V) V {
	x = k.AtMost(k.AtLeast(x, C(-104)), C(89))
	t, p := k.expReduce(x, 0)
	// 2^n in two factors, so that neither leaves the normal range.
	n := k.IntSub(t, C(magic))
	half := k.ShiftRightInt(n, 1)
	p = k.Mul(p, k.IntAdd(k.ShiftLeft(half, 23), one))
	return k.Mul(p, k.IntAdd(k.ShiftLeft(k.IntSub(n, half), 23), one))
}

// ExpFlush returns e^x with less work than Exp: 0 below −87.6, +Inf above 88.4.
func (k *K) ExpFlush(x V) V {
	x = k.AtMost(k.AtLeast(x, C(-88)), C(89))
	t, p := k.expReduce(x, bias)
	return k.Mul(p, k.ShiftLeft(t, 23))
}

// Sigmoid returns 1/(1+e^−x).
func (k *K) Sigmoid(x V) V { return k.Div(one, k.Add(k.ExpFlush(k.Neg(x)), one)) }

// Tanh returns tanh x, error below 2 ulp.
func (k *K) Tanh(x V) V {
	a := k.Abs(x)
	z := k.Mul(x, x)
	small := k.Horner(k.Mul(k.Poly(z, tanhPoly...), z), x, x)
	e := k.ExpFlush(k.Mul(k.AtMost(a, C(10)), C(2)))
	big := k.Sign(k.Sub(one, k.Div(C(2), k.Add(e, one))), x)
	return k.Select(k.Less(a, C(0.625)), small, big)
}

// Phi returns the normal distribution Φ(x) and e^(−x²/2), for |x| ≤ 16. Φ has an absolute error below 1e-7.
func (k *K) Phi(x V) (phi, e V) {
	e = k.ExpFlush(k.Mul(k.Mul(x, x), C(-0.5)))
	t := k.Div(one, k.Horner(k.Abs(x), C(0.35), one))
	low := k.Mul(k.Mul(k.Poly(t, millsPoly...), t), e)
	return k.Select(k.Less(x, C(0)), low, k.Sub(one, low)), e
}
