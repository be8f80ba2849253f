// Command attnback writes the assembly of package kernel for products of float32 in the tiles of AMX: numbers are cut into three of
// BF16, and six products of pieces add up to theirs.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./attnback -dir ..
package main

import (
	"github.com/mmcloughlin/avo/printer"

	"stheno/internal/kernel/gen/files"
)

func main() { files.Main("attnback", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	e := newEmitter()
	e.product()
	asm, stubs, err := files.Assembly(e.Context, printer.Config{Argv: []string{"go", "run", "./attnback"}, Pkg: "kernel"}, nil)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"attn_back_avx512_amd64.s": asm, "attn_back_avx512_amd64.go": stubs}, nil
}
