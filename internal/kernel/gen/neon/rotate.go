package main

// turn returns x1·cos − x2·sin and x2·cos + x1·sin.
func turn(k *K, x1, x2, cos, sin V) (y1, y2 V) {
	y1, y2 = k.Mul(x1, cos), k.Mul(x2, cos)
	k.FMSTo(y1, x2, sin)
	k.FMATo(y2, x1, sin)
	return y1, y2
}

var rotations = []kernel{
	{name: "rotate", params: "y1, y2, x1, x2, cos, sin *float32, n int", doc: "computes y1 = x1*cos - x2*sin, y2 = x2*cos + x1*sin.", chunked: true, body: func(k *K) {
		y1, y2, x1, x2 := k.Arg("y1"), k.Arg("y2"), k.Arg("x1"), k.Arg("x2")
		cos, sin, n := k.Arg("cos"), k.Arg("sin"), k.Arg("n")
		k.Range(n, 1, func(it *It) {
			a, b := turn(k, it.Load(x1), it.Load(x2), it.Load(cos), it.Load(sin))
			it.Store(y1, a)
			it.Store(y2, b)
		})
	}},
	{name: "rotatePairs", params: "dst, x, cos, sin *float32, n int",
		doc: "rotates the pairs (x[2i], x[2i+1]) by (cos[i], sin[i]); n is a multiple of 8.", body: func(k *K) {
			dst, x, cos, sin, n := k.Arg("dst"), k.Arg("x"), k.Arg("cos"), k.Arg("sin"), k.Arg("n")
			k.line("LSR $3, %s", n)
			k.Rows(n, func() {
				first, second := k.Load4(x, 0), k.Load4(x, vectorBytes)
				a, b := turn(k, k.binary("uzp1", first, second), k.binary("uzp2", first, second), k.Load4(cos, 0), k.Load4(sin, 0))
				k.Store4(dst, 0, k.binary("zip1", a, b))
				k.Store4(dst, vectorBytes, k.binary("zip2", a, b))
				for _, p := range []gp{x, dst} {
					k.Skip(p, 2*vectorBytes)
				}
				for _, p := range []gp{cos, sin} {
					k.Skip(p, vectorBytes)
				}
			})
		}},
}
