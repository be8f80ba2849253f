package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
)

// A tile is 16 rows of 64 bytes; products are made of 32 rows and 32 columns at a time: tiles 0 to 3 are their sums, 4 and 5 two
// panels of codes, 6 and 7 two tiles of rows.
const (
	matrixRows = 32
	tileStride = 64
)

// matrixTile is a product in the tiles of AMX under construction.
type matrixTile struct {
	*emitter
	rowBytes      int   // of a tile of A: 64, or 32 for half as many products
	limbs, halves int   // of A's numbers and of the codes: pieces that add up to them, tile after tile
	terms         []int // for each limb of the codes, how many limbs of A it is multiplied with
	integers      bool
}

// matrices emits products with AMX, which the caller must know the processor to have.
func (e *emitter) matrices() {
	if !e.wide() {
		return
	}
	(&matrixTile{emitter: e, rowBytes: 64, limbs: 1, halves: 1, terms: []int{1}, integers: true}).emit("matrixBytes64")
	(&matrixTile{emitter: e, rowBytes: 32, limbs: 1, halves: 1, terms: []int{1}, integers: true}).emit("matrixBytes32")
	(&matrixTile{emitter: e, rowBytes: 64, limbs: 3, halves: 1, terms: []int{3}}).emit("matrixFloats3")
	// The third limb of A times the second of the codes is below a rounding of the sum.
	(&matrixTile{emitter: e, rowBytes: 64, limbs: 3, halves: 2, terms: []int{3, 2}}).emit("matrixFloats5")
}

// Registers, by hand: instructions that are written as bytes do not take part in avo's allocation.
var (
	rowA, rowA2, ldA       = reg.RAX.(reg.GPPhysical), reg.RSI.(reg.GPPhysical), reg.RBX.(reg.GPPhysical)
	codesB, codesB2, lineB = reg.RCX.(reg.GPPhysical), reg.RDX.(reg.GPPhysical), reg.RDI.(reg.GPPhysical)
	sumsAt, lineSums       = reg.RAX.(reg.GPPhysical), reg.RBX.(reg.GPPhysical) // while A is not read
)

// emit emits one function.
func (t *matrixTile) emit(name string) {
	sig := "func(m, tiles, per int, a *uint16, lda int, codes *uint16, panel int, s *float32, lds int, c *float32, ldc int, buf *float32, stream int)"
	doc := []string{
		"computes C(i, j) = Σ_g s(g, j)·Σ_p A(i, p)·B(p, j) for i < m, j < 32, p over the tiles of group g, per tiles in each group but the last.",
		"A is read in whole tiles of 16 rows, row by row in pieces of 64 bytes, the limbs of a piece one after the other; B in panels of",
		"16 columns, panel bytes apart, their tiles one after the other. Strides are in bytes. buf has 2·32·32 elements. Without s it is 1,",
		"for one group. If stream is not 0, C, its rows whole lines, is written past the caches, for one group. m ≥ 1, tiles ≥ 1.",
	}
	if t.integers {
		sig = "func(m, tiles, per int, a *int8, lda int, codes *uint8, panel int, sums *int32, ldsums int, s *float32, lds int, z *uint8, ldz int, sx *float32, c *float32, ldc int, buf *int32, stream int)"
		doc[0] = "computes C(i, j) = sx(i)·Σ_g s(g, j)·(Σ_p A(i, p)·code(p, j) + z(g, j)·sums(i, g)) for i < m, j < 32, p over the tiles of"
		doc[1] = "group g, per tiles in each group but the last. Without z it takes sums as they are. A is read in whole tiles of 16 rows, the"
		doc[2] = "codes in tiles of 64-byte lines, panels of 16 columns panel bytes apart. Strides are in bytes. buf has 2·32·32 elements."
		doc[3] = "If stream is not 0, C, its rows whole lines, is written past the caches, for one group. m ≥ 1, tiles ≥ 1."
	}
	t.function(name, sig, doc...)
	config := t.config()
	t.LEAQ(config, reg.RAX)
	amx.Config(t.Context, reg.RAX.(reg.GPPhysical))
	rows, few, done := t.label("rows"), t.label("few"), t.label("finished")
	t.Label(rows)
	t.CMPQ(t.slot("m"), operand.Imm(matrixRows/2))
	t.JLE(operand.LabelRef(few))
	t.block(2)
	t.SUBQ(operand.Imm(matrixRows), t.slot("m"))
	t.JLE(operand.LabelRef(done))
	t.next("a", "lda")
	t.next("c", "ldc")
	if t.integers {
		t.next("sums", "ldsums")
		t.ADDQ(operand.Imm(4*matrixRows), t.slot("sx"))
	}
	t.JMP(operand.LabelRef(rows))
	t.Label(few)
	t.block(1)
	t.Label(done)
	t.SFENCE() // of what went past the caches
	amx.Release(t.Context)
	t.ret()
}

// config is the memory that LDTILECFG reads: palette 1, then bytes of a row of each tile, then numbers of rows.
func (t *matrixTile) config() operand.Mem {
	var bytes, rows [8]uint8
	for i := range 8 {
		bytes[i], rows[i] = 64, 16
	}
	for i := 4; i < 6; i++ {
		rows[i] = uint8(t.rowBytes / 4) // a line of codes for four bytes of a row
		bytes[i+2] = uint8(t.rowBytes)
	}
	name := "tiles64"
	if t.rowBytes == 32 {
		name = "tiles32"
	}
	if m, ok := t.tables[name]; ok {
		return m
	}
	t.tables[name] = amx.Shape(t.Context, name+t.name, bytes, rows)
	return t.tables[name]
}

// next moves the pointer in a slot by 32 rows.
func (t *matrixTile) next(slot, stride string) {
	t.MOVQ(t.slot(stride), reg.RAX)
	t.SHLQ(operand.Imm(5), reg.RAX)
	t.ADDQ(reg.RAX, t.slot(slot))
}

// block emits the product of high tiles of rows.
func (t *matrixTile) block(high int) {
	left, n, s, z, sums, again := reg.R8, reg.R9, reg.R10, reg.R11, reg.R12, reg.R13
	t.MOVQ(t.slot("a"), rowA)
	t.MOVQ(t.slot("codes"), codesB)
	t.MOVQ(codesB, codesB2)
	t.ADDQ(t.slot("panel"), codesB2)
	t.MOVQ(t.slot("tiles"), left)
	t.MOVQ(t.slot("s"), s)
	if t.integers {
		t.MOVQ(t.slot("z"), z)
		t.MOVQ(t.slot("sums"), sums)
	}
	t.XORQ(again, again)
	t.MOVQ(operand.U32(tileStride), lineB)
	group, tile := t.label("group"), t.label("tile")
	t.Label(group)
	t.MOVQ(t.slot("lda"), ldA)
	if high > 1 {
		t.MOVQ(ldA, rowA2)
		t.SHLQ(operand.Imm(4), rowA2)
		t.ADDQ(rowA, rowA2)
	}
	t.MOVQ(left, n)
	t.CMPQ(n, t.slot("per"))
	t.CMOVQGT(t.slot("per"), n)
	t.SUBQ(n, left)
	for i := range uint8(2 * high) {
		amx.Zero(t.Context, i)
	}
	t.Label(tile)
	for half, limbs := range t.terms {
		amx.Load(t.Context, codesB, lineB, 1024*half, 4)
		amx.Load(t.Context, codesB2, lineB, 1024*half, 5)
		for limb := range limbs {
			amx.Load(t.Context, rowA, ldA, 64*limb, 6)
			if high > 1 {
				amx.Load(t.Context, rowA2, ldA, 64*limb, 7)
			}
			for i := range uint8(2 * high) {
				if t.integers {
					amx.Bytes(t.Context, 6+i/2, 4+i%2, i)
				} else {
					amx.BFloat16(t.Context, 6+i/2, 4+i%2, i)
				}
			}
		}
	}
	t.add(t.rowBytes*t.limbs, rowA)
	if high > 1 {
		t.add(t.rowBytes*t.limbs, rowA2)
	}
	t.add(16*t.rowBytes*t.halves, codesB)
	t.add(16*t.rowBytes*t.halves, codesB2)
	t.DECQ(n)
	t.JNZ(operand.LabelRef(tile))
	t.MOVQ(rowA, reg.R15)
	t.MOVQ(t.slot("buf"), sumsAt)
	t.MOVQ(operand.U32(4*matrixRows), lineSums)
	for i := range 2 * high {
		amx.Store(t.Context, uint8(i), sumsAt, lineSums, i/2*16*4*matrixRows+i%2*64)
	}
	t.scaled(high, s, z, sums, again, left)
	t.MOVQ(reg.R15, rowA)
	t.ADDQ(t.slot("lds"), s)
	if t.integers {
		t.ADDQ(t.slot("ldz"), z)
		t.add(4, sums)
	}
	t.MOVQ(operand.U32(1), again)
	t.TESTQ(left, left)
	t.JNZ(operand.LabelRef(group))
}

// scaled adds a group's sums in buf to those of groups before, which the second half of buf holds: rows of C may share sets of the
// first-level cache. The last group's goes to C.
func (t *matrixTile) scaled(high int, s, z, sums, again, left reg.Register) {
	rows, c, from, sx := reg.RBX, reg.RSI, reg.R9, reg.R14
	t.MOVQ(t.slot("m"), rows)
	t.MOVQ(operand.U32(uint64(16*high)), c)
	t.CMPQ(rows, c)
	t.CMOVQGT(c, rows)
	t.MOVQ(t.slot("c"), c)
	v := t.regs
	product, scale, zero, offset, factor := v[0:2], v[2:4], v[4:6], v[6], v[7]
	done := t.label("scaled")
	held := func(o int) operand.Mem { return at(reg.RAX, 4*matrixRows*matrixRows+64*o) }
	result := func(o int) operand.Mem { return at(c, 64*o) }
	// each emits a loop over rows and leaves.
	each := func(row func(o int), to func(o int) operand.Mem, store func(v, to operand.Op)) {
		loop := t.label("row")
		t.Label(loop)
		if t.integers {
			t.VPBROADCASTD(at(from, 0), offset)
			t.VBROADCASTSS(at(sx, 0), factor)
			t.ADDQ(t.slot("ldsums"), from)
			t.add(4, sx)
		}
		for o := range product {
			t.VMOVUPS(at(reg.RAX, 64*o), product[o])
			row(o)
			store(product[o], to(o))
		}
		t.add(4*matrixRows, reg.RAX)
		t.ADDQ(t.slot("ldc"), c)
		t.DECQ(rows)
		t.JNZ(operand.LabelRef(loop))
		t.JMP(operand.LabelRef(done))
	}
	cached := func(v, to operand.Op) { t.VMOVUPS(v, to) }
	past := func(v, to operand.Op) { t.VMOVNTPS(v, to) }
	// either emits one of two ways, by whether a register or a slot is 0.
	either := func(r operand.Op, not, zero func()) {
		other := t.label("other")
		t.CMPQ(r, operand.Imm(0))
		t.JEQ(operand.LabelRef(other))
		not()
		t.Label(other)
		zero()
	}
	// groups emits the ways of a group that is the first, the last, both or neither.
	groups := func(set, add func(o int)) {
		either(again,
			func() {
				either(left, func() { each(add, held, cached) }, func() { each(add, result, cached) })
			},
			func() {
				either(left, func() { each(set, held, cached) }, func() {
					either(t.slot("stream"), func() { each(set, result, past) }, func() { each(set, result, cached) })
				})
			})
	}
	loadScale := func() {
		for o := range scale {
			t.VMOVUPS(at(s, 64*o), scale[o])
		}
	}
	if !t.integers {
		either(s, func() {
			loadScale()
			groups(func(o int) { t.VMULPS(scale[o], product[o], product[o]) },
				func(o int) { t.VFMADD213PS(held(o), scale[o], product[o]) })
		}, func() {
			groups(func(int) {}, func(o int) { t.VADDPS(held(o), product[o], product[o]) })
		})
		t.Label(done)
		return
	}
	t.MOVQ(sums, from)
	t.MOVQ(t.slot("sx"), sx)
	loadScale()
	rounded := func(zeros bool) {
		term := func(o int) {
			extra := offset
			if zeros {
				extra = v[8+o]
				t.VPMULLD(zero[o], offset, extra)
			}
			t.VPADDD(extra, product[o], product[o])
			t.VCVTDQ2PS(product[o], product[o])
			t.VMULPS(scale[o], product[o], product[o])
		}
		groups(func(o int) {
			term(o)
			t.VMULPS(factor, product[o], product[o])
		}, func(o int) {
			term(o)
			t.VFMADD213PS(held(o), factor, product[o])
		})
	}
	either(z, func() {
		for o := range zero {
			t.VPMOVZXBD(at(z, 16*o), zero[o])
		}
		rounded(true)
	}, func() { rounded(false) })
	t.Label(done)
}
