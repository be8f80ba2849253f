package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"
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
	products := newFile()
	products.tiles()
	products.gemv()
	products.pack()
	products.peak()
	vectors := newFile()
	for _, f := range kernels() {
		vectors.kernel(f)
	}
	for name, f := range map[string]*file{"gemm_neon_arm64": products, "vec_neon_arm64": vectors} {
		stubs, err := f.stubFile()
		if err != nil {
			return nil, err
		}
		files[name+".go"], files[name+".s"] = stubs, f.asmFile()
	}
	var err error
	files["vec_simd_arm64.go"], err = dispatch()
	return files, err
}

// kernels lists the functions on vectors.
func kernels() []kernel {
	var all []kernel
	for _, group := range [][]kernel{elementwise, reductions, softmaxes, activations, norms, optimizers, rotations, random} {
		all = append(all, group...)
	}
	return all
}
