// Command gemm generates the matrix-product assembly of package kernel: register tiles, matrix-vector products, packing,
// transposition and the loop that measures peak.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./gemm -dir ..
package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/printer"

	"stheno/internal/kernel/gen/files"
)

func main() { files.Main("gemm", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	texts := make(map[string][]byte)
	for _, set := range []struct {
		name string
		isa  isa
	}{{"gemm_avx2_amd64", avx2}, {"gemm_avx512_amd64", avx512}} {
		e := newEmitter(set.isa)
		e.tiles()
		e.gemv()
		e.pack()
		e.peak()
		asm, stubs, err := files.Assembly(e.Context, printer.Config{Argv: []string{"go", "run", "./gemm"}, Pkg: "kernel"}, nil)
		if err != nil {
			return nil, fmt.Errorf("gemm: %s: %w", set.name, err)
		}
		texts[set.name+".s"] = asm
		texts[set.name+".go"] = stubs
	}
	return texts, nil
}
