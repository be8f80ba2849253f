package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/isa"
)

// codes is y[n] += Σ_r x[r]·(scale[r]·code(r, n) + min[r]).
//
// The products with scales are taken once, into tmp, and so is the sum with minima, which is the same for every column. What is
// left is a sum of whole numbers times tmp[r]: on AVX2, and with 8 bits, a shuffle moves byte i of each word to its bottom and a
// conversion makes it a float; with 4 bits on AVX-512 a permutation looks the float up by the lowest 4 bits of the shifted word.
func codes(bits int) isa.Fn {
	return isa.Fn{
		Name:   fmt.Sprintf("kvCodes%d", bits),
		Params: "y, x, tmp *float32, scales, mins *uint16, codes *uint8, rows, panels, ahead, aheadRows int",
		Doc: fmt.Sprintf("computes y[n] += Σ_r x[r]·(scales[r]·code(r, n) + mins[r]) for r < rows, n < 16·panels: codes of %d bits in\n"+
			"the order of KVCodes; scales and minima in FP16. rows is a multiple of 16. tmp takes rows numbers.\n"+
			"mins may be nil: −128·scales. Codes and scales that lie ahead and aheadRows bytes further on are prefetched.", bits),
		Body: func(k *isa.K) { newCodes(k, bits).emit() },
	}
}

type coder struct {
	*isa.K
	bits      int
	y, tmp    reg.GPVirtual
	codes     reg.GPVirtual
	ahead     reg.GPVirtual
	stride    reg.GPVirtual // bytes of a step of a block
	rows      reg.GPVirtual
	base      isa.V // Σ x·min
	pick      [4]operand.Mem
	picks     []isa.V // the same in registers, where there are enough
	table     isa.V   // 0, 1, …, 15
	perPanel  int
	maxPanels int
}

func newCodes(k *isa.K, bits int) *coder {
	c := &coder{K: k, bits: bits, perPanel: 16 / k.Arch.Lanes, maxPanels: 2}
	if k.Arch.EVEX {
		c.maxPanels = 4
	}
	return c
}

func (c *coder) emit() {
	c.y, c.tmp, c.codes, c.rows = c.Arg("y"), c.Arg("tmp"), c.Arg("codes"), c.Arg("rows")
	c.fold()
	c.ahead = c.Arg("ahead")
	c.constants()
	c.stride = c.GP64()
	panels, wide, steps := c.Arg("panels"), c.GP64(), c.GP64()
	four := c.GP64()
	c.MOVQ(operand.I32(4), four)
	c.MOVQ(c.rows, steps)
	c.SHRQ(operand.Imm(map[int]uint64{8: 2, 4: 3}[c.bits]), steps)
	c.while(panels, 1, 0, func() {
		c.MOVQ(panels, wide)
		c.CMPQ(wide, four)
		c.CMOVQGT(four, wide)
		c.SUBQ(wide, panels)
		c.MOVQ(wide, c.stride)
		c.SHLQ(operand.Imm(6), c.stride)
		next := c.GP64()
		c.MOVQ(c.stride, next)
		c.IMULQ(steps, next)
		c.ADDQ(c.codes, next)
		c.while(wide, c.maxPanels, c.maxPanels, func() { c.columns(c.maxPanels) })
		c.while(wide, 1, 1, func() { c.columns(1) })
		c.MOVQ(next, c.codes)
	})
}

// while repeats body as long as n is at least least, and takes step off n.
func (c *coder) while(n reg.Register, least, step int, body func()) {
	loop, done := c.NewLabel("loop"), c.NewLabel("done")
	c.Label(loop)
	c.CMPQ(n, operand.Imm(uint64(least)))
	c.JLT(operand.LabelRef(done))
	body()
	if step > 0 {
		c.SUBQ(operand.Imm(uint64(step)), n)
	}
	c.JMP(operand.LabelRef(loop))
	c.Label(done)
}

// fold computes tmp = x·scale and base = Σ x·min.
func (c *coder) fold() {
	x, scales, mins := c.Arg("x"), c.Arg("scales"), c.Arg("mins")
	sum := c.Zero()
	at, ahead := c.GP64(), c.Arg("aheadRows")
	c.XORQ(at, at)
	c.ADDQ(scales, ahead)
	symmetric, folded := c.NewLabel("symmetric"), c.NewLabel("folded")
	elements := func(p reg.Register, size int) operand.Mem {
		return operand.Mem{Base: p, Index: at, Scale: uint8(size)}
	}
	loop := func(step func(x, product isa.V)) {
		left, again := c.GP64(), c.NewLabel("fold")
		c.MOVQ(c.rows, left)
		c.Label(again)
		v, s := c.Get(elements(x, 4)), c.New()
		c.VCVTPH2PS(elements(scales, 2), s.R())
		c.PREFETCHT0(elements(ahead, 2))
		product := c.Mul(v, s)
		c.Put(elements(c.tmp, 4), product)
		step(v, product)
		c.ADDQ(operand.Imm(uint64(c.Arch.Lanes)), at)
		c.SUBQ(operand.Imm(uint64(c.Arch.Lanes)), left)
		c.JNZ(operand.LabelRef(again))
	}
	if c.bits == 8 {
		c.TESTQ(mins, mins)
		c.JZ(operand.LabelRef(symmetric))
	}
	loop(func(v, _ isa.V) {
		m := c.New()
		c.VCVTPH2PS(elements(mins, 2), m.R())
		c.FMATo(sum, v, m)
	})
	if c.bits == 8 {
		c.JMP(operand.LabelRef(folded))
		c.Label(symmetric)
		loop(func(_, product isa.V) { c.FMSTo(sum, product, isa.C(128)) })
		c.Label(folded)
	}
	c.base = c.Spread(c.Reduce(sum, c.Add), 0)
}

// words returns memory with words in it.
func (c *coder) words(name string, words ...uint32) operand.Mem {
	m := c.StaticGlobal(fmt.Sprintf("kv%s%d%s", name, c.bits, c.Arch.Name))
	c.DataAttributes(attr.RODATA | attr.NOPTR)
	for _, w := range words {
		c.AppendDatum(operand.U32(w))
	}
	return m
}

func (c *coder) constants() {
	if c.Arch.EVEX && c.bits == 4 {
		var bits []uint32
		for i := range 16 {
			bits = append(bits, floatBits(i))
		}
		c.table = c.Get(c.words("Table", bits...))
		return
	}
	for i := range c.pick {
		var words []uint32
		for w := range c.Arch.Lanes {
			words = append(words, 0x80808000|4*uint32(w%4)+uint32(i))
		}
		c.pick[i] = c.words(fmt.Sprintf("Pick%d", i), words...)
		if c.Arch.EVEX {
			c.picks = append(c.picks, c.Get(c.pick[i]))
		}
	}
}

// columns adds to the columns of n panels, and moves on.
func (c *coder) columns(n int) {
	vectors := n * c.perPanel
	acc := make([]isa.V, vectors)
	for i := range acc {
		acc[i] = c.Add(c.base, c.Get(operand.Mem{Base: c.y, Disp: i * c.Arch.Bytes()}))
	}
	at := c.GP64()
	c.MOVQ(c.codes, at)
	word := func(i int) operand.Mem { return operand.Mem{Base: at, Disp: i * c.Arch.Bytes()} }
	left, x, again := c.GP64(), c.GP64(), c.NewLabel("rows")
	soon := c.GP64()
	c.LEAQ(operand.Mem{Base: c.codes, Index: c.ahead, Scale: 1}, soon)
	c.MOVQ(c.rows, left)
	c.MOVQ(c.tmp, x)
	per := 32 / c.bits
	c.Label(again)
	factors := make([]isa.V, per)
	for i := range factors {
		if c.bits == 4 && !c.Arch.EVEX && i >= 4 { // registers are few: these are read where they are used
			break
		}
		factors[i] = c.At(x, i)
	}
	for p := range n {
		c.PREFETCHT1(operand.Mem{Base: soon, Disp: 64 * p})
	}
	for i := range vectors {
		if c.bits == 8 {
			c.bytes(word(i), acc[i], factors)
		} else {
			c.nibbles(word(i), acc[i], factors, x)
		}
	}
	c.ADDQ(c.stride, at)
	c.ADDQ(c.stride, soon)
	c.ADDQ(operand.Imm(uint64(4*per)), x)
	c.SUBQ(operand.Imm(uint64(per)), left)
	c.JNZ(operand.LabelRef(again))
	for i := range acc {
		c.Put(operand.Mem{Base: c.y, Disp: i * c.Arch.Bytes()}, acc[i])
	}
	c.ADDQ(operand.I32(int32(64*n)), c.y)
	c.ADDQ(operand.I32(int32(64*n)), c.codes)
}

// addByte adds factor times byte i of each word to acc.
func (c *coder) addByte(word isa.V, i int, acc, factor isa.V) {
	t := c.New()
	if c.Arch.EVEX {
		c.VPSHUFB(c.picks[i].R(), word.R(), t.R())
	} else {
		c.VPSHUFB(c.pick[i], word.R(), t.R())
	}
	c.VCVTDQ2PS(t.R(), t.R())
	c.FMATo(acc, t, factor)
}

func (c *coder) bytes(m operand.Mem, acc isa.V, factors []isa.V) {
	word := c.Get(m)
	for i, f := range factors {
		c.addByte(word, i, acc, f)
	}
}

func (c *coder) nibbles(m operand.Mem, acc isa.V, factors []isa.V, x reg.Register) {
	word := c.Get(m)
	if c.Arch.EVEX {
		for i, f := range factors {
			t := c.New()
			at := word
			if i > 0 {
				c.VPSRLD(operand.Imm(uint64(4*i)), word.R(), t.R())
				at = t
			}
			c.VPERMPS(c.table.R(), at.R(), t.R())
			c.FMATo(acc, t, f)
		}
		return
	}
	high := c.New()
	c.VPSRLD(operand.Imm(4), word.R(), high.R())
	low := c.And(isa.Bits(0x0f0f0f0f), word)
	high = c.And(isa.Bits(0x0f0f0f0f), high)
	for i := range 8 {
		f := factors[i]
		if i >= 4 {
			f = c.At(x, i)
		}
		c.addByte([]isa.V{low, high}[i%2], i/2, acc, f)
	}
}
