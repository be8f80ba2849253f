package main

import (
	"github.com/mmcloughlin/avo/operand"

	"stheno/internal/kernel/gen/isa"
)

var rotations = []kernel{
	{chunked: true, Fn: isa.Fn{Name: "rotate", Params: "y1, y2, x1, x2, cos, sin *float32, n int",
		Doc: "computes y1 = x1*cos - x2*sin, y2 = x2*cos + x1*sin.", Body: func(k *K) {
			y1, y2, p1, p2 := k.Arg("y1"), k.Arg("y2"), k.Arg("x1"), k.Arg("x2")
			cp, sp, n := k.Arg("cos"), k.Arg("sin"), k.Arg("n")
			k.Range(n, 1, func(it *isa.It) {
				x1, x2, c, s := it.Load(p1), it.Load(p2), it.Load(cp), it.Load(sp)
				a, b := k.Mul(x1, c), k.Mul(x2, c)
				k.FMSTo(a, x2, s)
				k.FMATo(b, x1, s)
				it.Store(y1, a)
				it.Store(y2, b)
			})
		}}},
	{Fn: isa.Fn{Name: "rotatePairs", Params: "dst, x, cos, sin *float32, n int",
		Doc: "rotates the pairs (x[2i], x[2i+1]) by (cos[i], sin[i]); n is a multiple of 16.", Body: func(k *K) {
			dst, xp, cp, sp, n := k.Arg("dst"), k.Arg("x"), k.Arg("cos"), k.Arg("sin"), k.Arg("n")
			half := operand.I32(int32(k.Arch.Bytes() / 2))
			k.RangeWhole(n, func(it *isa.It) {
				x := it.Load(xp)
				c, s := k.LoadPairs(cp), k.LoadPairs(sp)
				t := k.Mul(k.SwapPairs(x), s)
				k.MulSubAdd(x, c, t)
				it.Store(dst, x)
				k.ADDQ(half, cp)
				k.ADDQ(half, sp)
			})
		}}},
}
