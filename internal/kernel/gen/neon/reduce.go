package main

// chains is how many vectors a reduction adds up side by side.
const chains = 4

// folded describes a result folded from chains vectors that start as init.
func folded(name, params, doc string, pins func(k *K), init V, prepare func(k *K) func(it *It, acc V), join func(k *K, a, b V), end func(k *K, v V) V) kernel {
	return kernel{name: name, params: params, result: "float32", doc: doc, body: func(k *K) {
		n := k.Arg("n")
		step := prepare(k)
		pin(k, pins)
		var acc [chains]V
		for i := range acc {
			acc[i] = k.Mut(init)
		}
		k.Range(n, chains, func(it *It) { step(it, acc[it.U]) })
		join(k, acc[0], acc[1])
		join(k, acc[2], acc[3])
		join(k, acc[0], acc[2])
		k.Result(end(k, acc[0]))
	}}
}

// sum describes the sum of what step adds to acc.
func sum(name, params, doc string, pins func(k *K), prepare func(k *K) func(it *It, acc V)) kernel {
	return folded(name, params, doc, pins, C(0), prepare, (*K).AddTo, (*K).SumLanes)
}

// largest describes the largest of what step compares with acc.
func largest(name, doc string, init V, step func(k *K, v V) V) kernel {
	return folded(name, "x *float32, n int", doc, nil, init, func(k *K) func(*It, V) {
		x := k.Arg("x")
		return func(it *It, acc V) { k.MaxTo(acc, step(k, it.LoadAll(x))) }
	}, (*K).MaxTo, func(k *K, v V) V { return k.unary("fmaxv", v) })
}

var reductions = []kernel{
	sum("sum", "x *float32, n int", "returns the sum of x.", nil, func(k *K) func(*It, V) {
		x := k.Arg("x")
		return func(it *It, acc V) { k.AddTo(acc, it.Load(x)) }
	}),
	sum("dot", "x, y *float32, n int", "returns the sum of x*y.", nil, func(k *K) func(*It, V) {
		x, y := k.Arg("x"), k.Arg("y")
		return func(it *It, acc V) { k.FMATo(acc, it.Load(x), it.Load(y)) }
	}),
	sum("sumSquaresAbout", "x *float32, n int, mean float32", "returns the sum of (x-mean)^2.", nil, func(k *K) func(*It, V) {
		x, mean := k.Arg("x"), k.Scalar("mean")
		return func(it *It, acc V) {
			d := it.Keep(k.Sub(it.Load(x), mean))
			k.FMATo(acc, d, d)
		}
	}),
	sum("sumExp", "x *float32, n int, sub float32", "returns the sum of e^(x-sub).", (*K).PinExp, func(k *K) func(*It, V) {
		x, sub := k.Arg("x"), k.Scalar("sub")
		return func(it *It, acc V) { k.AddTo(acc, it.Keep(k.ExpFlush(k.Sub(it.Load(x), sub)))) }
	}),
	sum("expSub", "dst, x *float32, n int, sub float32", "computes dst = e^(x-sub) and returns its sum.", (*K).PinExp, func(k *K) func(*It, V) {
		dst, x, sub := k.Arg("dst"), k.Arg("x"), k.Scalar("sub")
		return func(it *It, acc V) {
			e := k.ExpFlush(k.Sub(it.Load(x), sub))
			it.Store(dst, e)
			k.AddTo(acc, it.Keep(e))
		}
	}),
	{name: "expSubScale", params: "dst, x *float32, n int, sub, scale float32", doc: "computes dst = scale*e^(x-sub).", chunked: true, body: func(k *K) {
		dst, x, n, sub, scale := k.Arg("dst"), k.Arg("x"), k.Arg("n"), k.Scalar("sub"), k.Scalar("scale")
		k.PinExp()
		k.Range(n, 2, func(it *It) { it.Store(dst, k.Mul(k.ExpFlush(k.Sub(it.Load(x), sub)), scale)) })
	}},
	largest("max", "returns the largest of x, -Inf for n = 0, a NaN when there is one.", minusInf, func(_ *K, v V) V { return v }),
	largest("absMax", "returns the largest |x|, 0 for n = 0, a NaN when there is one.", C(0), (*K).Abs),
}
