// Command grid generates the assembly of package kernel that rounds numbers to the grids of codes, column by column: ranges, values,
// errors and gradients of a matrix whose columns each have a scale.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./grid -dir ..
package main

import (
	"strings"

	"stheno/internal/kernel/gen/files"
	"stheno/internal/kernel/gen/isa"
)

func main() { files.Main("grid", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	texts := make(map[string][]byte)
	fns := []isa.Fn{rowRange(), columnRange(), roundColumns(), columnErrors(), passColumns(), learnColumns(), roundRow()}
	for _, a := range []isa.Arch{isa.AVX2, isa.AVX512} {
		asm, stubs, err := isa.Emit(a, "kernel", "gen/grid", "amd64,!purego", fns)
		if err != nil {
			return nil, err
		}
		base := "grid_" + strings.ToLower(a.Name) + "_amd64"
		texts[base+".s"], texts[base+".go"] = asm, stubs
	}
	return texts, nil
}
