//go:build !purego

package kernel

// supportedSIMD names Advanced SIMD, which every arm64 processor that Go runs on has.
func supportedSIMD() []ISA { return []ISA{NEON} }
