// Command attn writes the fused attention kernels of package kernel, for AVX-512 and for tiles of AMX.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./attn -dir ..
package main

import (
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/printer"

	"stheno/internal/kernel/gen/files"
)

func main() { files.Main("attn", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	e, t := newEmitter(), newTiles()
	for _, kind := range []int{floats, ofCodes, ofPairs} {
		e.forward(kind)
	}
	e.pairRows()
	t.forward("AMX", 3, false, false)
	t.forward("HalfAMX", 3, false, true)
	t.forward("CodesAMX", 3, true, false)
	t.forward("RoundedAMX", 1, false, false)
	t.halves()
	texts := map[string][]byte{}
	for name, ctx := range map[string]*build.Context{"attn_avx512_amd64": e.Context, "attn_tiles_amd64": t.Context} {
		asm, stubs, err := files.Assembly(ctx, printer.Config{Argv: []string{"go", "run", "./attn"}, Pkg: "kernel"}, nil)
		if err != nil {
			return nil, err
		}
		texts[name+".s"], texts[name+".go"] = asm, stubs
	}
	return texts, nil
}
