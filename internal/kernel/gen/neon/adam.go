package main

// The order of c is that of adamCoefs in the kernel package.
var optimizers = []kernel{
	{name: "adamW", params: "p, m, v, grad *float32, n int, c *float32", doc: "is one AdamW step; see AdamW.", chunked: true, body: func(k *K) {
		p, mp, vp, gp, n, c := k.Arg("p"), k.Arg("m"), k.Arg("v"), k.Arg("grad"), k.Arg("n"), k.Arg("c")
		var co [9]V
		for i := range co {
			co[i] = k.At(c, i)
		}
		gradScale, b1, c1, b2, c2, decay, step, root, eps := co[0], co[1], co[2], co[3], co[4], co[5], co[6], co[7], co[8]
		k.Range(n, 1, func(it *It) {
			g := k.Mul(it.Load(gp), gradScale)
			m := k.Mul(it.Load(mp), b1)
			k.FMATo(m, g, c1)
			it.Store(mp, m)
			v := k.Mul(it.Load(vp), b2)
			k.FMATo(v, k.Mul(g, g), c2)
			it.Store(vp, v)
			w := k.Mul(it.Load(p), decay)
			k.FMSTo(w, k.Div(m, k.Horner(k.Sqrt(v), root, eps)), step)
			it.Store(p, w)
		})
	}},
}
