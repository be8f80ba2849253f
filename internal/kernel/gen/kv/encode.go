package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/isa"
)

// A column of KVCodes is a token of keys: its codes are coded and decoded 16 rows, which are channels, at a time. 16 codes of 8 bits
// are four words, of 4 bits two, and those lie stride bytes apart.

const columnParams = "codes *uint8, scales, mins *uint16, x *float32, ld, chunks, columns, stride int"

const columnDoc = "Rows r < 16·chunks, columns n < columns, all of one block that begins at codes with its first row; x[n·ld+r] belongs to\n" +
	"code(r, n), and stride is the distance of a block's words of the next rows. mins may be nil: −128·scales."

// encodeColumns is code(r, n) = clamp(round((x[n·ld+r] − min[r])/scale[r])).
func encodeColumns(bits int) isa.Fn {
	return isa.Fn{Name: fmt.Sprintf("kvEncodeColumns%d", bits), Params: columnParams,
		Doc: "computes the nearest codes, in float64: the least and the largest for numbers beyond them, the least for a scale of 0.\n" + columnDoc,
		Body: func(k *isa.K) {
			c := newColumnCoder(k, bits)
			top, one := k.Double(float64(int(1)<<bits-1)), k.Double(1)
			quarters := 16 / (k.Arch.Lanes / 2)
			low, inverse := make([]isa.V, quarters), make([]isa.V, quarters)
			c.each(func(scale, min []isa.V) {
				for i := range quarters {
					low[i], inverse[i] = c.widen(min, i), k.New()
					s := c.widen(scale, i)
					c.invert(one, s, inverse[i])
				}
			}, func() {
				ints := make([]isa.V, quarters)
				for i := range ints {
					ints[i] = nearest(k, operand.Mem{Base: c.x, Disp: i * k.Arch.Bytes() / 2}, low[i], inverse[i], c.zero, top)
				}
				c.storeWords(c.pack(ints))
			})
		}}
}

// nearest is codes, as integers, of half a vector of float32 numbers: clamp(round((x − low)·inverse), zero, top).
func nearest(k *isa.K, x operand.Op, low, inverse, zero, top isa.V) isa.V {
	d := k.New()
	k.VCVTPS2PD(x, d.R())
	k.VSUBPD(low.R(), d.R(), d.R())
	k.VMULPD(inverse.R(), d.R(), d.R())
	k.VMAXPD(zero.R(), d.R(), d.R())
	k.VMINPD(top.R(), d.R(), d.R())
	ints := k.New()
	if k.Arch.EVEX {
		k.VCVTPD2DQ(d.R(), ints.Half())
	} else {
		k.VCVTPD2DQY(d.R(), ints.Half())
	}
	return ints
}

// decodeColumns is x[n·ld+r] = scale[r]·code(r, n) + min[r].
func decodeColumns(bits int) isa.Fn {
	return isa.Fn{Name: fmt.Sprintf("kvDecodeColumns%d", bits), Params: columnParams,
		Doc: "computes x[n·ld+r] = scale[r]·code(r, n) + min[r], rounded once.\n" + columnDoc,
		Body: func(k *isa.K) {
			c := newColumnCoder(k, bits)
			var scale, min []isa.V
			c.each(func(s, m []isa.V) { scale, min = s, m }, func() {
				bytes := c.loadWords()
				for i := range scale {
					v := k.New()
					if i > 0 {
						k.VPSRLDQ(operand.Imm(8), bytes, bytes)
					}
					k.VPMOVZXBD(bytes, v.R())
					k.VCVTDQ2PS(v.R(), v.R())
					k.VFMADD213PS(min[i].R(), scale[i].R(), v.R())
					k.Put(operand.Mem{Base: c.x, Disp: i * k.Arch.Bytes()}, v)
				}
			})
		}}
}

// columnCoder goes through 16 rows of all columns, then the next.
type columnCoder struct {
	*isa.K
	bits             int
	codes, x         reg.GPVirtual // of the column and the rows in turn
	stride, triple   reg.GPVirtual
	zero             isa.V
	nibbles, weights reg.VecVirtual
}

func newColumnCoder(k *isa.K, bits int) *columnCoder {
	c := &columnCoder{K: k, bits: bits, zero: k.Zero()}
	if bits == 4 {
		c.nibbles, c.weights = k.XMM(), k.XMM()
		spread := func(word uint32, to reg.VecVirtual) {
			r := k.GP32()
			k.MOVL(operand.U32(word), r)
			k.VMOVD(r, to)
			k.VPSHUFD(operand.Imm(0), to, to)
		}
		spread(0x0f0f0f0f, c.nibbles)
		spread(0x10011001, c.weights)
	}
	return c
}

// widen is part i of 16 float32 numbers in float64.
func (c *columnCoder) widen(v []isa.V, i int) isa.V {
	d, from := c.New(), v[i/2].Half()
	if i%2 == 1 {
		from = c.Upper(v[i/2])
	}
	c.VCVTPS2PD(from, d.R())
	return d
}

// invert is 1/s, and 0 where s is 0.
func (c *columnCoder) invert(one, s, inverse isa.V) {
	c.VDIVPD(s.R(), one.R(), inverse.R())
	if c.Arch.EVEX {
		m := c.K.K()
		c.VCMPPD(operand.Imm(4), c.zero.R(), s.R(), m)
		c.VMOVAPD_Z(inverse.R(), m, inverse.R())
		return
	}
	m := c.New()
	c.VCMPPD(operand.Imm(4), c.zero.R(), s.R(), m.R())
	c.VANDPD(m.R(), inverse.R(), inverse.R())
}

// each calls rows with scales and minima of 16 rows, and column for each column of those.
func (c *columnCoder) each(rows func(scale, min []isa.V), column func()) {
	codes, scales, mins, x := c.Arg("codes"), c.Arg("scales"), c.Arg("mins"), c.Arg("x")
	ld := c.Bytes("ld")
	c.stride, c.triple = c.Arg("stride"), c.GP64()
	c.LEAQ(operand.Mem{Base: c.stride, Index: c.stride, Scale: 2}, c.triple)
	c.codes, c.x = c.GP64(), c.GP64()
	n := c.Arg("columns")
	vectors := 16 / c.Arch.Lanes
	scale, min := make([]isa.V, vectors), make([]isa.V, vectors)
	for i := range vectors {
		scale[i], min[i] = c.New(), c.New()
	}
	c.Rows(c.Arg("chunks"), func() {
		symmetric, known := c.NewLabel("symmetric"), c.NewLabel("known")
		for i := range vectors {
			c.VCVTPH2PS(operand.Mem{Base: scales, Disp: i * c.Arch.Bytes() / 2}, scale[i].R())
		}
		c.TESTQ(mins, mins)
		c.JZ(operand.LabelRef(symmetric))
		for i := range vectors {
			c.VCVTPH2PS(operand.Mem{Base: mins, Disp: i * c.Arch.Bytes() / 2}, min[i].R())
		}
		c.ADDQ(operand.Imm(32), mins)
		c.JMP(operand.LabelRef(known))
		c.Label(symmetric)
		factor := c.Reg(isa.C(-128))
		for i := range vectors {
			c.VMULPS(factor.R(), scale[i].R(), min[i].R())
		}
		c.Label(known)
		rows(scale, min)
		c.MOVQ(codes, c.codes)
		c.MOVQ(x, c.x)
		c.Rows(n, func() {
			column()
			c.ADDQ(operand.Imm(4), c.codes)
			c.ADDQ(ld, c.x)
		})
		c.ADDQ(operand.Imm(32), scales)
		c.ADDQ(operand.Imm(64), x)
		for range c.words() / 2 {
			c.LEAQ(operand.Mem{Base: codes, Index: c.stride, Scale: 2}, codes)
		}
	})
}

// words is the number of words of 16 codes.
func (c *columnCoder) words() int { return 16 * c.bits / 32 }

// word is the memory of word i of the column.
func (c *columnCoder) word(i int) operand.Mem {
	switch i {
	case 0:
		return operand.Mem{Base: c.codes}
	case 3:
		return operand.Mem{Base: c.codes, Index: c.triple, Scale: 1}
	}
	return operand.Mem{Base: c.codes, Index: c.stride, Scale: uint8(i)}
}

// pack makes bytes of 16 integers.
func (c *columnCoder) pack(ints []isa.V) reg.VecVirtual {
	bytes := c.XMM()
	if c.Arch.EVEX {
		c.VINSERTI64X4(operand.Imm(1), ints[1].Half(), ints[0].R(), ints[0].R())
		c.VPMOVDB(ints[0].R(), bytes)
	} else {
		a, b := ints[0].Half(), ints[2].Half()
		c.VPACKSSDW(ints[1].Half(), a, a)
		c.VPACKSSDW(ints[3].Half(), b, b)
		c.VPACKUSWB(b, a, bytes)
	}
	if c.bits == 4 { // two codes to a byte, the first lowest
		c.VPMADDUBSW(c.weights, bytes, bytes)
		c.VPACKUSWB(bytes, bytes, bytes)
	}
	return bytes
}

func (c *columnCoder) storeWords(bytes reg.VecVirtual) {
	c.VMOVD(bytes, c.word(0))
	for i := 1; i < c.words(); i++ {
		c.VPEXTRD(operand.Imm(uint64(i)), bytes, c.word(i))
	}
}

// loadWords returns 16 codes, one to a byte.
func (c *columnCoder) loadWords() reg.VecVirtual {
	bytes := c.XMM()
	c.VMOVD(c.word(0), bytes)
	for i := 1; i < c.words(); i++ {
		c.VPINSRD(operand.Imm(uint64(i)), c.word(i), bytes, bytes)
	}
	if c.bits == 4 {
		high := c.XMM()
		c.VPSRLW(operand.Imm(4), bytes, high)
		c.VPAND(c.nibbles, high, high)
		c.VPAND(c.nibbles, bytes, bytes)
		c.VPUNPCKLBW(high, bytes, bytes)
	}
	return bytes
}

// A row of KVCodes is a token of values: its codes lie in consecutive words, at the same bits of each.

// argument broadcasts a float64 parameter.
func argument(k *isa.K, name string) isa.V {
	p, err := k.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	v := k.New()
	k.VBROADCASTSD(p.Addr, v.R())
	return v
}

// shift is a count of bits for VPSLLD and VPSRLD.
func shift(k *isa.K) reg.VecVirtual {
	v := k.XMM()
	k.VMOVQ(k.Arg("shift"), v)
	return v
}

// encodeRow is code(n) = clamp(round((x[n] − low)·inverse)).
func encodeRow() isa.Fn {
	return isa.Fn{Name: "kvEncodeRow", Params: "codes *uint8, x *float32, n int, low, inverse, top float64, mask uint32, shift int",
		Doc: "puts clamp(round((x[n] − low)·inverse), 0, top), in float64, into the bits mask of word n of codes, shift bits from the lowest.\n" +
			"n is a multiple of 16.",
		Body: func(k *isa.K) {
			codes, x, n := k.Arg("codes"), k.Arg("x"), k.Arg("n")
			low, inverse, top, zero := argument(k, "low"), argument(k, "inverse"), argument(k, "top"), k.Zero()
			mask, by := k.Scalar("mask"), shift(k)
			k.RangeWhole(n, func(it *isa.It) {
				v := it.Load(x)
				upper := k.Upper(v)
				all := nearest(k, v.Half(), low, inverse, zero, top)
				rest := nearest(k, upper, low, inverse, zero, top).Half()
				if k.Arch.EVEX {
					k.VINSERTI64X4(operand.Imm(1), rest, all.R(), all.R())
				} else {
					k.VINSERTI128(operand.Imm(1), rest, all.R(), all.R())
				}
				k.VPSLLD(by, all.R(), all.R())
				old := it.Load(codes)
				if k.Arch.EVEX {
					k.VPANDND(old.R(), mask.R(), old.R())
					k.VPORD(all.R(), old.R(), old.R())
				} else {
					k.VPANDN(old.R(), mask.R(), old.R())
					k.VPOR(all.R(), old.R(), old.R())
				}
				it.Store(codes, old)
			})
		}}
}

// decodeRow is x[n] = scale·code(n) + low.
func decodeRow() isa.Fn {
	return isa.Fn{Name: "kvDecodeRow", Params: "x *float32, codes *uint8, n int, scale, low float32, mask uint32, shift int",
		Doc: "computes x[n] = scale·code + low, rounded once, of the code in the bits mask of word n of codes, shift bits from the lowest.\n" +
			"n is a multiple of 16.",
		Body: func(k *isa.K) {
			x, codes, n := k.Arg("x"), k.Arg("codes"), k.Arg("n")
			scale, low := k.Scalar("scale"), k.Scalar("low")
			mask, by := k.Scalar("mask"), shift(k)
			k.RangeWhole(n, func(it *isa.It) {
				v := k.And(it.Load(codes), mask)
				k.VPSRLD(by, v.R(), v.R())
				k.VCVTDQ2PS(v.R(), v.R())
				k.VFMADD213PS(low.R(), scale.R(), v.R())
				it.Store(x, v)
			})
		}}
}
