package main

// softmaxRows handles the rows at p, four of them or one: max, alpha, exponentials, sum. rowMax, rowSum and alpha point to the
// values of the first.
func softmaxRows(k *K, p []gp, n, rowMax, rowSum, alpha gp) {
	load, store, fold := k.Load1, k.Store1, func(op string, v []V) V {
		if op == "faddp" {
			return k.SumLanes(v[0])
		}
		return k.unary("fmaxnmv", v[0])
	}
	if len(p) == 4 {
		load, store, fold = k.Load4, k.Store4, k.Fold4
	}
	top := make([]V, len(p))
	for i := range top {
		top[i] = k.Mut(minusInf)
	}
	k.Range(n, 1, func(it *It) {
		for i := range top {
			k.LargerTo(top[i], it.LoadAll(p[i]))
		}
	})
	old := load(rowMax, 0)
	mx := k.Larger(fold("fmaxnmp", top), old)
	// A row without a visible key keeps its −Inf: 0 is subtracted instead, and alpha is 1.
	empty := k.Equal(mx, minusInf)
	sub := k.Except(empty, mx)
	scale := k.Select(empty, k.Reg(one), k.ExpFast(k.Sub(old, sub)))
	store(rowMax, 0, mx)
	store(alpha, 0, scale)
	sums := make([]V, len(p))
	for i := range sums {
		s := k.Spread(sub, i)
		sums[i] = k.Mut(C(0))
		k.Range(n, 4, func(it *It) {
			e := k.ExpFast(k.Sub(it.Load(p[i]), s))
			it.Store(p[i], e)
			k.AddTo(sums[i], it.Keep(e))
		})
	}
	store(rowSum, 0, k.Horner(load(rowSum, 0), scale, fold("faddp", sums)))
}

func softmaxStep(k *K) {
	s, ld, n, left := k.Arg("s"), k.Bytes("ld"), k.Arg("n"), k.Arg("rows")
	rowMax, rowSum, alpha := k.Arg("rowMax"), k.Arg("rowSum"), k.Arg("alpha")
	k.PinExpFast()
	group := func(r int) {
		p := []gp{s}
		for i := 1; i < r; i++ {
			p = append(p, k.gp())
			k.line("ADD %s, %s, %s", ld, p[i-1], p[i])
		}
		softmaxRows(k, p, n, rowMax, rowSum, alpha)
		k.line("ADD %s, %s, %s", ld, p[r-1], s)
		for _, stat := range []gp{rowMax, rowSum, alpha} {
			k.Skip(stat, 4*r)
		}
		k.free(p[1:]...)
	}
	fours := k.gp()
	k.line("LSR $2, %s, %s", left, fours)
	k.line("AND $3, %s", left)
	k.Rows(fours, func() { group(4) })
	k.Rows(left, func() { group(1) })
}

// eachRow runs body on each of the rows with the row's value, row[r], in every lane. pointers walk from row to row, each by its
// own stride.
func eachRow(k *K, pointers, strides []gp, row gp, body func(value V)) {
	k.Rows(k.Arg("rows"), func() {
		body(k.At(row, 0))
		for i, p := range pointers {
			k.Move(p, strides[i])
		}
		k.Skip(row, 4)
	})
}

var softmaxes = []kernel{
	{name: "softmaxStep", params: "s *float32, ld, rows, n int, rowMax, rowSum, alpha *float32",
		doc: "is one step of the online softmax; see SoftmaxStep.", body: softmaxStep},
	{name: "probFromLSE", params: "p, s *float32, ld, rows, n int, lse *float32",
		doc: "computes p = e^(s-lse), lse one a row, 0 where lse is -Inf.", body: func(k *K) {
			p, s, ld, n, lse := k.Arg("p"), k.Arg("s"), k.Bytes("ld"), k.Arg("n"), k.Arg("lse")
			k.PinExpFast()
			k.Pin(minusInf, plusInf)
			eachRow(k, []gp{p, s}, []gp{ld, ld}, lse, func(sub V) {
				sub = k.Select(k.Equal(sub, minusInf), k.Reg(plusInf), sub)
				k.Range(n, 4, func(it *It) { it.Store(p, k.ExpFast(k.Sub(it.Load(s), sub))) })
			})
		}},
	{name: "dScore", params: "ds, p, dp *float32, ld, rows, n int, delta *float32",
		doc: "computes ds = p*(dp-delta), delta one a row.", body: func(k *K) {
			ds, p, dp, ld, n, delta := k.Arg("ds"), k.Arg("p"), k.Arg("dp"), k.Bytes("ld"), k.Arg("n"), k.Arg("delta")
			eachRow(k, []gp{ds, p, dp}, []gp{ld, ld, ld}, delta, func(d V) {
				k.Range(n, 4, func(it *It) { it.Store(ds, k.Mul(k.Sub(it.Load(dp), d), it.Load(p))) })
			})
		}},
	{name: "softcap", params: "s *float32, ld, rows, n int, in, out float32",
		doc: "computes s = out*tanh(in*s).", body: func(k *K) {
			s, ld, n, in, out := k.Arg("s"), k.Bytes("ld"), k.Arg("n"), k.Scalar("in"), k.Scalar("out")
			k.PinExp()
			k.Rows(k.Arg("rows"), func() {
				k.Range(n, 1, func(it *It) { it.Store(s, k.Mul(k.Tanh(k.Mul(it.Load(s), in)), out)) })
				k.Move(s, ld)
			})
		}},
	{name: "softcapGrad", params: "ds, s *float32, ld, rows, n int, inverse float32",
		doc: "computes ds *= 1-min(1, (inverse*s)^2).", body: func(k *K) {
			ds, s, ld, n, inverse := k.Arg("ds"), k.Arg("s"), k.Bytes("ld"), k.Arg("n"), k.Scalar("inverse")
			k.Pin(one)
			k.Rows(k.Arg("rows"), func() {
				k.Range(n, 2, func(it *It) {
					t := k.Mul(it.Load(s), inverse)
					f := k.Sub(one, k.AtMost(k.Mul(t, t), one))
					it.Store(ds, k.Mul(it.Load(ds), f))
				})
				k.Move(ds, ld)
				k.Move(s, ld)
			})
		}},
	{name: "affineRows", params: "s *float32, ld, rows, n int, base *float32, slope float32",
		doc: "computes s[r,j] += base[r] + slope*j.", body: func(k *K) {
			s, ld, n, base, slope := k.Arg("s"), k.Bytes("ld"), k.Arg("n"), k.Arg("base"), k.Scalar("slope")
			first := k.Mut(Words(0, 0x3f800000, 0x40000000, 0x40400000)) // 0, 1, 2, 3
			k.Pin(C(1), C(lanes))
			eachRow(k, []gp{s}, []gp{ld}, base, func(b V) {
				j := k.Mut(first)
				k.Range(n, 1, func(it *It) {
					it.Store(s, k.Add(it.Load(s), k.Horner(j, slope, b)))
					k.AddTo(j, C(float64(it.Width())))
				})
			})
		}},
	{name: "addRows", params: "s *float32, ld int, b *float32, ldb, rows, n int, a float32",
		doc: "computes s += a*b over rows.", body: func(k *K) {
			s, ld, b, ldb, n, a := k.Arg("s"), k.Bytes("ld"), k.Arg("b"), k.Bytes("ldb"), k.Arg("n"), k.Scalar("a")
			k.Rows(k.Arg("rows"), func() {
				k.Range(n, 4, func(it *It) {
					sum := it.Load(s)
					k.FMATo(sum, it.Load(b), a)
					it.Store(s, sum)
				})
				k.Move(s, ld)
				k.Move(b, ldb)
			})
		}},
}
