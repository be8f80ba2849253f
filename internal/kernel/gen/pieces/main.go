// Command pieces generates the assembly of package kernel for float32 products in the tiles of AMX: the cutting of numbers into
// pieces of BF16, and the product of such.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./pieces -dir ..
package main

import (
	"stheno/internal/kernel/gen/amx"
	"stheno/internal/kernel/gen/files"
	"stheno/internal/kernel/gen/isa"
)

func main() { files.Main("pieces", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	asm, stubs, err := isa.Emit(isa.AVX512, "kernel", "gen/pieces", "amd64,!purego", []isa.Fn{
		lines("splitLines", "cuts into three pieces", amx.Pieces), columns("splitPairs", "cuts into three pieces", amx.Pieces),
		lines("roundLines", "rounds to one piece", 1), columns("roundPairs", "rounds to one piece", 1), turnTiles, pieceTile, settle,
	})
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"pieces_avx512_amd64.s": asm, "pieces_avx512_amd64.go": stubs}, nil
}
