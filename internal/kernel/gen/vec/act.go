package main

import (
	"math"

	"stheno/internal/kernel/gen/isa"
)

// Beyond these the activations have reached their limits in float32; clamping keeps 0·Inf out.
const (
	geluEdge = 15
	siluEdge = 128
)

func negate(k *K, x V) V { return k.Xor(x, isa.Bits(0x80000000)) }

func clamp(k *K, x V, edge float64) V { return k.AtMost(k.AtLeast(x, isa.C(-edge)), isa.C(edge)) }

// complement returns 1−s for s = 1/(1+e) without cancellation, as e·s. Where e overflows s is 0 and any finite value will do.
func complement(k *K, e, s V) V { return k.Mul(k.AtMost(e, isa.C(1e38)), s) }

const (
	geluA = 2 * 0.7978845608028654 // 2·√(2/π)
	geluB = geluA * 0.044715
)

// geluTanhExp returns e^(−2u), u = √(2/π)(x+0.044715x³), and x².
func geluTanhExp(k *K, x V) (e, xx V) {
	xx = k.Mul(x, x)
	p := k.Mut(isa.C(-geluA))
	k.FMATo(p, xx, isa.C(-geluB))
	return k.ExpFlush(k.Mul(p, x)), xx
}

func geluTanh(k *K, x V) V {
	x = k.AtLeast(x, isa.C(-geluEdge))
	e, _ := geluTanhExp(k, x)
	return k.Div(x, k.Add(e, isa.C(1)))
}

// With s = 1/(1+e^(−2u)): f' = s + x·s·(1−s)·2u'.
func geluTanhGrad(k *K, x, dy V) V {
	x = clamp(k, x, geluEdge)
	e, xx := geluTanhExp(k, x)
	s := k.Div(isa.C(1), k.Add(e, isa.C(1)))
	d := k.Mut(isa.C(geluA))
	k.FMATo(d, xx, isa.C(3*geluB))
	d = k.Mul(k.Mul(d, x), complement(k, e, s))
	k.Horner(d, s, s)
	return k.Mul(d, dy)
}

func geluErf(k *K, x V) V {
	low := k.AtLeast(x, isa.C(-geluEdge))
	phi, _ := k.Phi(k.AtMost(low, isa.C(geluEdge)))
	return k.Mul(low, phi)
}

// f' = Φ(x) + x·e^(−x²/2)/√(2π).
func geluErfGrad(k *K, x, dy V) V {
	x = clamp(k, x, geluEdge)
	phi, e := k.Phi(x)
	k.FMATo(phi, k.Mul(x, isa.C(1/math.Sqrt(2*math.Pi))), e)
	return k.Mul(phi, dy)
}

func silu(k *K, x V) V {
	x = k.AtLeast(x, isa.C(-siluEdge))
	return k.Div(x, k.Add(k.ExpFlush(negate(k, x)), isa.C(1)))
}

// f' = s·(1+x·(1−s)), s = σ(x); also returns x·s.
func siluGrad(k *K, x V) (d, xs V) {
	x = clamp(k, x, siluEdge)
	e := k.ExpFlush(negate(k, x))
	s := k.Div(isa.C(1), k.Add(e, isa.C(1)))
	d = complement(k, e, s)
	k.Horner(d, x, isa.C(1))
	return k.Mul(d, s), k.Mul(x, s)
}

// grad describes dst = y·f'(x).
func grad(name, doc string, f func(k *K, x, dy V) V) kernel {
	return binary(name, doc, 1, (*K).PinExp, f)
}

var activations = []kernel{
	unary("geluTanh", "computes dst = x/2*(1+tanh(sqrt(2/pi)*(x+0.044715*x^3))).", 1, (*K).PinExp, geluTanh),
	grad("geluTanhGrad", "computes dst = y times the derivative of geluTanh at x.", geluTanhGrad),
	unary("geluErf", "computes dst = x/2*(1+erf(x/sqrt(2))).", 1, (*K).PinExp, geluErf),
	grad("geluErfGrad", "computes dst = y times the derivative of geluErf at x.", geluErfGrad),
	unary("silu", "computes dst = x/(1+e^-x).", 1, (*K).PinExp, silu),
	grad("siluGrad", "computes dst = y times the derivative of silu at x.", func(k *K, x, dy V) V {
		d, _ := siluGrad(k, x)
		return k.Mul(d, dy)
	}),
	unary("relu", "computes dst = max(x, 0).", 4, nil, func(k *K, x V) V { return k.AtLeast(x, isa.C(0)) }),
	binary("reluGrad", "computes dst = y where not x <= 0, 0 elsewhere.", 2, nil, func(k *K, x, dy V) V {
		return k.Drop(k.Cmp(isa.LE, x, isa.C(0)), dy)
	}),
	binary("swiglu", "computes dst = silu(x)*y.", 1, (*K).PinExp, func(k *K, g, u V) V { return k.Mul(silu(k, g), u) }),
	{chunked: true, Fn: isa.Fn{Name: "swigluGrad", Params: "dg, du, gate, u, dy *float32, n int", Doc: "computes dg = dy*u*silu'(gate), du = dy*silu(gate).", Body: func(k *K) {
		dg, du, gp, up, dyp, n := k.Arg("dg"), k.Arg("du"), k.Arg("gate"), k.Arg("u"), k.Arg("dy"), k.Arg("n")
		k.PinExp()
		k.Range(n, 1, func(it *isa.It) {
			g := it.Load(gp)
			d, _ := siluGrad(k, g)
			s := silu(k, g)
			dy, u := it.Load(dyp), it.Load(up)
			it.Store(dg, k.Mul(d, k.Mul(dy, u)))
			it.Store(du, k.Mul(s, dy))
		})
	}}},
}
