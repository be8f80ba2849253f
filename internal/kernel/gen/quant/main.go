// Command quant generates the assembly of package kernel for quantized matrices: half-precision conversion, panels of codes
// turned into float32, vectors times panels, and integer products.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./quant -dir ..
package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/printer"

	"stheno/internal/kernel/gen/files"
)

func main() { files.Main("quant", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	texts := make(map[string][]byte)
	for _, set := range []struct {
		name string
		isa  isa
	}{{"quant_avx2_amd64", avx2}, {"quant_avx512_amd64", avx512}} {
		e := newEmitter(set.isa)
		e.halves()
		e.panels()
		e.rows()
		e.vectors()
		e.fixed()
		e.integers()
		e.limbs()
		e.matrices()
		e.peaks()
		asm, stubs, err := files.Assembly(e.Context, printer.Config{Argv: []string{"go", "run", "./quant"}, Pkg: "kernel"}, nil)
		if err != nil {
			return nil, fmt.Errorf("quant: %s: %w", set.name, err)
		}
		texts[set.name+".s"] = asm
		texts[set.name+".go"] = stubs
	}
	return texts, nil
}
