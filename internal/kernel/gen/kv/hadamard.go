package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"

	"stheno/internal/kernel/gen/isa"
)

// hadamard is the fast Walsh–Hadamard transform of blocks of size numbers: log₂(size) stages of sums and differences of numbers
// h = 1, 2, 4, … apart. Stages within a vector exchange its lanes, as many vectors as registers hold go through the next ones
// there, and the rest pass through memory.
func hadamard(size int) isa.Fn {
	return isa.Fn{Name: fmt.Sprintf("hadamard%d", size), Params: "x *float32, blocks int, norm float32",
		Doc: fmt.Sprintf("replaces each block of %d numbers by norm times its Walsh–Hadamard transform.", size),
		Body: func(k *isa.K) {
			x, norm := k.Arg("x"), k.Scalar("norm")
			total := size / k.Arch.Lanes
			held := min(total, k.Arch.Lanes) // vectors in registers: 8 on AVX2, 16 on AVX-512
			at := func(i int) operand.Mem { return operand.Mem{Base: x, Disp: i * k.Arch.Bytes()} }
			put := func(i int, v isa.V, last bool) {
				if last {
					v = k.Mul(v, norm)
				}
				k.Put(at(i), v)
			}
			k.Rows(k.Arg("blocks"), func() {
				for first := 0; first < total; first += held {
					v := make([]isa.V, held)
					for i := range v {
						v[i] = k.Get(at(first + i))
						for h := 1; h < k.Arch.Lanes; h *= 2 {
							v[i] = exchange(k, v[i], h)
						}
					}
					for h := 1; h < held; h *= 2 {
						for i := range v {
							if i&h == 0 {
								v[i], v[i+h] = k.Add(v[i], v[i+h]), k.Sub(v[i], v[i+h])
							}
						}
					}
					for i := range v {
						put(first+i, v[i], held == total)
					}
				}
				for h := held; h < total; h *= 2 {
					for i := range total {
						if i&h == 0 {
							a, b := k.Get(at(i)), k.Get(at(i+h))
							put(i, k.Add(a, b), 2*h == total)
							put(i+h, k.Sub(a, b), 2*h == total)
						}
					}
				}
				k.ADDQ(operand.I32(int32(4*size)), x)
			})
		}}
}

// exchange is the stage of lanes h apart: sums in the lanes whose number lacks the bit h, differences in the others.
func exchange(k *isa.K, v isa.V, h int) isa.V {
	other := k.New()
	switch {
	case h == 1:
		k.VPERMILPS(operand.Imm(0xb1), v.R(), other.R())
	case h == 2:
		k.VPERMILPS(operand.Imm(0x4e), v.R(), other.R())
	case !k.Arch.EVEX:
		k.VPERM2F128(operand.Imm(1), v.R(), v.R(), other.R())
	case h == 4:
		k.VSHUFF32X4(operand.Imm(0xb1), v.R(), v.R(), other.R())
	default:
		k.VSHUFF32X4(operand.Imm(0x4e), v.R(), v.R(), other.R())
	}
	upper := uint64(0)
	for i := range k.Arch.Lanes {
		if i&h != 0 {
			upper |= 1 << i
		}
	}
	sum := k.Add(v, other)
	if k.Arch.EVEX {
		r, m := k.GP32(), k.K()
		k.MOVL(operand.U32(upper), r)
		k.KMOVW(r, m)
		k.VSUBPS(v.R(), other.R(), m, sum.R())
		return sum
	}
	d := k.Sub(other, v)
	k.VBLENDPS(operand.Imm(upper), d.R(), sum.R(), sum.R())
	return sum
}
