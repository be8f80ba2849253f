// Command quant generates the assembly of package kernel for quantized matrices: half-precision conversion, panels of codes
// turned into float32, vectors times panels, and integer products.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./quant -dir ..
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

func main() {
	dir := flag.String("dir", "..", "directory of package kernel")
	flag.Parse()
	files, err := generate()
	if err != nil {
		log.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(*dir, name), text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	files := make(map[string][]byte)
	for _, set := range []struct {
		name string
		isa  isa
	}{{"quant_avx2_amd64", avx2}, {"quant_avx512_amd64", avx512}} {
		e := newEmitter(set.isa)
		e.halves()
		e.panels()
		e.rows()
		e.vectors()
		e.integers()
		asm, stubs, err := e.print()
		if err != nil {
			return nil, fmt.Errorf("quant: %s: %w", set.name, err)
		}
		files[set.name+".s"] = asm
		files[set.name+".go"] = stubs
	}
	return files, nil
}

// print compiles what was emitted to assembly text and to the Go file that declares its functions.
func (e *emitter) print() (asm, stubs []byte, err error) {
	file, err := e.Result()
	if err != nil {
		var all bytes.Buffer
		build.LogError(log.New(&all, "", 0), err, 0)
		return nil, nil, fmt.Errorf("%s", all.Bytes())
	}
	if err := pass.Compile.Execute(file); err != nil {
		return nil, nil, err
	}
	cfg := printer.Config{Argv: []string{"go", "run", "./quant"}, Pkg: "kernel"}
	if asm, err = printer.NewGoAsm(cfg).Print(file); err != nil {
		return nil, nil, err
	}
	stubs, err = printer.NewStubs(cfg).Print(file)
	return asm, stubs, err
}
