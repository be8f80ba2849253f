package kernel

import (
	"fmt"
	"unsafe"
)

// CodeTileBytes is the size of a tile of codes: 16 rows of 64.
const CodeTileBytes = 1024

// OnlineCodeTiles is OnlineTiles for queries and keys that are integers of 8 bits; its scores are those of OnlineCodes, to the bit.
// Values are numbers of BF16, cut into pieces, of which the first ones are all.
type OnlineCodeTiles struct {
	OnlineTiles // without Q and Scale; D is a multiple of 64: rows of codes are filled up with zeros
	// Codes are groups of two panels of 16 queries, each D/64 tiles: word w of four codes of query n at (16·w + n)·4.
	Codes    []int8
	RowScale []float32 // of each row
}

// Step takes groups g0 ≤ g < g1 over a panel of codes: four times 16 keys, each D/64 tiles, code c of key n at 64·n + c. scale has TileKeys
// numbers, of which n count. v is as in OnlineTiles.Step.
func (s *OnlineCodeTiles) Step(g0, g1 int, k []int8, scale []float32, v []uint16, j, n int) {
	if g0 >= g1 || n <= 0 {
		return
	}
	if g0 < 0 || n > TileKeys || s.Ld%16 != 0 || s.Ld <= 0 || s.D <= 0 || s.D%64 != 0 {
		panic(fmt.Sprintf("kernel: OnlineCodeTiles.Step: got groups from %d, %d keys of %d, values in rows of %d, want 0, 1 to %d of a multiple of 64, a multiple of 16",
			g0, n, s.D, s.Ld, TileKeys))
	}
	rows := g1 * TileQueries
	checkLen("Codes", len(s.Codes), rows*s.D)
	checkLen("O", len(s.O), rows*s.Ld)
	checkRows("OnlineCodeTiles.Step", rows, len(s.RowMax), len(s.RowSum), len(s.Lo), len(s.Hi), len(s.RowScale))
	checkLen("Work", len(s.Work), TileWork)
	checkLen("keys", len(k), TileKeys*s.D)
	checkLen("scales of keys", len(scale), TileKeys)
	checkLen("values", len(v), PiecesLen(s.Ld, n))
	a := codeTilesArgs{attnTilesArgs: attnTilesArgs{k: unsafe.Pointer(unsafe.SliceData(k)), v: unsafe.Pointer(unsafe.SliceData(v)), work: pointer(s.Work),
		steps: s.D / 64, cols: s.Ld / 16, j: j, keys: n, scale: 1, panel: 2 * PiecePanel(n)}, keyScale: pointer(scale)}
	most := max(1, tilesMaxWork/(TileQueries*TileKeys*(s.D+s.Ld)))
	for ; g0 < g1; g0 += most {
		r := g0 * TileQueries
		a.q, a.o = unsafe.Pointer(&s.Codes[r*s.D]), pointer(s.O[r*s.Ld:])
		a.rowMax, a.rowSum, a.rowScale = pointer(s.RowMax[r:]), pointer(s.RowSum[r:]), pointer(s.RowScale[r:])
		a.lo, a.hi = unsafe.Pointer(unsafe.SliceData(s.Lo[r:])), unsafe.Pointer(unsafe.SliceData(s.Hi[r:]))
		a.groups = min(most, g1-g0)
		codeTilesCall(&a)
	}
}

// codeTilesArgs is what the assembly takes; gen/attn knows the order.
type codeTilesArgs struct {
	attnTilesArgs
	rowScale, keyScale unsafe.Pointer
}
