package main

// normalize describes dst = (x−mean)·rstd, times gamma and plus beta where asked.
func normalize(name string, gamma, beta bool) kernel {
	params, doc := "dst, x", "computes dst = (x-mean)*rstd"
	if gamma {
		params, doc = params+", gamma", doc+"*gamma"
	}
	if beta {
		params, doc = params+", beta", doc+" + beta"
	}
	return kernel{name: name, params: params + " *float32, n int, mean, rstd float32", doc: doc + ".", chunked: true, body: func(k *K) {
		dst, x, n, mean, rstd := k.Arg("dst"), k.Arg("x"), k.Arg("n"), k.Scalar("mean"), k.Scalar("rstd")
		var g, b gp
		if gamma {
			g = k.Arg("gamma")
		}
		if beta {
			b = k.Arg("beta")
		}
		k.Range(n, 2, func(it *It) {
			v := k.Mul(k.Sub(it.Load(x), mean), rstd)
			switch {
			case beta:
				sum := it.Load(b)
				k.FMATo(sum, v, it.Load(g))
				v = sum
			case gamma:
				v = k.Mul(v, it.Load(g))
			}
			it.Store(dst, v)
		})
	}}
}

// withGamma adds gamma to a list of parameters where asked.
func withGamma(gamma bool, before, after string) string {
	if gamma {
		before += ", gamma"
	}
	return before + after
}

// gradient returns the load of a step's g = dy·gamma, or g = dy.
func gradient(k *K, gamma bool) func(it *It) V {
	dy := k.Arg("dy")
	if !gamma {
		return func(it *It) V { return it.Load(dy) }
	}
	p := k.Arg("gamma")
	return func(it *It) V { return k.Mul(it.Load(dy), it.Load(p)) }
}

func normGradSums(name string, gamma bool) kernel {
	return kernel{name: name, params: withGamma(gamma, "x, dy", " *float32, n int, mean, rstd float32, sums *float32"),
		doc: "stores the sums of g and g*xhat, g = dy*gamma, xhat = (x-mean)*rstd.", body: func(k *K) {
			load := gradient(k, gamma)
			x, n, mean, rstd, out := k.Arg("x"), k.Arg("n"), k.Scalar("mean"), k.Scalar("rstd"), k.Arg("sums")
			s := [2]V{k.Mut(C(0)), k.Mut(C(0))}
			t := [2]V{k.Mut(C(0)), k.Mut(C(0))}
			k.Range(n, 2, func(it *It) {
				g := load(it)
				xhat := it.Keep(k.Mul(k.Sub(it.Load(x), mean), rstd))
				k.AddTo(s[it.U], g)
				k.FMATo(t[it.U], g, xhat)
			})
			k.Store1(out, 0, k.SumLanes(k.Add(s[0], s[1])))
			k.Store1(out, 4, k.SumLanes(k.Add(t[0], t[1])))
		}}
}

func normGradX(name string, gamma bool) kernel {
	return kernel{name: name, params: withGamma(gamma, "dx, x, dy", " *float32, n int, mean, rstd, c1, c2 float32"), chunked: true,
		doc: "computes dx = rstd*(g - c1 - c2*xhat), g = dy*gamma, xhat = (x-mean)*rstd.", body: func(k *K) {
			load := gradient(k, gamma)
			dx, x, n := k.Arg("dx"), k.Arg("x"), k.Arg("n")
			mean, rstd, c1, c2 := k.Scalar("mean"), k.Scalar("rstd"), k.Scalar("c1"), k.Scalar("c2")
			k.Range(n, 2, func(it *It) {
				g := k.Sub(load(it), c1)
				k.FMSTo(g, k.Mul(k.Sub(it.Load(x), mean), rstd), c2)
				it.Store(dx, k.Mul(g, rstd))
			})
		}}
}

var norms = []kernel{
	normalize("normalize", false, false),
	normalize("normalizeScale", true, false),
	normalize("normalizeAffine", true, true),
	normGradSums("normGradSums", false),
	normGradSums("normGradSumsScale", true),
	normGradX("normGradX", false),
	normGradX("normGradXScale", true),
	{name: "normGradGamma", params: "dgamma, x, dy *float32, n int, mean, rstd float32", doc: "computes dgamma += dy*(x-mean)*rstd.", chunked: true, body: func(k *K) {
		dgamma, x, dy, n, mean, rstd := k.Arg("dgamma"), k.Arg("x"), k.Arg("dy"), k.Arg("n"), k.Scalar("mean"), k.Scalar("rstd")
		k.Range(n, 2, func(it *It) {
			sum := it.Load(dgamma)
			k.FMATo(sum, it.Load(dy), k.Mul(k.Sub(it.Load(x), mean), rstd))
			it.Store(dgamma, sum)
		})
	}},
}
