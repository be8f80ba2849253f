package main

import "stheno/internal/kernel/gen/files"

func main() { files.Main("neon", generate) }

// generate returns the text of every generated file by name.
func generate() (map[string][]byte, error) {
	texts := make(map[string][]byte)
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
		texts[name+".go"], texts[name+".s"] = stubs, f.asmFile()
	}
	var err error
	texts["vec_simd_arm64.go"], err = dispatch()
	return texts, err
}

// kernels lists the functions on vectors.
func kernels() []kernel {
	var all []kernel
	for _, group := range [][]kernel{elementwise, reductions, softmaxes, activations, norms, optimizers, rotations, random} {
		all = append(all, group...)
	}
	return all
}
