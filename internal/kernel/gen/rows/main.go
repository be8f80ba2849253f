// Command rows generates the assembly of package kernel for the product of many rows, each read once, with a few columns that are
// cut into pieces already: the cutting of rows, which finds their lengths on the way, and the product.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./rows -dir ..
package main

import (
	"stheno/internal/kernel/gen/files"
	"stheno/internal/kernel/gen/isa"
)

func main() { files.Main("rows", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	asm, stubs, err := isa.Emit(isa.AVX512, "kernel", "gen/rows", "amd64,!purego", []isa.Fn{cutRows, tileRows})
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"rows_avx512_amd64.s": asm, "rows_avx512_amd64.go": stubs}, nil
}
