package main

import "stheno/internal/kernel/gen/isa"

// normalize describes dst = (x−mean)·rstd, times gamma and plus beta where asked.
func normalize(name string, gamma, beta bool) kernel {
	params, doc := "dst, x", "computes dst = (x-mean)*rstd"
	if gamma {
		params, doc = params+", gamma", doc+"*gamma"
	}
	if beta {
		params, doc = params+", beta", doc+" + beta"
	}
	return kernel{chunked: true, Fn: isa.Fn{Name: name, Params: params + " *float32, n int, mean, rstd float32", Doc: doc + ".", Body: func(k *K) {
		dst, x, n, mean, rstd := k.Arg("dst"), k.Arg("x"), k.Arg("n"), k.Scalar("mean"), k.Scalar("rstd")
		load := func(name string, want bool) func(it *isa.It) V {
			if !want {
				return nil
			}
			p := k.Arg(name)
			return func(it *isa.It) V { return it.Load(p) }
		}
		g, b := load("gamma", gamma), load("beta", beta)
		k.Range(n, 2, func(it *isa.It) {
			v := k.Mul(k.Sub(it.Load(x), mean), rstd)
			switch {
			case beta:
				k.Horner(v, g(it), b(it))
			case gamma:
				v = k.Mul(v, g(it))
			}
			it.Store(dst, v)
		})
	}}}
}

// With g = dy·gamma and xhat = (x−mean)·rstd.
func normGradSums(name string, gamma bool) kernel {
	params := "x, dy"
	if gamma {
		params += ", gamma"
	}
	return kernel{Fn: isa.Fn{Name: name, Params: params + " *float32, n int, mean, rstd float32, sums *float32",
		Doc: "stores the sums of g and g*xhat, g = dy*gamma, xhat = (x-mean)*rstd.", Body: func(k *K) {
			x, dy, n, mean, rstd := k.Arg("x"), k.Arg("dy"), k.Arg("n"), k.Scalar("mean"), k.Scalar("rstd")
			out := k.Arg("sums")
			scale := func(_ *isa.It, v V) V { return v }
			if gamma {
				p := k.Arg("gamma")
				scale = func(it *isa.It, v V) V { return k.Mul(v, it.Load(p)) }
			}
			s := [2]V{k.Zero(), k.Zero()}
			t := [2]V{k.Zero(), k.Zero()}
			k.Range(n, 2, func(it *isa.It) {
				g := scale(it, it.Load(dy))
				xhat := it.Keep(k.Mul(k.Sub(it.Load(x), mean), rstd))
				k.AddTo(s[it.U], g)
				k.FMATo(t[it.U], g, xhat)
			})
			k.AddTo(s[0], s[1])
			k.AddTo(t[0], t[1])
			k.Store1(mem(out, 0), k.Reduce(s[0], k.Add))
			k.Store1(mem(out, 4), k.Reduce(t[0], k.Add))
		}}}
}

func normGradX(name string, gamma bool) kernel {
	params := "dx, x, dy"
	if gamma {
		params += ", gamma"
	}
	return kernel{chunked: true, Fn: isa.Fn{Name: name, Params: params + " *float32, n int, mean, rstd, c1, c2 float32",
		Doc: "computes dx = rstd*(g - c1 - c2*xhat), g = dy*gamma, xhat = (x-mean)*rstd.", Body: func(k *K) {
			dx, x, dy, n := k.Arg("dx"), k.Arg("x"), k.Arg("dy"), k.Arg("n")
			mean, rstd, c1, c2 := k.Scalar("mean"), k.Scalar("rstd"), k.Scalar("c1"), k.Scalar("c2")
			scale := func(_ *isa.It, v V) V { return v }
			if gamma {
				p := k.Arg("gamma")
				scale = func(it *isa.It, v V) V { return k.Mul(v, it.Load(p)) }
			}
			k.Range(n, 1, func(it *isa.It) {
				g := k.Sub(scale(it, it.Load(dy)), c1)
				xhat := k.Mul(k.Sub(it.Load(x), mean), rstd)
				k.FMSTo(g, xhat, c2)
				it.Store(dx, k.Mul(g, rstd))
			})
		}}}
}

var norms = []kernel{
	normalize("normalize", false, false),
	normalize("normalizeScale", true, false),
	normalize("normalizeAffine", true, true),
	normGradSums("normGradSums", false),
	normGradSums("normGradSumsScale", true),
	normGradX("normGradX", false),
	normGradX("normGradXScale", true),
	{chunked: true, Fn: isa.Fn{Name: "normGradGamma", Params: "dgamma, x, dy *float32, n int, mean, rstd float32", Doc: "computes dgamma += dy*(x-mean)*rstd.", Body: func(k *K) {
		dgamma, x, dy, n, mean, rstd := k.Arg("dgamma"), k.Arg("x"), k.Arg("dy"), k.Arg("n"), k.Scalar("mean"), k.Scalar("rstd")
		k.Range(n, 2, func(it *isa.It) {
			acc := it.Load(dgamma)
			k.FMATo(acc, it.Load(dy), k.Mul(k.Sub(it.Load(x), mean), rstd))
			it.Store(dgamma, acc)
		})
	}}},
}
