package isa

import "github.com/mmcloughlin/avo/reg"

// Arch is an instruction set that kernels are emitted for.
type Arch struct {
	Name  string // suffix of the function names, as in expAVX2
	Lanes int    // float32 lanes of a vector
	EVEX  bool   // opmasks, embedded broadcasts and 32 registers
}

// The instruction sets.
var (
	AVX2   = Arch{Name: "AVX2", Lanes: 8}
	AVX512 = Arch{Name: "AVX512", Lanes: 16, EVEX: true}
)

// Bytes is the size of a vector.
func (a Arch) Bytes() int { return 4 * a.Lanes }

func (a Arch) spec() reg.Spec {
	if a.EVEX {
		return reg.S512
	}
	return reg.S256
}
