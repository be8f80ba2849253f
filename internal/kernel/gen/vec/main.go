// Command vec writes the row and elementwise kernels of package kernel: assembly for AVX2 and AVX-512, its declarations,
// and the functions that choose between them. Run it as "go run ./vec" in the module's folder; -dir names another place.
package main

import (
	"slices"

	"stheno/internal/kernel/gen/files"
)

func main() { files.Main("vec", generate) }

// kernels lists everything that is generated.
func kernels() []kernel {
	return slices.Concat(elementwise, reductions, activations, norms, softmaxes, optimizers, rotations, random)
}
