// Command attn writes the fused attention kernels of package kernel, for AVX-512.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./attn -dir ..
package main

import (
	"github.com/mmcloughlin/avo/printer"

	"stheno/internal/kernel/gen/files"
)

func main() { files.Main("attn", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	e := newEmitter()
	e.forward(false)
	e.forward(true)
	asm, stubs, err := files.Assembly(e.Context, printer.Config{Argv: []string{"go", "run", "./attn"}, Pkg: "kernel"}, nil)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"attn_avx512_amd64.s": asm, "attn_avx512_amd64.go": stubs}, nil
}
