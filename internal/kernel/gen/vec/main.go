// Command vec writes the row and elementwise kernels of package kernel: assembly for AVX2 and AVX-512, its declarations,
// and the functions that choose between them. Run it as "go run ./vec" in the module's folder; -dir names another place.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	out := flag.String("dir", "..", "folder of package kernel")
	flag.Parse()
	files, err := generate()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vec:", err)
		os.Exit(1)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(*out, name), data, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "vec:", err)
			os.Exit(1)
		}
	}
}

// kernels lists everything that is generated.
func kernels() []kernel {
	return slices.Concat(elementwise, reductions, activations, norms, softmaxes, optimizers, rotations, random)
}
