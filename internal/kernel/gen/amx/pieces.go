package amx

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
)

// Numbers of float32 are multiplied in pieces of BF16, see pieces.go of package kernel.
const (
	Pieces    = 3
	TileBytes = 1024 // of a whole tile, which a piece of 16 lines and 32 steps fills
)

// Terms are the products of pieces, of A and of B, that are not below a rounding of the sum, the smaller ones first, in an order in which
// each but the first finds one of its operands loaded.
var Terms = [6][2]int{{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}}

// Whole is Shape of whole tiles, 16 rows of 64 bytes.
func Whole(c *build.Context, name string) operand.Mem {
	var bytes, rows [8]uint8
	for i := range bytes {
		bytes[i], rows[i] = 64, 16
	}
	return Shape(c, name, bytes, rows)
}
