package main

import "stheno/internal/kernel/gen/isa"

// lanes is how many vectors a reduction adds up side by side.
const lanes = 4

// reduction describes a sum over f of each step; f returns nothing and adds to acc.
func reduction(name, params, doc string, pin func(k *K), prepare func(k *K) func(it *isa.It, acc V)) kernel {
	return kernel{Fn: isa.Fn{Name: name, Params: params, Result: "float32", Doc: doc, Body: func(k *K) {
		n := k.Arg("n")
		step := prepare(k)
		if pin != nil {
			pin(k)
		}
		var acc [lanes]V
		for i := range acc {
			acc[i] = k.Zero()
		}
		k.Range(n, lanes, func(it *isa.It) { step(it, acc[it.U]) })
		k.AddTo(acc[0], acc[1])
		k.AddTo(acc[2], acc[3])
		k.AddTo(acc[0], acc[2])
		k.Result(0, k.Reduce(acc[0], k.Add))
	}}}
}

var reductions = []kernel{
	reduction("sum", "x *float32, n int", "returns the sum of x.", nil, func(k *K) func(*isa.It, V) {
		x := k.Arg("x")
		return func(it *isa.It, acc V) { k.AddTo(acc, it.Load(x)) }
	}),
	reduction("dot", "x, y *float32, n int", "returns the sum of x*y.", nil, func(k *K) func(*isa.It, V) {
		x, y := k.Arg("x"), k.Arg("y")
		return func(it *isa.It, acc V) { k.FMATo(acc, it.Load(x), it.Load(y)) }
	}),
	reduction("sumSquaresAbout", "x *float32, n int, mean float32", "returns the sum of (x-mean)^2.", nil, func(k *K) func(*isa.It, V) {
		x, mean := k.Arg("x"), k.Scalar("mean")
		return func(it *isa.It, acc V) {
			d := it.Keep(k.Sub(it.Load(x), mean))
			k.FMATo(acc, d, d)
		}
	}),
	reduction("sumExp", "x *float32, n int, sub float32", "returns the sum of e^(x-sub).", (*K).PinExp, func(k *K) func(*isa.It, V) {
		x, sub := k.Arg("x"), k.Scalar("sub")
		return func(it *isa.It, acc V) { k.AddTo(acc, it.Keep(k.ExpFlush(k.Sub(it.Load(x), sub)))) }
	}),
	reduction("expSub", "dst, x *float32, n int, sub float32", "computes dst = e^(x-sub) and returns its sum.", (*K).PinExp, func(k *K) func(*isa.It, V) {
		dst, x, sub := k.Arg("dst"), k.Arg("x"), k.Scalar("sub")
		return func(it *isa.It, acc V) {
			e := k.ExpFlush(k.Sub(it.Load(x), sub))
			it.Store(dst, e)
			k.AddTo(acc, it.Keep(e))
		}
	}),
	{chunked: true, Fn: isa.Fn{Name: "expSubScale", Params: "dst, x *float32, n int, sub, scale float32", Doc: "computes dst = scale*e^(x-sub).", Body: func(k *K) {
		dst, x, n, sub, scale := k.Arg("dst"), k.Arg("x"), k.Arg("n"), k.Scalar("sub"), k.Scalar("scale")
		k.PinExp()
		k.Range(n, 1, func(it *isa.It) {
			it.Store(dst, k.Mul(k.ExpFlush(k.Sub(it.Load(x), sub)), scale))
		})
	}}},
	{Fn: isa.Fn{Name: "max", Params: "x *float32, n int", Result: "float32", Doc: "returns the largest of x, -Inf for n = 0, a NaN when there is one.", Body: func(k *K) {
		x, n := k.Arg("x"), k.Arg("n")
		bad := k.NoLanes()
		var acc [lanes]V
		for i := range acc {
			acc[i] = k.Mut(minusInf)
		}
		k.Range(n, lanes, func(it *isa.It) {
			v := it.LoadOr(x, minusInf)
			k.OrTo(bad, k.Cmp(isa.UNORD, v, v))
			k.MaxTo(acc[it.U], v)
		})
		k.MaxTo(acc[0], acc[1])
		k.MaxTo(acc[2], acc[3])
		k.MaxTo(acc[0], acc[2])
		// A NaN in any lane reaches lane 0 as the largest unsigned value of all.
		nan := k.Reduce(k.Keep(bad, k.Reg(isa.Bits(0x7fc00000))), k.UintMax)
		k.Result(0, k.Or(k.Reduce(acc[0], k.Max), nan))
	}}},
	{Fn: isa.Fn{Name: "absMax", Params: "x *float32, n int", Result: "float32", Doc: "returns the largest |x|, 0 for n = 0, a NaN when there is one.", Body: func(k *K) {
		x, n := k.Arg("x"), k.Arg("n")
		var acc [lanes]V
		for i := range acc {
			acc[i] = k.Zero()
		}
		// Without the sign, floats order like integers, NaNs above +Inf.
		k.Range(n, lanes, func(it *isa.It) { k.UintMaxTo(acc[it.U], k.Abs(it.Load(x))) })
		k.UintMaxTo(acc[0], acc[1])
		k.UintMaxTo(acc[2], acc[3])
		k.UintMaxTo(acc[0], acc[2])
		k.Result(0, k.Reduce(acc[0], k.UintMax))
	}}},
}
