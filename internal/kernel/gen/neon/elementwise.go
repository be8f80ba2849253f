package main

// pin keeps in registers what a kernel asks for, if anything.
func pin(k *K, what func(k *K)) {
	if what != nil {
		what(k)
	}
}

// mapped describes dst = f(x).
func mapped(name, doc string, unroll int, pins func(k *K), f func(k *K, x V) V) kernel {
	return kernel{name: name, params: "dst, x *float32, n int", doc: doc, chunked: true, body: func(k *K) {
		dst, x, n := k.Arg("dst"), k.Arg("x"), k.Arg("n")
		pin(k, pins)
		k.Range(n, unroll, func(it *It) { it.Store(dst, f(k, it.Load(x))) })
	}}
}

// paired describes dst = f(x, y).
func paired(name, doc string, unroll int, pins func(k *K), f func(k *K, x, y V) V) kernel {
	return kernel{name: name, params: "dst, x, y *float32, n int", doc: doc, chunked: true, body: func(k *K) {
		dst, x, y, n := k.Arg("dst"), k.Arg("x"), k.Arg("y"), k.Arg("n")
		pin(k, pins)
		k.Range(n, unroll, func(it *It) { it.Store(dst, f(k, it.Load(x), it.Load(y))) })
	}}
}

// scaled describes dst = f(x, a).
func scaled(name, doc string, f func(k *K, x, a V) V) kernel {
	return kernel{name: name, params: "dst, x *float32, n int, a float32", doc: doc, chunked: true, body: func(k *K) {
		dst, x, n, a := k.Arg("dst"), k.Arg("x"), k.Arg("n"), k.Scalar("a")
		k.Range(n, 4, func(it *It) { it.Store(dst, f(k, it.Load(x), a)) })
	}}
}

var elementwise = []kernel{
	mapped("exp", "computes dst = e^x.", 2, (*K).PinExp, (*K).Exp),
	mapped("tanh", "computes dst = tanh x.", 1, (*K).PinExp, (*K).Tanh),
	mapped("sigmoid", "computes dst = 1/(1+e^-x).", 2, (*K).PinExp, (*K).Sigmoid),
	scaled("scale", "computes dst = a*x.", (*K).Mul),
	scaled("addScalar", "computes dst = x+a.", (*K).Add),
	paired("add", "computes dst = x+y.", 4, nil, (*K).Add),
	paired("mul", "computes dst = x*y.", 4, nil, (*K).Mul),
	{name: "axpy", params: "y, x *float32, n int, a float32", doc: "computes y += a*x.", chunked: true, body: func(k *K) {
		y, x, n, a := k.Arg("y"), k.Arg("x"), k.Arg("n"), k.Scalar("a")
		k.Range(n, 4, func(it *It) {
			sum := it.Load(y)
			k.FMATo(sum, it.Load(x), a)
			it.Store(y, sum)
		})
	}},
	{name: "mulAdd", params: "dst, x, y *float32, n int", doc: "computes dst += x*y.", chunked: true, body: func(k *K) {
		dst, x, y, n := k.Arg("dst"), k.Arg("x"), k.Arg("y"), k.Arg("n")
		k.Range(n, 4, func(it *It) {
			sum := it.Load(dst)
			k.FMATo(sum, it.Load(x), it.Load(y))
			it.Store(dst, sum)
		})
	}},
}
