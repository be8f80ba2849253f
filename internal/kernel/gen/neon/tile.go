package main

import "fmt"

// A register tile has six rows of four vectors: 24 sums, four vectors of B and four registers in which the elements of A take
// turns.
const (
	tileRows   = 6
	tileSums   = 24
	tileB      = tileSums     // first register of B
	tileA      = tileSums + 4 // first register of A
	tileUnroll = 4            // steps of k in one turn of the inner loop
)

// Registers of a tile function.
const (
	tM, tK, tPtrA, tCsA, tGsA, tPtrB, tLdb gp = 0, 1, 2, 3, 4, 5, 6
	tPtrC, tLdc, tMode, tAlpha             gp = 7, 8, 9, 10
	tRow                                   gp = 11 // tRow+i = i·rsA for 0 < i < 6
	tWalkA, tWalkB, tWalkC, tLeft, tLane   gp = 17, 19, 20, 21, 22
)

// tileFunc is a tile function of nv vectors of columns, or of one vector that has only part lanes.
type tileFunc struct {
	*file
	nv, part int
	r, sets  int
	done     string
}

// tiles emits products of up to six rows at a time with 16, 8 and 4 columns, and with 3, 2 and 1.
func (f *file) tiles() {
	for _, nv := range []int{4, 2, 1} {
		(&tileFunc{file: f, nv: nv}).emit(fmt.Sprintf("tile%d", 4*nv), 4*nv)
	}
	for part := 3; part > 0; part-- {
		(&tileFunc{file: f, nv: 1, part: part}).emit(fmt.Sprintf("tile%d", part), part)
	}
}

func (t *tileFunc) emit(name string, columns int) {
	t.function(name, "m, k int, a *float32, rsA, csA, gsA int, b *float32, ldb int, c *float32, ldc int, mode int, alpha *float32", "",
		fmt.Sprintf("computes C (m×%d) = [0 | C | diag(alpha)·C] + A·B for mode 0, 1, 2.\n", columns)+
			"Strides are in bytes; gsA is the distance between groups of six rows of A. m ≥ 1, k ≥ 0.")
	t.done = t.label("done")
	for _, a := range []struct {
		name string
		r    gp
	}{{"m", tM}, {"k", tK}, {"a", tPtrA}, {"rsA", tRow + 1}, {"csA", tCsA}, {"gsA", tGsA}, {"b", tPtrB}, {"ldb", tLdb},
		{"c", tPtrC}, {"ldc", tLdc}, {"mode", tMode}, {"alpha", tAlpha}} {
		t.arg(a.name, a.r)
	}
	for i := 2; i < tileRows; i++ {
		t.op("ADD %s, %s, %s", tRow+1, tRow+gp(i)-1, tRow+gp(i))
	}
	rows, rest := t.label("rows"), t.label("rest")
	t.mark(rows)
	t.op("CMP $%d, %s", tileRows, tM)
	t.op("BLT %s", rest)
	t.rows(tileRows)
	t.op("ADD %s, %s", tGsA, tPtrA)
	t.op("MOVD %s, %s", tWalkC, tPtrC)
	t.op("ADD $%d, %s", 4*tileRows, tAlpha)
	t.op("SUB $%d, %s", tileRows, tM)
	t.op("B %s", rows)
	t.mark(rest)
	for r := tileRows - 1; r > 0; r-- {
		next := t.label("fewer")
		t.op("CMP $%d, %s", r, tM)
		t.op("BNE %s", next)
		t.rows(r)
		t.op("B %s", t.done)
		t.mark(next)
	}
	t.mark(t.done)
	t.op("RET")
}

// setsOf is the number of independent sums kept for each element, so that up to 16 chains hide the latency of a fused
// multiply-add.
func setsOf(vectors int) int {
	s := 1
	for s < tileUnroll && s*vectors < 16 && 2*s*vectors <= tileSums {
		s *= 2
	}
	return s
}

// sum is the register of vector (i, j) of a set.
func (t *tileFunc) sum(set, i, j int) int { return (set*t.r+i)*t.nv + j }

// rows emits the product of r rows. It leaves tWalkC below the last of them.
func (t *tileFunc) rows(r int) {
	t.r, t.sets = r, setsOf(r*t.nv)
	t.note("%d rows: sums = 0", r)
	t.op("MOVD %s, %s", tPtrA, tWalkA)
	t.op("MOVD %s, %s", tPtrB, tWalkB)
	for v := range t.sets * r * t.nv {
		t.op("%s", three("eor", v, v, v))
	}
	loop, few, one, sums := t.label("loop"), t.label("few"), t.label("one"), t.label("sums")
	t.op("SUBS $%d, %s, %s", tileUnroll, tK, tLeft)
	t.op("BLT %s", few)
	t.note("sums += column p of A · row p of B, %d p at a time", tileUnroll)
	t.mark(loop)
	for u := range tileUnroll {
		t.step(u % t.sets)
	}
	t.op("SUBS $%d, %s", tileUnroll, tLeft)
	t.op("BGE %s", loop)
	t.mark(few)
	t.op("ADDS $%d, %s", tileUnroll, tLeft)
	t.op("BEQ %s", sums)
	t.mark(one)
	t.step(0)
	t.op("SUBS $1, %s", tLeft)
	t.op("BNE %s", one)
	t.mark(sums)
	t.finish()
}

// step adds the outer product of one column of A and one row of B.
func (t *tileFunc) step(set int) {
	t.load(tWalkB, tileB)
	t.op("ADD %s, %s", tLdb, tWalkB)
	// Elements of A are read four rows ahead, for processors that stall where a loaded value is used at once.
	element := func(i int) {
		if i == 0 {
			t.op("FMOVS (%s), F%d", tWalkA, tileA)
		} else {
			t.op("FMOVS (%s)(%s), F%d", tWalkA, tRow+gp(i), tileA+i%4)
		}
	}
	for i := range min(4, t.r) {
		element(i)
	}
	for i := range t.r {
		for j := range t.nv {
			t.op("%s", fmlaLane(t.sum(set, i, j), tileB+j, tileA+i%4, 0))
		}
		if i+4 < t.r {
			element(i + 4)
		}
	}
	t.op("ADD %s, %s", tCsA, tWalkA)
}

// finish folds the sets into one sum, applies the mode and stores.
func (t *tileFunc) finish() {
	size := t.r * t.nv
	for half := t.sets / 2; half > 0; half /= 2 {
		for v := range half * size {
			t.op("%s", three("fadd", v, v, v+half*size))
		}
	}
	t.note("C = sums, C + sums or alpha·C + sums")
	add, store := t.label("add"), t.label("store")
	t.op("CMP $1, %s", tMode)
	t.op("BLT %s", store)
	t.op("MOVD %s, %s", tPtrC, tWalkC)
	t.op("BEQ %s", add)
	for i := range t.r {
		t.op("FMOVS %d(%s), F%d", 4*i, tAlpha, tileA)
		t.load(tWalkC, tileB)
		for j := range t.nv {
			t.op("%s", fmlaLane(t.sum(0, i, j), tileB+j, tileA, 0))
		}
		t.op("ADD %s, %s", tLdc, tWalkC)
	}
	t.op("B %s", store)
	t.mark(add)
	for i := range t.r {
		t.load(tWalkC, tileB)
		for j := range t.nv {
			t.op("%s", three("fadd", t.sum(0, i, j), t.sum(0, i, j), tileB+j))
		}
		t.op("ADD %s, %s", tLdc, tWalkC)
	}
	t.mark(store)
	t.op("MOVD %s, %s", tPtrC, tWalkC)
	for i := range t.r {
		t.store(t.sum(0, i, 0), tWalkC)
		t.op("ADD %s, %s", tLdc, tWalkC)
	}
}

// load reads a row of the tile into registers from v on; lanes beyond a part become 0.
func (t *tileFunc) load(from gp, v int) {
	switch {
	case t.part == 1:
		t.op("FMOVS (%s), F%d", from, v)
	case t.part > 1:
		t.op("FMOVD (%s), F%d", from, v)
		if t.part == 3 {
			t.op("ADD $8, %s, %s", from, tLane)
			t.op("VLD1 (%s), V%d.S[2]", tLane, v)
		}
	default:
		t.loadVectors(from, v, t.nv)
	}
}

// store writes a row of the tile from registers from v on.
func (t *tileFunc) store(v int, to gp) {
	switch {
	case t.part == 1:
		t.op("FMOVS F%d, (%s)", v, to)
	case t.part > 1:
		t.op("FMOVD F%d, (%s)", v, to)
		if t.part == 3 {
			t.op("ADD $8, %s, %s", to, tLane)
			t.op("VST1 V%d.S[2], (%s)", v, tLane)
		}
	default:
		t.storeVectors(v, to, t.nv)
	}
}

// loadVectors reads n consecutive vectors, in pairs.
func (f *file) loadVectors(from gp, v, n int) {
	i := 0
	for ; i+2 <= n; i += 2 {
		f.op("FLDPQ %d(%s), (F%d, F%d)", 16*i, from, v+i, v+i+1)
	}
	if i < n {
		f.op("FMOVQ %d(%s), F%d", 16*i, from, v+i)
	}
}

// storeVectors writes n consecutive vectors, in pairs.
func (f *file) storeVectors(v int, to gp, n int) {
	i := 0
	for ; i+2 <= n; i += 2 {
		f.op("FSTPQ (F%d, F%d), %d(%s)", v+i, v+i+1, 16*i, to)
	}
	if i < n {
		f.op("FMOVQ F%d, %d(%s)", v+i, 16*i, to)
	}
}
