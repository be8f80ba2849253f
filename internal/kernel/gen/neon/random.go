package main

import "fmt"

// Philox constants (Salmon et al. 2011, table 2).
var (
	philoxM0, philoxM1 = Bits(0xd2511f53), Bits(0xcd9e8d57)
	philoxW0, philoxW1 = Bits(0x9e3779b9), Bits(0xbb67ae85)
)

const philoxRounds = 10

// philox4 runs Philox4x32-10 on four counters of two words; words 2 and 3 are 0.
func philox4(k *K, low, high, key0, key1 V) [4]V {
	c := [4]V{low, high, {}, {}}
	for r := range philoxRounds {
		l0, h0 := k.MulWide(c[0], philoxM0)
		if r == 0 {
			c = [4]V{k.Xor(c[1], key0), k.Mut(C(0)), k.Xor(h0, key1), l0}
		} else {
			l1, h1 := k.MulWide(c[2], philoxM1)
			c = [4]V{k.Xor(k.Xor(h1, c[1]), key0), l1, k.Xor(k.Xor(h0, c[3]), key1), l0}
		}
		if r+1 < philoxRounds {
			key0, key1 = k.IntAdd(key0, philoxW0), k.IntAdd(key1, philoxW1)
		}
	}
	return c
}

// SpreadWord returns the low word of a general register in every lane.
func (k *K) SpreadWord(r gp) V {
	v := k.fresh()
	k.emit(fmt.Sprintf("VDUP %s, V%%d.S4", r), v)
	return v
}

func philox(k *K) {
	dst, counter, seed := k.Arg("dst"), k.Arg("counter"), k.Arg("seed")
	key0 := k.SpreadWord(seed)
	k.line("LSR $32, %s", seed)
	key1 := k.SpreadWord(seed)
	k.Pin(philoxM0, philoxM1, philoxW0, philoxW1)
	high := k.gp()
	k.Rows(k.Arg("blocks"), func() {
		k.line("LSR $32, %s, %s", counter, high)
		top, base := k.SpreadWord(high), k.SpreadWord(counter)
		for i := range 16 / lanes {
			first := uint32(lanes * i)
			words := philox4(k, k.IntAdd(base, k.Reg(Words(first, first+1, first+2, first+3))), top, key0, key1)
			for w, v := range words {
				k.Store4(dst, 64*w+vectorBytes*i, v)
			}
		}
		k.Skip(counter, 16)
		k.Skip(dst, 256)
	})
}

var random = []kernel{
	{name: "philox", params: "dst *uint32, blocks int, counter, seed uint64",
		doc: "fills blocks of 64 words with Philox4x32-10; see randomWords. counter is a multiple of 16.", body: philox},
	{name: "dropWords", params: "dst, x *float32, words *uint32, n int, below uint32, scale float32",
		doc: "computes dst = scale*x where words < below, 0 elsewhere.", chunked: true, body: func(k *K) {
			dst, x, words, n := k.Arg("dst"), k.Arg("x"), k.Arg("words"), k.Arg("n")
			below, scale := k.Scalar("below"), k.Scalar("scale")
			k.Range(n, 2, func(it *It) {
				it.Store(dst, k.Where(k.UintLess(it.Load(words), below), k.Mul(it.Load(x), scale)))
			})
		}},
}
