package main

import "stheno/internal/kernel/gen/isa"

type (
	K = isa.K
	V = isa.V
)

// minusInf is the constant −Inf.
var minusInf = isa.Bits(0xff800000)

// unary describes dst = f(x).
func unary(name, doc string, unroll int, pin func(k *K), f func(k *K, x V) V) kernel {
	return kernel{chunked: true, Fn: isa.Fn{Name: name, Params: "dst, x *float32, n int", Doc: doc, Body: func(k *K) {
		dst, x, n := k.Arg("dst"), k.Arg("x"), k.Arg("n")
		if pin != nil {
			pin(k)
		}
		k.Range(n, unroll, func(it *isa.It) { it.Store(dst, f(k, it.Load(x))) })
	}}}
}

// binary describes dst = f(x, y).
func binary(name, doc string, unroll int, pin func(k *K), f func(k *K, x, y V) V) kernel {
	return kernel{chunked: true, Fn: isa.Fn{Name: name, Params: "dst, x, y *float32, n int", Doc: doc, Body: func(k *K) {
		dst, x, y, n := k.Arg("dst"), k.Arg("x"), k.Arg("y"), k.Arg("n")
		if pin != nil {
			pin(k)
		}
		k.Range(n, unroll, func(it *isa.It) { it.Store(dst, f(k, it.Load(x), it.Load(y))) })
	}}}
}

// scalar describes dst = f(x, a).
func scalar(name, doc string, f func(k *K, x, a V) V) kernel {
	return kernel{chunked: true, Fn: isa.Fn{Name: name, Params: "dst, x *float32, n int, a float32", Doc: doc, Body: func(k *K) {
		dst, x, n, a := k.Arg("dst"), k.Arg("x"), k.Arg("n"), k.Scalar("a")
		k.Range(n, 4, func(it *isa.It) { it.Store(dst, f(k, it.Load(x), a)) })
	}}}
}

var elementwise = []kernel{
	unary("exp", "computes dst = e^x.", 1, (*K).PinExp, (*K).Exp),
	unary("tanh", "computes dst = tanh x.", 1, (*K).PinExp, (*K).Tanh),
	unary("sigmoid", "computes dst = 1/(1+e^-x).", 1, (*K).PinExp, (*K).Sigmoid),
	scalar("scale", "computes dst = a*x.", (*K).Mul),
	scalar("addScalar", "computes dst = x+a.", (*K).Add),
	binary("add", "computes dst = x+y.", 4, nil, (*K).Add),
	binary("mul", "computes dst = x*y.", 4, nil, (*K).Mul),
	{chunked: true, Fn: isa.Fn{Name: "axpy", Params: "y, x *float32, n int, a float32", Doc: "computes y += a*x.", Body: func(k *K) {
		y, x, n, a := k.Arg("y"), k.Arg("x"), k.Arg("n"), k.Scalar("a")
		k.Range(n, 4, func(it *isa.It) {
			acc := it.Load(y)
			k.FMATo(acc, it.Load(x), a)
			it.Store(y, acc)
		})
	}}},
	{chunked: true, Fn: isa.Fn{Name: "mulAdd", Params: "dst, x, y *float32, n int", Doc: "computes dst += x*y.", Body: func(k *K) {
		dst, x, y, n := k.Arg("dst"), k.Arg("x"), k.Arg("y"), k.Arg("n")
		k.Range(n, 4, func(it *isa.It) {
			acc := it.Load(dst)
			k.FMATo(acc, it.Load(x), it.Load(y))
			it.Store(dst, acc)
		})
	}}},
}
