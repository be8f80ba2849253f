// Command bind writes the bindings of a notebook's packages: for each a Go file that tells gomacro, the interpreter in the
// kernel, its names, values and types, so that a cell may import it without compiling anything.
//
//	go run ./bind -dir bindings
//
// Generic functions and types are left out: gomacro cannot call them.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"
)

// packages are those that cells may import, besides Go's own, which gomacro brings.
var packages = []string{
	"gonum.org/v1/plot",
	"gonum.org/v1/plot/plotter",
	"gonum.org/v1/plot/vg",
	"gorgonia.org/gorgonia",
	"gorgonia.org/tensor",
	"stheno",
	"stheno/examples/notebooks/show",
	"stheno/ops",
	"stheno/ops/flashattn",
	"stheno/ops/grounding",
	"stheno/ops/kvcompress",
	"stheno/ops/quantize",
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bind: ")
	dir := flag.String("dir", "bindings", "folder to write to; other generated files in it are removed")
	flag.Parse()
	files, err := generate(packages)
	if err == nil {
		err = write(*dir, files)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// write makes files the only generated ones in dir.
func write(dir string, files map[string][]byte) error {
	old, err := filepath.Glob(filepath.Join(dir, prefix+"*.go"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if files[filepath.Base(path)] == nil {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
