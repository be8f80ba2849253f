package main

import "math"

// Beyond these the activations have reached their limits in float32; clamping keeps 0·Inf out.
const (
	geluEdge = 15
	siluEdge = 128
)

func clamp(k *K, x V, edge float64) V { return k.AtMost(k.AtLeast(x, C(-edge)), C(edge)) }

// complement returns 1−s for s = 1/(1+e) without cancellation, as e·s. Where e overflows s is 0 and any finite value will do.
func complement(k *K, e, s V) V { return k.Mul(k.AtMost(e, C(1e38)), s) }

const (
	geluA = 2 * 0.7978845608028654 // 2·√(2/π)
	geluB = geluA * 0.044715
)

// geluTanhExp returns e^(−2u), u = √(2/π)(x+0.044715x³), and x².
func geluTanhExp(k *K, x V) (e, xx V) {
	xx = k.Mul(x, x)
	return k.ExpFlush(k.Mul(k.Horner(xx, C(-geluB), C(-geluA)), x)), xx
}

func geluTanh(k *K, x V) V {
	x = k.AtLeast(x, C(-geluEdge))
	e, _ := geluTanhExp(k, x)
	return k.Div(x, k.Add(e, one))
}

// With s = 1/(1+e^(−2u)): f' = s + x·s·(1−s)·2u'.
func geluTanhGrad(k *K, x, dy V) V {
	x = clamp(k, x, geluEdge)
	e, xx := geluTanhExp(k, x)
	s := k.Div(one, k.Add(e, one))
	d := k.Mul(k.Mul(k.Horner(xx, C(3*geluB), C(geluA)), x), complement(k, e, s))
	return k.Mul(k.Horner(d, s, s), dy)
}

func geluErf(k *K, x V) V {
	low := k.AtLeast(x, C(-geluEdge))
	phi, _ := k.Phi(k.AtMost(low, C(geluEdge)))
	return k.Mul(low, phi)
}

// f' = Φ(x) + x·e^(−x²/2)/√(2π).
func geluErfGrad(k *K, x, dy V) V {
	x = clamp(k, x, geluEdge)
	phi, e := k.Phi(x)
	return k.Mul(k.Horner(k.Mul(x, C(1/math.Sqrt(2*math.Pi))), e, phi), dy)
}

func silu(k *K, x V) V {
	x = k.AtLeast(x, C(-siluEdge))
	return k.Div(x, k.Add(k.ExpFlush(k.Neg(x)), one))
}

// f' = s·(1+x·(1−s)), s = σ(x).
func siluGrad(k *K, x V) V {
	x = clamp(k, x, siluEdge)
	e := k.ExpFlush(k.Neg(x))
	s := k.Div(one, k.Add(e, one))
	return k.Mul(k.Horner(complement(k, e, s), x, one), s)
}

// sloped describes dst = y·f'(x).
func sloped(name, doc string, f func(k *K, x, dy V) V) kernel {
	return paired(name, doc, 1, (*K).PinExp, f)
}

var activations = []kernel{
	mapped("geluTanh", "computes dst = x/2*(1+tanh(sqrt(2/pi)*(x+0.044715*x^3))).", 1, (*K).PinExp, geluTanh),
	sloped("geluTanhGrad", "computes dst = y times the derivative of geluTanh at x.", geluTanhGrad),
	mapped("geluErf", "computes dst = x/2*(1+erf(x/sqrt(2))).", 1, (*K).PinExp, geluErf),
	sloped("geluErfGrad", "computes dst = y times the derivative of geluErf at x.", geluErfGrad),
	mapped("silu", "computes dst = x/(1+e^-x).", 1, (*K).PinExp, silu),
	sloped("siluGrad", "computes dst = y times the derivative of silu at x.", func(k *K, x, dy V) V { return k.Mul(siluGrad(k, x), dy) }),
	mapped("relu", "computes dst = max(x, 0).", 4, func(k *K) { k.Pin(C(0)) }, func(k *K, x V) V { return k.AtLeast(x, C(0)) }),
	paired("reluGrad", "computes dst = y where not x <= 0, 0 elsewhere.", 4, func(k *K) { k.Pin(C(0)) }, func(k *K, x, dy V) V {
		return k.Except(k.AtMostMask(x, C(0)), dy)
	}),
	paired("swiglu", "computes dst = silu(x)*y.", 1, (*K).PinExp, func(k *K, g, u V) V { return k.Mul(silu(k, g), u) }),
	{name: "swigluGrad", params: "dg, du, gate, u, dy *float32, n int", doc: "computes dg = dy*u*silu'(gate), du = dy*silu(gate).", chunked: true, body: func(k *K) {
		dg, du, gate, u, dy, n := k.Arg("dg"), k.Arg("du"), k.Arg("gate"), k.Arg("u"), k.Arg("dy"), k.Arg("n")
		k.PinExp()
		k.Range(n, 1, func(it *It) {
			g := it.Load(gate)
			slope, value := siluGrad(k, g), silu(k, g)
			d := it.Load(dy)
			slope = k.Mul(slope, k.Mul(d, it.Load(u)))
			it.Store(dg, slope)
			it.Store(du, k.Mul(value, d))
		})
	}},
}
