package kernel

import (
	"fmt"
	"math"
	"unsafe"
)

// Online is the state of the online softmax (Dao et al. 2022, algorithm 1) of some query rows. Their number is a multiple of six:
// what is left over is filled up with rows of zeros.
type Online[T Float] struct {
	Q              []T     // rows × D
	O              []T     // rows × Ld, the weighted sum of values so far, relative to RowMax
	D, Ld          int     // Ld is a multiple of 16 up to 256
	RowMax, RowSum []T     // of each row: begin with −∞ and 0
	Lo, Hi         []int32 // each row sees keys Lo ≤ j < Hi; both do not decrease from row to row
	Work           []T     // OnlineWork elements
}

// Sizes that Online works in.
const (
	OnlineKeys = 64   // of a panel of keys, at most
	OnlineWork = 1024 // elements of Online.Work
	onlineCols = 256  // of Ld, at most: four panels of columns
)

// OnlineFused reports whether Step is one kernel here, faster than Tile, SoftmaxStep and Tile in turn.
func OnlineFused[T Float]() bool { return vectorized[T]() && active == AVX512 }

// Step takes rows r0 ≤ r < r1, multiples of six, over keys j ≤ … < j+n, n ≤ OnlineKeys: kt holds the keys in columns, D rows of
// OnlineKeys, of which the first n count, and v the values, n rows of Ld. Scores are sums over D from left to right, one rounding a
// step, whatever the place in the panel. Values are finite, or their row of kt is seen by every row.
func (s *Online[T]) Step(r0, r1 int, kt, v []T, j, n int) {
	if r0 >= r1 || n <= 0 {
		return
	}
	s.checkStep(r0, r1, n, "Q", len(s.Q), r1*s.D)
	checkLen("keys", len(kt), s.D*OnlineKeys)
	checkLen("values", len(v), n*s.Ld)
	if OnlineFused[T]() {
		s.fused(r0, r1, kt, v, j, n)
		return
	}
	for r := r0; r < r1; r += tileRows {
		s.six(r, v, j, n, func(row []T, r int) { s.products(row, r, kt) })
	}
}

// checkStep reports rows, keys and columns that a step does not take, and memory that is too short for them; queries are got of what and
// want numbers.
func (s *Online[T]) checkStep(r0, r1, n int, what string, got, want int) {
	if r0 < 0 || r0%tileRows != 0 || r1%tileRows != 0 || n > OnlineKeys || s.Ld%16 != 0 || s.Ld > onlineCols {
		panic(fmt.Sprintf("kernel: Online.Step: got rows %d to %d, %d keys, values in rows of %d, want multiples of %d, at most %d, and a multiple of 16 up to %d",
			r0, r1, n, s.Ld, tileRows, OnlineKeys, onlineCols))
	}
	checkLen(what, got, want)
	checkLen("O", len(s.O), r1*s.Ld)
	checkRows("Online.Step", r1, len(s.RowMax), len(s.RowSum), len(s.Lo), len(s.Hi))
	checkLen("Work", len(s.Work), OnlineWork)
}

// products fills a row of scores.
func (s *Online[T]) products(row []T, r int, kt []T) {
	clear(row)
	for c, q := range s.Q[r*s.D:][:s.D] {
		for p, k := range kt[c*OnlineKeys:][:len(row)] {
			row[p] = fma(q, k, row[p])
		}
	}
}

// six is Step on six rows in portable pieces, with products to fill a row of scores.
func (s *Online[T]) six(r int, v []T, j, n int, products func(row []T, r int)) {
	n = min(n, int(s.Hi[r+tileRows-1])-j)
	if n <= 0 || int(s.Lo[r])-j >= n {
		return
	}
	scores, alpha := s.Work[:tileRows*OnlineKeys], s.Work[tileRows*OnlineKeys:][:tileRows]
	for i := range tileRows {
		row := scores[i*OnlineKeys:][:n]
		products(row, r+i)
		for p := range row {
			if j+p < int(s.Lo[r+i]) || j+p >= int(s.Hi[r+i]) {
				row[p] = T(math.Inf(-1))
			}
		}
	}
	SoftmaxStep(scores, OnlineKeys, tileRows, n, s.RowMax[r:], s.RowSum[r:], alpha)
	Tile(tileRows, s.Ld, n, scores, OnlineKeys, 1, v, s.Ld, s.O[r*s.Ld:], s.Ld, TileScaleAdd, alpha)
}

// fma is x·y+z rounded once.
func fma[T Float](x, y, z T) T {
	if is32[T]() {
		return T(float64(x)*float64(y) + float64(z)) // the product is exact; the sum is rounded twice, which rarely shows
	}
	return T(math.FMA(float64(x), float64(y), float64(z)))
}

// attnForwardArgs is what the assembly takes; gen/attn knows the order. What it counts up are numbers, not pointers, for they end
// beyond their slices.
type attnForwardArgs struct {
	q, kt, v, o, rowMax, rowSum, lo, hi, work unsafe.Pointer
	d, ld                                     int // ld in bytes
	groups, j, keys                           int
	oAt, oBefore                              uintptr
	colsBefore                                int
	panels                                    [5]int // vectors in each panel of columns, 0 after the last
}

// fused is Step in assembly, in calls of at most some hundred microseconds.
func (s *Online[T]) fused(r0, r1 int, kt, v []T, j, n int) {
	a := attnForwardArgs{kt: pointer(kt), v: pointer(v), work: aligned(s.Work), d: s.D, ld: 4 * s.Ld, j: j, keys: n}
	columnPanels(&a.panels, s.Ld/16)
	step := max(1, onlineMaxWork/(tileRows*OnlineKeys*(s.D+s.Ld)))
	for groups := (r1 - r0) / tileRows; groups > 0; groups -= a.groups {
		g := min(groups, step)
		s.point(&a, r0)
		a.q = pointer(s.Q[r0*s.D:])
		a.groups, a.colsBefore = g, 0
		onlineCall(&a)
		a.groups = g
		r0 += g * tileRows
	}
}

// point lets a begin at row r.
func (s *Online[T]) point(a *attnForwardArgs, r int) {
	a.o, a.rowMax, a.rowSum = pointer(s.O[r*s.Ld:]), pointer(s.RowMax[r:]), pointer(s.RowSum[r:])
	a.lo, a.hi = unsafe.Pointer(unsafe.SliceData(s.Lo[r:])), unsafe.Pointer(unsafe.SliceData(s.Hi[r:]))
}

// onlineMaxWork bounds the multiply-adds of one call.
const onlineMaxWork = 1 << 23

// columnPanels cuts n vectors of columns into panels of at most four, as even as can be.
func columnPanels(to *[5]int, n int) {
	panels := (n + 3) / 4
	for i := range panels {
		to[i] = (n + panels - 1 - i) / panels
	}
}

// aligned is the first whole line in x, of which one line's elements are spare.
func aligned[T Float](x []T) unsafe.Pointer {
	p := pointer(x)
	return unsafe.Add(p, -uintptr(p)&63)
}
