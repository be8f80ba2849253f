package main

import (
	"slices"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
)

// Sizes of the kernel in tiles. Scores are computed transposed, keys by queries, so that a vector holds one key's scores of 16
// queries: maxima and sums run over vectors, not across them. A block is 32 rows of one factor by 32 columns of the other over 32 of
// what is summed: two tiles of each in as many pieces as numbers are cut into.
const (
	tileQueries = 32
	tileBytes   = amx.TileBytes
	scoreRow    = 4 * tileQueries // bytes of one key's scores
	blockKeys   = 32
)

// Registers of functions in tiles.
var (
	tArgs, tWork, tOff, tHalves = reg.R15, reg.R14, reg.R13, reg.R12                 // of the group whose weights are made
	tLine, tRow                 = reg.RBX.(reg.GPPhysical), reg.RDX.(reg.GPPhysical) // the strides: 64, scoreRow
	tA, tA2                     = reg.RSI.(reg.GPPhysical), reg.R8.(reg.GPPhysical)
	tB, tB2                     = reg.RDI.(reg.GPPhysical), reg.R9.(reg.GPPhysical)
	tTo                         = reg.RCX.(reg.GPPhysical)
	tFrom, tWeights             = reg.R10, reg.R11 // where weights are made of and written to
)

// tiles writes functions on pieces of BF16.
type tiles struct {
	*emitter
	pieces     int
	codes      bool // queries and keys are codes, see tiles_codes.go
	half       bool // the last step is half a one, see tiles_half.go
	aheadLines int  // asked for with the weights of each pair of keys
}

// Fields of attnTilesArgs.
const (
	tQ = iota
	tK
	tV
	tO
	tRowMax
	tRowSum
	tLo
	tHi
	tScratch
	tSteps // blocks of 32 that a score is summed over
	tCols  // tiles of 16 columns of values
	tGroups
	tJ
	tKeys
	tScale
	tPanel // bytes of 16 columns of values
	tQAt   // of the group after those that are under way
	tOAt
	tOffAt
	tHalvesAt
	tOHeld // of the group whose weights are made
	tS     // its scores
	tSAt   // those of the group after it
	tLeft  // pairs of keys of a half whose weights are to be made
	tHalf
	tSTo
	tNext // what to ask for after the rows below
	tAheadAt
	tAheadLeft
	tAheadLines
	tAheadGap
	tAheadRows
	_
	_
	_
	tRowScale // with codes: of queries and of keys
	tKeyScale
)

// Places in the work memory.
const (
	tileS  = 0
	tileS2 = 2 * blockKeys * scoreRow
	tileP  = 2 * tileS2
)

// More constants, behind those of newEmitter.
const (
	atUpper = 96
	atSlack = 100
	atOne   = 104
	atRound = 108
)

// tileSlack is how far a score may exceed what its row is shifted by before the row is scaled anew: weights are then up to e^5.5 < 2⁸.
const tileSlack = 5.5

func newTiles() *tiles {
	e := newEmitter()
	e.AppendDatum(operand.U32(0xffff0000))
	e.AppendDatum(operand.F32(tileSlack))
	e.AppendDatum(operand.U32(1))
	e.AppendDatum(operand.U32(0x8000))
	return &tiles{emitter: e}
}

func (t *tiles) open(name, suffix string, doc ...string) {
	t.Function(name + suffix)
	t.Attributes(attr.NOSPLIT)
	t.Pragma("noescape")
	t.SignatureExpr("func(args *byte)")
	t.Doc(doc...)
	t.Load(t.Param("args"), tArgs)
}

func (t *tiles) arg(n int) operand.Mem { return at(tArgs, 8*n) }

func (t *tiles) move(from, to operand.Op) { t.MOVQ(from, to) }

// stepBytes is the size of the pieces of 16 rows of 32 numbers.
func (t *tiles) stepBytes() int { return tileBytes * t.pieces }

// next moves the factors' pointers by a step.
func (t *tiles) next() {
	for _, r := range []reg.Register{tA, tA2, tB, tB2} {
		t.ADDQ(operand.U32(uint32(t.stepBytes())), r)
	}
}

// product emits the products of one step: sums 0 to 3 += A·B, of one or two tiles of A, at tA and tA2, and two of B, at tB and tB2.
func (t *tiles) product(rows int, turned bool) { mix(t.products(rows, turned), nil) }

// products are the instructions of product, one by one. The pairs of pieces follow each other such that each is one piece away from
// the one before, from small to large; turned exchanges the parts of A and B. A tile is loaded anew as soon as it has been read for
// the last time.
func (t *tiles) products(rows int, turned bool) (all []func()) {
	pairs := [][2]int{{0, 0}}
	if t.pieces == 3 && t.codes { // values are whole in their first piece
		pairs = [][2]int{{0, 2}, {0, 1}, {0, 0}}
	} else if t.pieces == 3 {
		pairs = slices.Clone(amx.Terms[:]) // turned in place below
	}
	if turned {
		for n, p := range pairs {
			pairs[n] = [2]int{p[1], p[0]}
		}
	}
	load := func(b, which, piece int) {
		from := [2][2]reg.GPPhysical{{tA, tA2}, {tB, tB2}}[b][which]
		all = append(all, func() { amx.Load(t.Context, from, tLine, tileBytes*piece, uint8(4+2*b+which)) })
	}
	counts := [2]int{rows, 2}
	for b := range 2 {
		for which := range counts[b] {
			load(b, which, pairs[0][b])
		}
	}
	for n, p := range pairs {
		changed := -1 // the factor of which the next pair has another piece
		if n+1 < len(pairs) {
			changed = 0
			if pairs[n+1][1] != p[1] {
				changed = 1
			}
		}
		outer := max(changed, 0)
		for x := range counts[outer] {
			for y := range counts[1-outer] {
				i, j := x, y
				if outer == 1 {
					i, j = y, x
				}
				all = append(all, func() { amx.BFloat16(t.Context, uint8(4+i), uint8(6+j), uint8(2*i+j)) })
			}
			if changed >= 0 {
				load(changed, x, pairs[n+1][changed])
			}
		}
	}
	return all
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

// each calls f on the sums of so many tiles of A, with their place from tTo on.
func (t *tiles) each(rows int, f func(sum uint8, disp int)) {
	for i := range rows {
		for j := range 2 {
			f(uint8(2*i+j), 16*scoreRow*i+64*j)
		}
	}
}

func (t *tiles) store(sum uint8, disp int) { amx.Store(t.Context, sum, tTo, tRow, disp) }
func (t *tiles) load(sum uint8, disp int)  { amx.Load(t.Context, tTo, tRow, disp, sum) }

// forward emits the online softmax of groups of 32 query rows over one panel of at most 64 keys.
func (t *tiles) forward(suffix string, pieces int, codes, half bool) {
	t.pieces, t.codes, t.half, t.aheadLines = pieces, codes, half, (pieces+1)/2
	see := "OnlineTiles."
	if codes {
		see = "OnlineCodeTiles."
	}
	t.open("attnTiles", suffix, "attnTiles"+suffix+" takes groups of 32 query rows over a panel of at most 64 keys in tiles: one step of the online softmax. See",
		see)
	config := amx.Whole(t.Context, "attnTilesShape"+suffix)
	t.LEAQ(config, reg.RAX)
	amx.Config(t.Context, reg.RAX.(reg.GPPhysical))
	t.move(t.arg(tScratch), tWork)
	t.XORQ(tOff, tOff)
	t.move(operand.U32(64), tLine)
	t.move(operand.U32(scoreRow), tRow)
	for _, f := range [][2]int{{tQ, tQAt}, {tO, tOAt}} {
		t.move(t.arg(f[0]), reg.RAX)
		t.move(reg.RAX, t.arg(f[1]))
	}
	t.move(tOff, t.arg(tOffAt))
	t.move(tWork, t.arg(tSAt))
	t.LEAQ(at(tWork, tileS2), reg.RAX)
	t.move(reg.RAX, t.arg(tS))
	t.constants0()

	scores := t.scores
	if codes {
		scores = t.scoresOfCodes
	}
	group, last, end, apart, sums := t.label("group"), t.label("last"), t.label("end"), t.label("apart"), t.label("sums")
	t.find(end)
	scores()
	t.Label(group)
	t.take()
	t.mask()
	t.top()
	t.head()
	t.weightsBegin()
	t.find(last)
	if !codes {
		t.CMPQ(tHalves, operand.Imm(2))
		t.JNE(operand.LabelRef(apart))
		t.CMPQ(t.arg(tHalvesAt), operand.Imm(2))
		t.JNE(operand.LabelRef(apart))
		t.together(sums)
	}
	t.Label(apart)
	t.weights()
	scores()
	t.Label(sums)
	t.sums()
	t.weigh()
	t.JMP(operand.LabelRef(group))
	t.Label(last)
	t.weights()
	t.sums()
	t.weigh()
	t.Label(end)
	amx.Release(t.Context)
	t.VZEROUPPER()
	t.RET()
}

// Vector registers that keep their meaning.
var (
	tExp         = z[16:23]
	tUpper       = z[23]
	tShift, tSum = z[24:26], z[26:28]
	tScaled      = z[28]
	tRound       = z[29]
	tAlpha       = z[30:32]
)

func (t *tiles) constants0() {
	t.expConstants(tExp)
	t.VPBROADCASTD(t.constants.Offset(atUpper), tUpper)
	t.VBROADCASTSS(t.arg(tScale), tScaled)
	t.VPBROADCASTD(t.constants.Offset(atRound), tRound)
}

// find moves on to the next group that sees a key, and sets tHalvesAt, the number of blocks of 32 keys up to the last that one of its
// rows sees; it goes to none if there is none.
func (t *tiles) find(none string) {
	group, next, found := t.label("find"), t.label("next"), t.label("found")
	off, cols, first := reg.RDI, reg.RAX, reg.RCX
	t.Label(group)
	t.CMPQ(t.arg(tGroups), operand.Imm(0))
	t.JEQ(operand.LabelRef(none))
	t.move(t.arg(tOffAt), off)
	t.move(t.arg(tHi), reg.R9)
	t.MOVLQSX(operand.Mem{Base: reg.R9, Index: off, Scale: 1, Disp: 4 * (tileQueries - 1)}, cols)
	t.SUBQ(t.arg(tJ), cols)
	t.JLE(operand.LabelRef(next))
	t.move(t.arg(tKeys), reg.R9)
	t.CMPQ(cols, reg.R9)
	t.CMOVQGT(reg.R9, cols)
	t.move(t.arg(tLo), reg.R9)
	t.MOVLQSX(operand.Mem{Base: reg.R9, Index: off, Scale: 1}, first)
	t.SUBQ(t.arg(tJ), first)
	t.CMPQ(first, cols)
	t.JLT(operand.LabelRef(found))
	t.Label(next)
	t.advance()
	t.JMP(operand.LabelRef(group))
	t.Label(found)
	t.ADDQ(operand.Imm(blockKeys-1), cols)
	t.SHRQ(operand.Imm(5), cols)
	t.move(cols, t.arg(tHalvesAt))
}

// advance passes over a group.
func (t *tiles) advance() {
	step := 2 * t.stepBytes()
	if t.codes {
		step = 2 * tileBytes
	}
	t.move(t.arg(tSteps), reg.RAX)
	t.IMUL3Q(operand.U32(uint32(step)), reg.RAX, reg.RAX)
	t.ADDQ(reg.RAX, t.arg(tQAt))
	t.move(t.arg(tCols), reg.RAX)
	t.SHLQ(operand.Imm(11), reg.RAX) // 16·scoreRow
	t.ADDQ(reg.RAX, t.arg(tOAt))
	t.ADDQ(operand.U32(4*tileQueries), t.arg(tOffAt))
	t.DECQ(t.arg(tGroups))
}

// take makes the group that was found, whose scores are there, the one whose weights are made.
func (t *tiles) take() {
	t.move(t.arg(tOffAt), tOff)
	t.move(t.arg(tHalvesAt), tHalves)
	t.move(t.arg(tOAt), reg.RAX)
	t.move(reg.RAX, t.arg(tOHeld))
	t.move(t.arg(tS), reg.RAX)
	t.move(t.arg(tSAt), reg.RCX)
	t.move(reg.RAX, t.arg(tSAt))
	t.move(reg.RCX, t.arg(tS))
	t.advance()
}

// scoresBegin readies the scores of the group that was found.
func (t *tiles) scoresBegin() {
	t.move(t.arg(tK), tA2)
	t.move(t.arg(tSAt), reg.RAX)
	t.move(reg.RAX, t.arg(tSTo))
	t.move(t.arg(tHalvesAt), reg.RAX)
	t.move(reg.RAX, t.arg(tHalf))
}

// scoresHalf begins a half of the keys: rax counts its whole steps.
func (t *tiles) scoresHalf() {
	panel := tTo
	t.move(t.arg(tSteps), panel)
	t.move(panel, reg.RAX)
	if t.half {
		t.DECQ(reg.RAX)
	}
	t.IMUL3Q(operand.U32(uint32(t.stepBytes())), panel, panel)
	t.move(tA2, tA) // where the last half's second tiles ended
	t.ADDQ(panel, tA2)
	t.move(t.arg(tQAt), tB)
	t.move(tB, tB2)
	t.ADDQ(panel, tB2)
	for i := range 4 {
		amx.Zero(t.Context, uint8(i))
	}
}

// scoresEnd writes a half of the scores, and goes to half if there is another.
func (t *tiles) scoresEnd(half string) {
	t.move(t.arg(tSTo), tTo)
	t.each(2, t.store)
	t.ADDQ(operand.U32(blockKeys*scoreRow), t.arg(tSTo))
	t.DECQ(t.arg(tHalf))
	t.JNZ(operand.LabelRef(half))
}

// scores leaves the scores of the group that was found in the work memory.
func (t *tiles) scores() {
	half, step := t.label("half"), t.label("step")
	t.scoresBegin()
	t.Label(half)
	t.scoresHalf()
	t.Label(step)
	t.product(2, true)
	t.next()
	t.DECQ(reg.RAX)
	t.JNZ(operand.LabelRef(step))
	if t.half {
		mix(t.halfProducts(), nil)
		t.next()
	}
	t.scoresEnd(half)
}

// together emits scores and weights of whole panels, the products of the one between the exponentials of the other, and goes to done.
func (t *tiles) together(done string) {
	// Pairs of keys in one step of products, for so many steps at most; in the last step, if that is half a one.
	pairs := []struct{ steps, whole, half int }{{1, 16, 0}, {2, 8, 0}, {4, 4, 0}, {0, 2, 0}}
	if t.half {
		pairs = []struct{ steps, whole, half int }{{2, 10, 6}, {3, 6, 4}, {4, 4, 4}, {0, 2, 2}}
	}
	var to []string
	for _, p := range pairs {
		to = append(to, t.label("together"))
		if p.steps > 0 {
			t.CMPQ(t.arg(tSteps), operand.Imm(uint64(p.steps)))
			t.JLE(operand.LabelRef(to[len(to)-1]))
		}
	}
	for n := len(pairs) - 1; n >= 0; n-- {
		p := pairs[n]
		half, step, rest := t.label("half"), t.label("step"), t.label("rest")
		t.Label(to[n])
		t.scoresBegin()
		t.Label(half)
		t.scoresHalf()
		t.Label(step)
		t.stepTogether(t.products(2, true), p.whole)
		t.DECQ(reg.RAX)
		t.JNZ(operand.LabelRef(step))
		if t.half {
			t.stepTogether(t.halfProducts(), p.half)
		}
		t.scoresEnd(half)
		t.move(t.arg(tSteps), reg.RAX)
		if t.half {
			t.DECQ(reg.RAX)
		}
		t.IMUL3Q(operand.I32(int32(-2*p.whole)), reg.RAX, reg.RAX)
		t.ADDQ(operand.Imm(uint64(blockKeys-2*p.half)), reg.RAX)
		t.JZ(operand.LabelRef(done))
		t.Label(rest)
		t.onePair(rest)
		t.JMP(operand.LabelRef(done))
	}
}

// stepTogether emits a step of products, and weights of so many pairs of keys between them; a half of the keys is whole after some steps.
func (t *tiles) stepTogether(products []func(), pairs int) {
	same := t.label("same")
	var parts []func()
	for i := range pairs {
		pair := t.pair(i)
		for l := range t.aheadLines {
			pair = slices.Insert(pair, (2*l+1)*len(pair)/(2*t.aheadLines), t.ahead)
		}
		parts = append(parts, pair...)
	}
	mix(products, parts)
	t.next()
	t.ADDQ(operand.U32(uint32(scoreRow*pairs)), tFrom)
	t.ADDQ(operand.U32(uint32(64*pairs)), tWeights)
	t.SUBQ(operand.Imm(uint64(pairs)), t.arg(tLeft))
	t.JNZ(operand.LabelRef(same))
	t.weightsHalf()
	t.Label(same)
}

// ahead asks for the next line of memory of those that are wanted soon. It changes z12 and tTo.
func (t *tiles) ahead() {
	done := t.label("asked")
	t.move(t.arg(tAheadAt), tTo)
	t.TESTQ(tTo, tTo)
	t.JZ(operand.LabelRef(done))
	t.PREFETCHT1(at(tTo, 0))
	t.ADDQ(operand.Imm(64), tTo)
	t.move(tTo, t.arg(tAheadAt))
	t.DECQ(t.arg(tAheadLeft))
	t.JNZ(operand.LabelRef(done))
	t.ADDQ(t.arg(tAheadGap), tTo)
	t.move(tTo, t.arg(tAheadAt))
	t.move(t.arg(tAheadLines), tTo)
	t.move(tTo, t.arg(tAheadLeft))
	t.DECQ(t.arg(tAheadRows))
	t.JNZ(operand.LabelRef(done))
	t.move(t.arg(tNext), tTo)
	t.VMOVDQU32(at(tTo, 0), z[12]) // aheadRows is a line of memory
	t.VMOVDQU32(z[12], t.arg(tAheadAt))
	t.ADDQ(operand.Imm(64), t.arg(tNext))
	t.Label(done)
}

// mask puts −∞ where a row does not see a key, unless all rows see all of the blocks.
func (t *tiles) mask() {
	full, some, row := t.label("full"), t.label("some"), t.label("row")
	lo, hi, edge, rows := reg.R9, reg.R10, reg.RAX, reg.R11
	t.move(t.arg(tLo), lo)
	t.move(t.arg(tHi), hi)
	t.MOVLQSX(operand.Mem{Base: lo, Index: tOff, Scale: 1, Disp: 4 * (tileQueries - 1)}, edge)
	t.move(tHalves, rows)
	t.SHLQ(operand.Imm(5), rows)
	t.CMPQ(edge, t.arg(tJ))
	t.JGT(operand.LabelRef(some))
	t.MOVLQSX(operand.Mem{Base: hi, Index: tOff, Scale: 1}, edge)
	t.SUBQ(rows, edge)
	t.CMPQ(edge, t.arg(tJ))
	t.JGE(operand.LabelRef(full))
	t.Label(some)
	place, range_, one, inf := z[0:2], z[2:4], z[4], z[5]
	t.VPBROADCASTD(t.constants.Offset(atOne), one)
	t.VBROADCASTSS(t.constants.Offset(atMinusInf), inf)
	t.move(t.arg(tJ), edge)
	t.VPBROADCASTD(edge.As32(), z[6])
	for i := range 2 {
		t.VMOVDQU32(operand.Mem{Base: lo, Index: tOff, Scale: 1, Disp: 64 * i}, z[7])
		t.VMOVDQU32(operand.Mem{Base: hi, Index: tOff, Scale: 1, Disp: 64 * i}, z[8])
		t.VPSUBD(z[7], z[8], range_[i])
		t.VPSUBD(z[7], z[6], place[i])
	}
	t.move(t.arg(tS), tTo)
	t.Label(row)
	for i := range 2 {
		t.VPCMPUD(operand.Imm(5), range_[i], place[i], reg.K1) // not place − lo < hi − lo, unsigned
		t.VMOVUPS(inf, reg.K1, at(tTo, 64*i))
		t.VPADDD(one, place[i], place[i])
	}
	t.ADDQ(operand.U32(scoreRow), tTo)
	t.DECQ(rows)
	t.JNZ(operand.LabelRef(row))
	t.Label(full)
}

// top leaves the maxima of the group's rows in z0 and z1.
func (t *tiles) top() {
	const unroll = 8
	loop := t.label("top")
	t.VBROADCASTSS(t.constants.Offset(atMinusInf), z[0])
	for i := 1; i < 8; i++ {
		t.VMOVAPS(z[0], z[i])
	}
	t.move(t.arg(tS), tTo)
	t.move(tHalves, reg.R9)
	t.SHLQ(operand.Imm(2), reg.R9)
	t.Label(loop)
	for u := range unroll {
		for i := range 2 {
			acc := z[i+2*(u%4)]
			t.VMAXPS(at(tTo, scoreRow*u+64*i), acc, acc)
		}
	}
	t.ADDQ(operand.U32(unroll*scoreRow), tTo)
	t.DECQ(reg.R9)
	t.JNZ(operand.LabelRef(loop))
	for i := range 2 {
		t.VMAXPS(z[2+i], z[i], z[i])
		t.VMAXPS(z[6+i], z[4+i], z[4+i])
		t.VMAXPS(z[4+i], z[i], z[i])
	}
}

// head decides which rows are shifted anew, and scales what was summed for them.
func (t *tiles) head() {
	rowMax := reg.R9
	t.move(t.arg(tRowMax), rowMax)
	inf, slack := z[8], z[9]
	t.VBROADCASTSS(t.constants.Offset(atMinusInf), inf)
	t.VBROADCASTSS(t.constants.Offset(atSlack), slack)
	masks := []reg.OpmaskPhysical{reg.K1, reg.K2}
	for i := range 2 {
		m := operand.Mem{Base: rowMax, Index: tOff, Scale: 1, Disp: 64 * i}
		top, old, limit := z[i], z[2+i], z[4+i]
		t.VMOVUPS(m, old)
		t.VMULPS(tScaled, top, top)
		t.VADDPS(slack, old, limit)
		t.VCMPPS(operand.Imm(14), limit, top, masks[i]) // top > limit
		t.VBLENDMPS(top, old, masks[i], top)
		t.VMOVUPS(top, m)
		t.VCMPPS(operand.Imm(4), inf, top, reg.K3) // a row without a visible key is shifted by 0
		t.VMOVAPS_Z(top, reg.K3, tShift[i])
		t.VSUBPS(tShift[i], old, tAlpha[i])
	}
	t.exp(tAlpha, z[4:6], z[6:8], tExp)
	same, row := t.label("same"), t.label("scale")
	t.KORTESTW(reg.K1, reg.K2)
	t.JZ(operand.LabelRef(same))
	t.move(t.arg(tOHeld), tTo)
	t.move(t.arg(tCols), reg.R9)
	t.SHLQ(operand.Imm(2), reg.R9)
	t.Label(row)
	for u := range 4 {
		for i := range 2 {
			m := at(tTo, scoreRow*u+64*i)
			t.VMULPS(m, tAlpha[i], z[2*u+i])
			t.VMOVUPS(z[2*u+i], m)
		}
	}
	t.ADDQ(operand.U32(4*scoreRow), tTo)
	t.DECQ(reg.R9)
	t.JNZ(operand.LabelRef(row))
	t.Label(same)
}

// weightsBegin readies the weights of a group.
func (t *tiles) weightsBegin() {
	for i := range 2 {
		t.VPXORD(tSum[i], tSum[i], tSum[i])
	}
	t.move(t.arg(tS), tFrom)
	t.LEAQ(at(tWork, tileP), tWeights)
	t.move(operand.U32(16), reg.RAX)
	t.move(reg.RAX, t.arg(tLeft))
}

// weightsHalf goes on to the second half of the keys.
func (t *tiles) weightsHalf() {
	t.ADDQ(operand.U32(16*scoreRow), tFrom)
	t.ADDQ(operand.U32(uint32(t.stepBytes()-tileBytes)), tWeights)
	t.ADDQ(operand.Imm(16), t.arg(tLeft))
}

// weights turns the scores into weights, and leaves these in pieces, pairs of keys 16 apart.
func (t *tiles) weights() {
	loop := t.label("weights")
	t.move(tHalves, reg.RAX)
	t.SHLQ(operand.Imm(4), reg.RAX)
	t.Label(loop)
	t.onePair(loop)
}

// onePair makes one pair's weights, counts down rax and goes to again while some are left.
func (t *tiles) onePair(again string) {
	same := t.label("same")
	mix(t.pair(0), nil)
	t.ADDQ(operand.U32(scoreRow), tFrom)
	t.ADDQ(operand.U32(64), tWeights)
	t.DECQ(t.arg(tLeft))
	t.JNZ(operand.LabelRef(same))
	t.weightsHalf()
	t.Label(same)
	t.DECQ(reg.RAX)
	t.JNZ(operand.LabelRef(again))
}

// sums updates rowSum.
func (t *tiles) sums() {
	t.move(t.arg(tRowSum), reg.R9)
	for i := range 2 {
		m := operand.Mem{Base: reg.R9, Index: tOff, Scale: 1, Disp: 64 * i}
		t.VFMADD132PS(m, tSum[i], tAlpha[i]) // alpha·rowSum + sum
		t.VMOVUPS(tAlpha[i], m)
	}
}

// pair are the instructions, in small parts, that make the weights of keys 16 apart, n keys further.
func (t *tiles) pair(n int) (parts []func()) {
	x, r, p := z[0:4], z[4:8], z[8:12] // key p and p+16 of the first queries, then of the others
	each := func(f func(i int)) {
		parts = append(parts, func() { f(0); f(1) }, func() { f(2); f(3) })
	}
	each(func(i int) { t.VMOVUPS(at(tFrom, scoreRow*n+64*(i/2)+16*scoreRow*(i%2)), x[i]) })
	each(func(i int) { t.VFMSUB213PS(tShift[i/2], tScaled, x[i]) })
	each(func(i int) { t.VMULPS(tExp[6], x[i], x[i]) })
	each(func(i int) { t.VREDUCEPS(operand.Imm(1), x[i], r[i]) })
	each(func(i int) { t.VMOVAPS(tExp[0], p[i]) })
	for c := 1; c < 6; c++ {
		each(func(i int) { t.VFMADD213PS(tExp[c], r[i], p[i]) })
	}
	each(func(i int) { t.VSCALEFPS(x[i], p[i], x[i]) })
	for i := range 2 {
		parts = append(parts, func() { t.VADDPS(x[2*i], x[2*i+1], r[i]) }, func() { t.VADDPS(r[i], tSum[i], tSum[i]) })
	}
	for i := range 2 {
		parts = append(parts, t.cut(x[2*i:2*i+2], p[2*i:2*i+2], tUpper, func(piece int) operand.Mem {
			return at(tWeights, 64*n+tileBytes*piece+2*t.stepBytes()*i)
		})...)
	}
	return parts
}

// cut are the instructions, in small parts, that cut two vectors of numbers into pieces of BF16 in pairs: the low half of a word is the
// first one's.
func (t *tiles) cut(x, upper []reg.VecPhysical, mask reg.Register, to func(piece int) operand.Mem) (parts []func()) {
	pack := func(v []reg.VecPhysical, piece int) func() {
		return func() {
			t.VPSRLD(operand.Imm(16), v[0], v[0])
			if piece == t.pieces-1 { // a BF16, but for weights of 2⁻¹¹⁰ and less
				t.VPANDD(mask, v[1], v[1])
			}
			t.VPORD(v[0], v[1], v[1])
			t.VMOVDQU32(v[1], to(piece))
		}
	}
	for piece := range t.pieces - 1 {
		parts = append(parts, func() {
			for i := range x {
				t.VPANDD(mask, x[i], upper[i])
			}
			for i := range x {
				t.VSUBPS(upper[i], x[i], x[i])
			}
		}, pack(upper, piece))
	}
	if t.pieces == 1 { // rounded to the nearest
		parts = append(parts, func() {
			for i := range x {
				t.VPADDD(tRound, x[i], x[i])
			}
		})
	}
	return append(parts, pack(x, t.pieces-1))
}

// weigh adds the weighted values, transposed, to the output.
func (t *tiles) weigh() {
	cols, one, done := t.label("columns"), t.label("column"), t.label("weighed")
	left, halves, v := reg.R11, reg.R10, reg.RAX
	t.move(t.arg(tV), v)
	t.move(t.arg(tOHeld), tTo)
	t.move(t.arg(tCols), left)
	block := func(rows int) {
		half := t.label("half")
		t.each(rows, t.load)
		t.move(v, tA)
		t.ADDQ(t.arg(tPanel), v)
		if rows > 1 {
			t.move(v, tA2)
			t.ADDQ(t.arg(tPanel), v)
		}
		t.LEAQ(at(tWork, tileP), tB)
		t.LEAQ(at(tWork, tileP+2*t.stepBytes()), tB2)
		t.move(tHalves, halves)
		t.Label(half)
		t.product(rows, false)
		t.next()
		t.DECQ(halves)
		t.JNZ(operand.LabelRef(half))
		t.each(rows, t.store)
	}
	t.Label(cols)
	t.CMPQ(left, operand.Imm(2))
	t.JLT(operand.LabelRef(one))
	block(2)
	t.ADDQ(operand.U32(2*16*scoreRow), tTo)
	t.SUBQ(operand.Imm(2), left)
	t.JNZ(operand.LabelRef(cols))
	t.JMP(operand.LabelRef(done))
	t.Label(one)
	block(1)
	t.Label(done)
}
