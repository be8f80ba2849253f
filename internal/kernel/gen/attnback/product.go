package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
)

// Registers, by hand: instructions that are written as bytes do not take part in avo's allocation. The first six can address tiles.
var (
	rowA, rowA2 = reg.RAX.(reg.GPPhysical), reg.RSI.(reg.GPPhysical)
	colB, colB2 = reg.RCX.(reg.GPPhysical), reg.RDX.(reg.GPPhysical)
	toC, stride = reg.RBX.(reg.GPPhysical), reg.RDI.(reg.GPPhysical)
	block       = reg.R8 // of the list
	left        = reg.R9 // steps of the block
	units       = reg.R10
	temp        = reg.R11
	// Of the weights that are made, see weigh.go.
	scores, rows, weights, dsRows = reg.R12, reg.R13, reg.R14, reg.R15
)

// Fields of pieceRun, in words.
const (
	rFirst = iota
	rFirstLeft
	rThen
	rThenLeft
	rRuns
	rRunsLeft
	rUnits // made in a step of the first products, 2 or 4
)

// Fields of productBlock.
const (
	bC = iota
	bLdc
	bA
	bA2
	bB
	bB2
	bSteps
	bKind
	blockWords
)

// Bits of a block's kind.
const (
	kindAdd    = 1
	kindNarrow = 2 // one tile of columns
	kindLow    = 4 // one tile of rows
)

func word(base reg.Register, n int) operand.Mem { return at(base, 8*n) }

// field loads the address of the arguments and returns one of them.
func (e *emitter) field(n int) operand.Mem {
	e.MOVQ(e.slot("run"), temp)
	return word(temp, n)
}

// product emits lists of products of packed operands, and between those of the first list the weights of attention: tiles 0 to 3 are sums, 4
// and 5 tiles of A, 6 and 7 of B.
func (e *emitter) product() {
	e.function("attnBackAVX512", "func(run *byte)", "computes the products of two lists, and between those of the first what WeighRun says. See pieceRun.")
	e.LEAQ(amx.Whole(e.Context, "attnBackShape"), reg.RAX)
	amx.Config(e.Context, reg.RAX.(reg.GPPhysical))
	e.constants()
	e.firstRun()

	e.list(rFirst, rFirstLeft, func() {
		for t := range uint8(4) {
			amx.Zero(e.Context, t)
		}
		loop, plain, two, next := e.label("step"), e.label("plain"), e.label("two"), e.label("next")
		e.begin()
		e.Label(loop)
		e.TESTQ(units, units)
		e.JZ(operand.LabelRef(plain))
		e.CMPQ(e.field(rUnits), operand.Imm(4))
		e.JNE(operand.LabelRef(two))
		for n, label := range []string{"", two} {
			if label != "" {
				e.Label(label)
			}
			count := []int{4, 2}[n]
			var parts []func()
			for i := range count {
				parts = append(parts, e.unit(i)...)
			}
			mix(e.step(2, 2), parts)
			e.made(count)
			e.JMP(operand.LabelRef(next))
		}
		e.Label(plain)
		mix(e.step(2, 2), nil)
		e.Label(next)
		e.advance()
		e.JNZ(operand.LabelRef(loop))
		e.corners(2, 2, func(t uint8, disp int) { amx.Store(e.Context, t, toC, stride, disp) })
	})

	rest, made := e.label("rest"), e.label("made")
	e.Label(rest)
	e.TESTQ(units, units)
	e.JZ(operand.LabelRef(made))
	for _, f := range e.unit(0) {
		f()
	}
	e.made(1)
	e.JMP(operand.LabelRef(rest))
	e.Label(made)

	e.list(rThen, rThenLeft, func() {
		kinds, done := map[int]string{}, e.label("stored")
		e.MOVQ(word(block, bKind), temp)
		for _, kind := range []int{kindNarrow, kindLow, kindNarrow | kindLow} {
			kinds[kind] = e.label("kind")
			e.MOVQ(temp, left)
			e.ANDQ(operand.Imm(kindNarrow|kindLow), left)
			e.CMPQ(left, operand.Imm(uint64(kind)))
			e.JEQ(operand.LabelRef(kinds[kind]))
		}
		for _, kind := range []int{0, kindNarrow, kindLow, kindNarrow | kindLow} {
			if kind != 0 {
				e.Label(kinds[kind])
			}
			high, wide := 2-kind&kindLow/kindLow, 2-kind&kindNarrow/kindNarrow
			fresh, ready, loop := e.label("fresh"), e.label("ready"), e.label("step")
			e.TESTQ(operand.I32(kindAdd), temp)
			e.JZ(operand.LabelRef(fresh))
			e.corners(high, wide, func(t uint8, disp int) { amx.Load(e.Context, toC, stride, disp, t) })
			e.JMP(operand.LabelRef(ready))
			e.Label(fresh)
			for r := range high {
				for c := range wide {
					amx.Zero(e.Context, sum(r, c))
				}
			}
			e.Label(ready)
			e.begin()
			e.Label(loop)
			mix(e.step(high, wide), nil)
			e.advance()
			e.JNZ(operand.LabelRef(loop))
			e.corners(high, wide, func(t uint8, disp int) { amx.Store(e.Context, t, toC, stride, disp) })
			if kind != kindNarrow|kindLow {
				e.JMP(operand.LabelRef(done))
			}
		}
		e.Label(done)
	})
	amx.Release(e.Context)
	e.VZEROUPPER()
	e.RET()
}

// list passes over the blocks of a list.
func (e *emitter) list(first, count int, body func()) {
	loop, done := e.label("list"), e.label("listed")
	e.MOVQ(e.field(first), block)
	e.Label(loop)
	e.CMPQ(e.field(count), operand.Imm(0))
	e.JEQ(operand.LabelRef(done))
	e.DECQ(word(temp, count))
	body()
	e.add(8*blockWords, block)
	e.JMP(operand.LabelRef(loop))
	e.Label(done)
}

func sum(r, c int) uint8 { return uint8(2*r + c) }

// corners passes over the tiles of C.
func (e *emitter) corners(high, wide int, f func(t uint8, disp int)) {
	e.MOVQ(word(block, bC), toC)
	e.MOVQ(word(block, bLdc), stride)
	for r := range high {
		if r > 0 {
			e.MOVQ(stride, left)
			e.SHLQ(operand.Imm(4), left)
			e.ADDQ(left, toC)
		}
		for c := range wide {
			f(sum(r, c), line*c)
		}
	}
}

// begin finds the operands of a block.
func (e *emitter) begin() {
	for n, p := range []reg.Register{rowA, rowA2, colB, colB2} {
		e.MOVQ(word(block, bA+n), p)
	}
	e.MOVQ(operand.U32(line), stride)
	e.MOVQ(word(block, bSteps), left)
}

// advance goes on to the next step; it is the last one if the zero flag is set.
func (e *emitter) advance() {
	for _, p := range []reg.Register{rowA, rowA2, colB, colB2} {
		e.add(pieces*tileBytes, p)
	}
	e.DECQ(left)
}

// step are the instructions of the products of 32 numbers, of high tiles of rows and wide ones of columns.
func (e *emitter) step(high, wide int) (parts []func()) {
	load := func(which, size int, p []reg.GPPhysical, piece int, first uint8) {
		if which < size {
			parts = append(parts, func() { amx.Load(e.Context, p[which], stride, tileBytes*piece, first+uint8(which)) })
		}
	}
	held := [2]int{-1, -1}
	for _, s := range amx.Terms {
		newA, newB := s[0] != held[0], s[1] != held[1]
		held = s
		for which := range 2 {
			if newA {
				load(which, high, []reg.GPPhysical{rowA, rowA2}, s[0], 4)
			}
			if newB {
				load(which, wide, []reg.GPPhysical{colB, colB2}, s[1], 6)
			}
		}
		for r := range high {
			for c := range wide {
				parts = append(parts, func() { amx.BFloat16(e.Context, uint8(4+r), uint8(6+c), sum(r, c)) })
			}
		}
	}
	return parts
}

// mix emits both, with others spread evenly over all.
func mix(all, others []func()) {
	for n, f := range all {
		f()
		for _, g := range others[n*len(others)/len(all) : (n+1)*len(others)/len(all)] {
			g()
		}
	}
}
