package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"

	"stheno/internal/kernel/gen/isa"
)

func floatBits(i int) uint32 { return math.Float32bits(float32(i)) }

// halves is y[n] += Σ_r x[r]·w(r, n) with w in FP16.
func halves() isa.Fn {
	return isa.Fn{
		Name:   "kvHalves",
		Params: "y, x *float32, w *uint16, ld, rows, blocks, ahead int",
		Doc:    "computes y[n] += Σ_r x[r]·w[r·ld+n] for r < rows, n < 16·blocks, w in FP16. ld is in bytes. rows ≥ 1.\nNumbers that lie ahead bytes further on are prefetched.",
		Body: func(k *isa.K) {
			c := newCodes(k, 16)
			c.y = k.Arg("y")
			x, w, ld, rows, blocks := k.Arg("x"), k.Arg("w"), k.Arg("ld"), k.Arg("rows"), k.Arg("blocks")
			ahead := k.Arg("ahead")
			columns := func(n int) {
				acc := make([]isa.V, n*c.perPanel)
				for i := range acc {
					acc[i] = k.Get(operand.Mem{Base: c.y, Disp: i * k.Arch.Bytes()})
				}
				soon := k.GP64()
				px, pw, left, again := k.GP64(), k.GP64(), k.GP64(), k.NewLabel("rows")
				k.MOVQ(x, px)
				k.MOVQ(w, pw)
				k.MOVQ(w, soon)
				k.ADDQ(ahead, soon)
				k.MOVQ(rows, left)
				k.Label(again)
				f := k.At(px, 0)
				for i := range acc {
					t := k.New()
					k.VCVTPH2PS(operand.Mem{Base: pw, Disp: i * k.Arch.Bytes() / 2}, t.R())
					k.FMATo(acc[i], t, f)
				}
				k.ADDQ(operand.Imm(4), px)
				for i := 0; i < n; i += 2 {
					k.PREFETCHT0(operand.Mem{Base: soon, Disp: 32 * i})
				}
				k.ADDQ(ld, pw)
				k.ADDQ(ld, soon)
				k.DECQ(left)
				k.JNZ(operand.LabelRef(again))
				for i := range acc {
					k.Put(operand.Mem{Base: c.y, Disp: i * k.Arch.Bytes()}, acc[i])
				}
				k.ADDQ(operand.I32(int32(64*n)), c.y)
				k.ADDQ(operand.I32(int32(32*n)), w)
			}
			c.while(blocks, 4, 4, func() { columns(4) })
			c.while(blocks, 1, 1, func() { columns(1) })
		},
	}
}
