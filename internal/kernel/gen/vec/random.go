package main

import (
	"github.com/mmcloughlin/avo/operand"

	"stheno/internal/kernel/gen/isa"
)

// Philox constants (Salmon et al. 2011, table 2).
var (
	philoxM0, philoxM1 = isa.Bits(0xd2511f53), isa.Bits(0xcd9e8d57)
	philoxW0, philoxW1 = isa.Bits(0x9e3779b9), isa.Bits(0xbb67ae85)
)

const philoxRounds = 10

// philox64 runs Philox4x32-10 on counters whose low words stand in the even lanes of lo, all with the high word hi. A word
// lives in the low half of a 64-bit lane; the upper half is never looked at.
func philox64(k *K, lo, hi, key0, key1 V) [4]V {
	k0, k1 := k.Mut(key0), k.Mut(key1)
	c := [4]V{lo, hi, {}, {}}
	for r := range philoxRounds {
		p0 := k.MulEven(c[0], philoxM0)
		if r == 0 {
			// Words 2 and 3 of the counter are 0.
			c = [4]V{k.Xor(c[1], k0), k.Zero(), k.Xor(k.ShiftRight64(p0, 32), k1), p0}
		} else {
			p1 := k.MulEven(c[2], philoxM1)
			c = [4]V{
				k.Xor(k.Xor(k.ShiftRight64(p1, 32), c[1]), k0), p1,
				k.Xor(k.Xor(k.ShiftRight64(p0, 32), c[3]), k1), p0,
			}
		}
		if r+1 < philoxRounds {
			k0, k1 = k.IntAdd(k0, philoxW0), k.IntAdd(k1, philoxW1)
		}
	}
	return c
}

func philox(k *K) {
	dst, counter := k.Arg("dst"), k.Arg("counter")
	seed := k.Arg("seed")
	key0 := k.Broadcast32(seed)
	k.SHRQ(operand.Imm(32), seed)
	key1 := k.Broadcast32(seed)
	k.Rows(k.Arg("blocks"), func() {
		for half := range 16 / k.Arch.Lanes {
			lo := k.IntAdd(k.Broadcast32(counter), k.Iota(false))
			if half > 0 {
				lo = k.IntAdd(lo, isa.Bits(8))
			}
			high := k.GP64()
			k.MOVQ(counter, high)
			k.SHRQ(operand.Imm(32), high)
			hi := k.Broadcast32(high)
			even := philox64(k, lo, hi, key0, key1)
			for i, v := range even {
				k.Put(mem(dst, 64*i+32*half), v)
			}
			odd := philox64(k, k.IntAdd(lo, isa.Bits(1)), hi, key0, key1)
			for i, v := range odd {
				m := mem(dst, 64*i+32*half)
				k.Put(m, k.Interleave(k.Get(m), v))
			}
		}
		k.ADDQ(operand.Imm(16), counter)
		k.ADDQ(operand.I32(256), dst)
	})
}

var random = []kernel{
	{Fn: isa.Fn{Name: "philox", Params: "dst *uint32, blocks int, counter, seed uint64",
		Doc: "fills blocks of 64 words with Philox4x32-10; see randomWords. counter is a multiple of 16.", Body: philox}},
	{chunked: true, Fn: isa.Fn{Name: "dropWords", Params: "dst, x *float32, words *uint32, n int, below uint32, scale float32",
		Doc: "computes dst = scale*x where words < below, 0 elsewhere.", Body: func(k *K) {
			dst, x, words, n := k.Arg("dst"), k.Arg("x"), k.Arg("words"), k.Arg("n")
			below, scale := k.Flip(k.Scalar("below")), k.Scalar("scale")
			k.Range(n, 2, func(it *isa.It) {
				m := k.UintLess(it.Load(words), below)
				it.Store(dst, k.Keep(m, k.Mul(it.Load(x), scale)))
			})
		}}},
}
