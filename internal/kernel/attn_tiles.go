package kernel

import (
	"fmt"
	"unsafe"
)

// Attention in tiles of AMX. Q, K and V are cut into pieces of BF16 once (see pieces.go), and so are the weights, after each step of
// the softmax, so that both products are as accurate as those of float32.
//
// Scores are computed transposed, keys by queries, and so is the output: a vector holds 16 queries, so that the softmax runs over
// vectors and not across them.

// Sizes that OnlineTiles works in.
const (
	TileQueries  = 32                                                         // of a group of rows
	TileKeys     = 64                                                         // of a panel of keys, at most
	TileWork     = 2*TileKeys*TileQueries + TileKeys*TileQueries*pieceParts/2 // elements of OnlineTiles.Work
	tilesMaxD    = 256                                                        // of D: scores in 8 steps, each of which makes the weights of two pairs of keys
	tilesMaxWork = 1 << 24                                                    // multiply-adds of one call
)

// TilesFused reports whether OnlineTiles runs here.
func TilesFused[T Float]() bool { return matrixVectorized[T]() }

// OnlineTiles is Online on tiles, for groups of TileQueries rows.
type OnlineTiles struct {
	Q              []uint16  // groups, each the pieces of D × TileQueries, as PackPiecesB makes them
	O              []float32 // groups, each Ld × TileQueries: the weighted sum of values so far, transposed, relative to RowMax
	D, Ld          int       // Ld is a multiple of 16
	Scale          float32   // > 0, which multiplies products
	RowMax, RowSum []float32 // of each row: begin with −∞ and 0. RowMax is at most 5.5 below the largest score: see Step
	Lo, Hi         []int32   // each row sees keys Lo ≤ j < Hi; both do not decrease from row to row
	Rounded        bool      // of BF16: queries, keys and values are as PackRoundedA and B make them, weights are rounded too
	Half           bool      // queries and keys are as PackHalfB and A make them, for D % 32 of 1 to 16 from 33 on; scores round in another order
	Work           []float32 // TileWork elements on a multiple of 64 bytes
	Ahead          Ahead     // what is asked for meanwhile
}

// Step takes groups g0 ≤ g < g1 over keys j ≤ … < j+n, n ≤ TileKeys, in pieces: k is n × D as PackPiecesA makes them, v the transposed
// values, Ld × n, likewise. A row is scaled anew only when a score exceeds its RowMax by more than 5.5: weights may be up to e^5.5, which
// loses nothing. Scores are Scale·(q·k), the product as TilePieces computes it of A = q and B = kᵀ, to the bit. Scores of rows in a
// group are finite, whether the rows see them or not.
func (s *OnlineTiles) Step(g0, g1 int, k, v []uint16, j, n int) {
	if g0 >= g1 || n <= 0 {
		return
	}
	if g0 < 0 || n > TileKeys || s.Ld%16 != 0 || s.Ld <= 0 || s.D <= 0 || s.D > tilesMaxD || !(s.Scale > 0) {
		panic(fmt.Sprintf("kernel: OnlineTiles.Step: got groups from %d, %d keys of %d, values in rows of %d, scale %v, want 0, 1 to %d of 1 to %d, a multiple of 16, more than 0",
			g0, n, s.D, s.Ld, s.Scale, TileKeys, tilesMaxD))
	}
	if s.Half && (s.Rounded || !HalfStep(s.D)) {
		panic(fmt.Sprintf("kernel: OnlineTiles.Step: got half a step of keys of %d, want 33 to 48 of 64 and so on, in three pieces", s.D))
	}
	length, panel := PiecesLen, 2*PiecePanel(n)
	if s.Rounded {
		length, panel = RoundedLen, panel/pieceParts
	}
	rows, group := g1*TileQueries, length(TileQueries, s.D)
	checkLen("Q", len(s.Q), g1*group)
	checkLen("O", len(s.O), rows*s.Ld)
	checkRows("OnlineTiles.Step", rows, len(s.RowMax), len(s.RowSum), len(s.Lo), len(s.Hi))
	checkLen("Work", len(s.Work), TileWork)
	checkLen("keys", len(k), length(ceilTo(n, 32), s.D))
	checkLen("values", len(v), length(s.Ld, n))
	a := attnTilesArgs{k: unsafe.Pointer(unsafe.SliceData(k)), v: unsafe.Pointer(unsafe.SliceData(v)), work: pointer(s.Work),
		steps: tasks(s.D, PieceSteps), cols: s.Ld / 16, j: j, keys: n, scale: s.Scale, panel: panel}
	ahead := &s.Ahead
	a.now = ahead.now
	most := max(1, tilesMaxWork/(TileQueries*TileKeys*(s.D+s.Ld)))
	for ; g0 < g1; g0 += most {
		a.next = unsafe.Add(unsafe.Pointer(&ahead.then), uintptr(ahead.next)*unsafe.Sizeof(a.now))
		r := g0 * TileQueries
		a.q, a.o = unsafe.Pointer(&s.Q[g0*group]), pointer(s.O[r*s.Ld:])
		a.rowMax, a.rowSum = pointer(s.RowMax[r:]), pointer(s.RowSum[r:])
		a.lo, a.hi = unsafe.Pointer(unsafe.SliceData(s.Lo[r:])), unsafe.Pointer(unsafe.SliceData(s.Hi[r:]))
		a.groups = min(most, g1-g0)
		switch {
		case s.Rounded:
			roundedTilesCall(&a)
		case s.Half:
			halfTilesCall(&a)
		default:
			tilesCall(&a)
		}
		ahead.next = int((uintptr(a.next) - uintptr(unsafe.Pointer(&ahead.then))) / unsafe.Sizeof(a.now))
	}
	ahead.now = a.now
}

// attnTilesArgs is what the assembly takes; gen/attn knows the order. What it counts up beyond the ends of slices are numbers, not
// pointers.
type attnTilesArgs struct {
	q, k, v, o, rowMax, rowSum, lo, hi, work unsafe.Pointer
	steps, cols, groups, j, keys             int
	scale                                    float32
	panel                                    int
	variables                                [10]uintptr    // of the assembly
	next                                     unsafe.Pointer // what to ask for after now, in an Ahead
	now                                      aheadRows
}
