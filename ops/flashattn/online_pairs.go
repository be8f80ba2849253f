package flashattn

import (
	"unsafe"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Under BFloat16 the forward pass goes through kernel.OnlinePairs where the processor has no tiles but multiplies pairs of BF16 faster than
// float32. Everything is rounded where it is packed; a block of values with a NaN or an infinity goes through stages of float32.

// inPairs reports whether forward tiles are kernel.OnlinePairs's.
func inPairs[T kernel.Float](a attrs, b blocks, bias bool) bool {
	return a.Precision == BFloat16 && kernel.OnlinePairsFused[T]() && a.maskOnly(b, bias)
}

// roundsAsItGoes reports whether units round what they pack, in place of copies of all inputs.
func roundsAsItGoes[T kernel.Float](a attrs, b blocks, bias bool) bool {
	return a.Precision == BFloat16 && (inTiles[T](a, b, bias) || inPairs[T](a, b, bias))
}

// pairWords is the number of words of a row.
func pairWords(d int) int { return (d + 1) / 2 }

// leastPaired is a number from which on values are not paired: BF16 would make an infinity of the largest ones.
const leastPaired = 0x1p127

// gatherPairs rounds the unit's rows; those that fill it up are 0.
func (u *forwardUnit[T]) gatherPairs(w *parallel.Worker) {
	d, all := u.problem.q.Dim, len(u.lo)
	u.pairs = parallel.Scratch[uint32](w, slotUnitCodes, u.scratch[slotUnitCodes])[:all*pairWords(d)]
	clear(u.pairs)
	halves := unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(u.pairs))), 2*len(u.pairs))
	for r := range u.st.rows() {
		i, h := u.st.place(r)
		kernel.ToBFloat16(halves[r*2*pairWords(d):][:d], float32s(u.problem.q.row(u.st.seg.batch, i, h)))
	}
}

// packPairs packs keys and values of j0 ≤ j < j1, which u.v holds, in words, where they would lie as numbers.
func (u *forwardUnit[T]) packPairs(j0, j1 int) {
	d := u.problem.k.Dim
	packKeys(u.kt, &u.problem.k, u.st.seg.batch, u.st.kvHead, j0, j1, u.panel, 1)
	for j := j0; j < j1; j += u.panel {
		pairRows(float32s(u.kt[(j-j0)*d:]), d, u.panel)
		pairRows(float32s(u.v[(j-j0)*u.ld:]), min(u.panel, j1-j), u.ld)
	}
}

// pairRows makes words of pairs of rows, each n long, from the first on.
func pairRows(x []float32, rows, n int) {
	var zero [maxDim]float32
	for r := 0; r < rows; r += 2 {
		high := zero[:n]
		if r+1 < rows {
			high = x[(r+1)*n:][:n]
		}
		kernel.PairRows(asWords(x[r/2*n:][:n]), x[r*n:][:n], high)
	}
}

func asWords(x []float32) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(x))), len(x))
}

// onlinePairs is online on words.
func (u *forwardUnit[T]) onlinePairs(j0, j1 int) {
	d := u.problem.q.Dim
	s := kernel.OnlinePairs{Pairs: u.pairs, Scale: float32(u.keyScale()), Online: kernel.Online[float32]{O: float32s(u.o), D: pairWords(d), Ld: u.ld,
		RowMax: float32s(u.rowMax), RowSum: float32s(u.rowSum), Lo: u.lo, Hi: u.hi, Work: float32s(u.s)}}
	for j := j0; j < j1; j += u.panel {
		n := min(u.panel, j1-j)
		r0, r1 := u.seeing(j, n)
		s.Step(r0, r1, asWords(float32s(u.kt[(j-j0)*d:][:d*u.panel])), asWords(float32s(u.v[(j-j0)*u.ld:][:n*u.ld])), j, n)
	}
}

// roundQueries fills q with the unit's rows, rounded, for blocks that are not fused.
func (u *forwardUnit[T]) roundQueries() {
	for r := range u.st.rows() {
		i, h := u.st.place(r)
		roundRow(u.q[r*u.problem.q.Dim:][:u.problem.q.Dim], u.problem.q.row(u.st.seg.batch, i, h))
	}
	u.wide = true
}
