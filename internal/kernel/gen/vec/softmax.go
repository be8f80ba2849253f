package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/isa"
)

func mem(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

var plusInf = isa.Bits(0x7f800000)

// softmaxRows handles r rows at p: max, alpha, exponentials, sum. Row statistics stand at byte offset off.
func softmaxRows(k *K, p []reg.GPVirtual, n, off reg.GPVirtual) {
	r := len(p)
	at := func(name string) operand.Mem { return operand.Mem{Base: k.Arg(name), Index: off, Scale: 1} }
	load, store := k.Load1, k.Store1
	if r == 4 {
		load, store = k.Load4, k.Store4
	}
	reduce := func(v []V, op func(a, b V) V) V {
		if r == 4 {
			return k.Reduce4([4]V(v), op)
		}
		return k.Reduce(v[0], op)
	}

	top := make([]V, r)
	for i := range top {
		top[i] = k.Mut(minusInf)
	}
	k.Range(n, 1, func(it *isa.It) {
		for i := range top {
			k.MaxTo(top[i], it.LoadOr(p[i], minusInf))
		}
	})
	old := load(at("rowMax"))
	mx := k.Max(reduce(top, k.Max), old)
	// A row without a visible key keeps its −Inf: 0 is subtracted instead, and alpha is 1.
	empty := k.Cmp(isa.EQ, mx, minusInf)
	sub := k.Drop(empty, mx)
	alpha := k.Select(empty, isa.C(1), k.ExpFast(k.Sub(old, sub)))
	store(at("rowMax"), mx)
	store(at("alpha"), alpha)

	sums := make([]V, r)
	for i := range sums {
		s := k.Spread(sub, i)
		sums[i] = k.Zero()
		k.Range(n, 2, func(it *isa.It) {
			e := k.ExpFast(k.Sub(it.Load(p[i]), s))
			it.Store(p[i], e)
			k.AddTo(sums[i], it.Keep(e))
		})
	}
	total := load(at("rowSum"))
	k.Horner(total, load(at("alpha")), reduce(sums, k.Add))
	store(at("rowSum"), total)
}

func softmaxStep(k *K) {
	s, ld, n := k.Arg("s"), k.Bytes("ld"), k.Arg("n")
	off, left := k.GP64(), k.GP64()
	k.XORQ(off, off)
	k.MOVQ(k.Arg("rows"), left)
	k.PinExpFast()
	k.SUBQ(operand.Imm(4), left)
	k.JLT(operand.LabelRef("single"))
	k.Label("four")
	p := []reg.GPVirtual{s, k.GP64(), k.GP64(), k.GP64()}
	for i := 1; i < 4; i++ {
		k.LEAQ(operand.Mem{Base: p[i-1], Index: ld, Scale: 1}, p[i])
	}
	softmaxRows(k, p, n, off)
	k.LEAQ(operand.Mem{Base: s, Index: ld, Scale: 4}, s)
	k.ADDQ(operand.Imm(16), off)
	k.SUBQ(operand.Imm(4), left)
	k.JGE(operand.LabelRef("four"))
	k.Label("single")
	k.ADDQ(operand.Imm(4), left)
	k.JZ(operand.LabelRef("finish"))
	k.Label("one")
	softmaxRows(k, p[:1], n, off)
	k.ADDQ(ld, s)
	k.ADDQ(operand.Imm(4), off)
	k.DECQ(left)
	k.JNZ(operand.LabelRef("one"))
	k.Label("finish")
}

var softmaxes = []kernel{
	{Fn: isa.Fn{Name: "softmaxStep", Params: "s *float32, ld, rows, n int, rowMax, rowSum, alpha *float32",
		Doc: "is one step of the online softmax; see SoftmaxStep.", Body: softmaxStep}},
	{Fn: isa.Fn{Name: "probFromLSE", Params: "p, s *float32, ld, rows, n int, lse *float32",
		Doc: "computes p = e^(s-lse), lse one a row, 0 where lse is -Inf.", Body: func(k *K) {
			p, s, ld, n, lse := k.Arg("p"), k.Arg("s"), k.Bytes("ld"), k.Arg("n"), k.Arg("lse")
			k.PinExpFast()
			k.Rows(k.Arg("rows"), func() {
				sub := k.At(lse, 0)
				sub = k.Select(k.Cmp(isa.EQ, sub, minusInf), plusInf, sub)
				k.Range(n, 2, func(it *isa.It) { it.Store(p, k.ExpFast(k.Sub(it.Load(s), sub))) })
				k.Move(p, ld)
				k.Move(s, ld)
				k.ADDQ(operand.Imm(4), lse)
			})
		}}},
	{Fn: isa.Fn{Name: "dScore", Params: "ds, p, dp *float32, ld, rows, n int, delta *float32",
		Doc: "computes ds = p*(dp-delta), delta one a row.", Body: func(k *K) {
			ds, p, dp, ld, n, delta := k.Arg("ds"), k.Arg("p"), k.Arg("dp"), k.Bytes("ld"), k.Arg("n"), k.Arg("delta")
			k.Rows(k.Arg("rows"), func() {
				d := k.At(delta, 0)
				k.Range(n, 2, func(it *isa.It) { it.Store(ds, k.Mul(k.Sub(it.Load(dp), d), it.Load(p))) })
				k.Move(ds, ld)
				k.Move(p, ld)
				k.Move(dp, ld)
				k.ADDQ(operand.Imm(4), delta)
			})
		}}},
	{Fn: isa.Fn{Name: "softcap", Params: "s *float32, ld, rows, n int, in, out float32",
		Doc: "computes s = out*tanh(in*s).", Body: func(k *K) {
			s, ld, n, in, out := k.Arg("s"), k.Bytes("ld"), k.Arg("n"), k.Scalar("in"), k.Scalar("out")
			k.PinExp()
			k.Rows(k.Arg("rows"), func() {
				k.Range(n, 1, func(it *isa.It) { it.Store(s, k.Mul(k.Tanh(k.Mul(it.Load(s), in)), out)) })
				k.Move(s, ld)
			})
		}}},
	{Fn: isa.Fn{Name: "softcapGrad", Params: "ds, s *float32, ld, rows, n int, inverse float32",
		Doc: "computes ds *= 1-min(1, (inverse*s)^2).", Body: func(k *K) {
			ds, s, ld, n, inverse := k.Arg("ds"), k.Arg("s"), k.Bytes("ld"), k.Arg("n"), k.Scalar("inverse")
			k.Pin(isa.C(1))
			k.Rows(k.Arg("rows"), func() {
				k.Range(n, 2, func(it *isa.It) {
					t := k.Mul(it.Load(s), inverse)
					f := k.Sub(isa.C(1), k.AtMost(k.Mul(t, t), isa.C(1)))
					it.Store(ds, k.Mul(it.Load(ds), f))
				})
				k.Move(ds, ld)
				k.Move(s, ld)
			})
		}}},
	{Fn: isa.Fn{Name: "affineRows", Params: "s *float32, ld, rows, n int, base *float32, slope float32",
		Doc: "computes s[r,j] += base[r] + slope*j.", Body: func(k *K) {
			s, ld, n, base, slope := k.Arg("s"), k.Bytes("ld"), k.Arg("n"), k.Arg("base"), k.Scalar("slope")
			iota := k.Iota(true)
			k.Rows(k.Arg("rows"), func() {
				b, j := k.At(base, 0), k.Mut(iota)
				k.Range(n, 1, func(it *isa.It) {
					t := k.Mut(b)
					k.FMATo(t, slope, j)
					it.Store(s, k.Add(it.Load(s), t))
					k.AddTo(j, isa.C(float64(k.Arch.Lanes)))
				})
				k.Move(s, ld)
				k.ADDQ(operand.Imm(4), base)
			})
		}}},
	{Fn: isa.Fn{Name: "addRows", Params: "s *float32, ld int, b *float32, ldb, rows, n int, a float32",
		Doc: "computes s += a*b over rows.", Body: func(k *K) {
			s, ld, b, ldb, n, a := k.Arg("s"), k.Bytes("ld"), k.Arg("b"), k.Bytes("ldb"), k.Arg("n"), k.Scalar("a")
			k.Rows(k.Arg("rows"), func() {
				k.Range(n, 2, func(it *isa.It) {
					acc := it.Load(s)
					k.FMATo(acc, it.Load(b), a)
					it.Store(s, acc)
				})
				k.Move(s, ld)
				k.Move(b, ldb)
			})
		}}},
}
