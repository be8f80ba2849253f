// Command kv generates the assembly of package kernel for compressed caches: codes of 8 or 4 bits with a scale and a minimum for each row
// are written, read and multiplied with vectors, FP16 numbers are multiplied, and Walsh–Hadamard transforms are taken.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./kv -dir ..
package main

import (
	"strings"

	"stheno/internal/kernel/gen/files"
	"stheno/internal/kernel/gen/isa"
)

func main() { files.Main("kv", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	texts := make(map[string][]byte)
	fns := []isa.Fn{codes(8), codes(4), halves(), encodeColumns(8), encodeColumns(4), decodeColumns(8), decodeColumns(4), encodeRow(), decodeRow()}
	for size := 16; size <= 256; size *= 2 {
		fns = append(fns, hadamard(size))
	}
	for _, a := range []isa.Arch{isa.AVX2, isa.AVX512} {
		asm, stubs, err := isa.Emit(a, "kernel", "gen/kv", "amd64,!purego", fns)
		if err != nil {
			return nil, err
		}
		base := "kv_" + strings.ToLower(a.Name) + "_amd64"
		texts[base+".s"], texts[base+".go"] = asm, stubs
	}
	return texts, nil
}
