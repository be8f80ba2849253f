// Package isa is a small language for vector kernels over float32, on top of avo.
//
// A kernel is described once, as Go code that calls the methods of K on values of type V, and is emitted for every Arch:
// the vector width, masked tails, constants in memory (replicated for AVX2, broadcast by the instruction on AVX-512) and
// 2^x differ below this package only. Methods that return a V leave their operands alone; the few that end in To or
// are named for what they update (AddTo, FMATo, Horner) change their first operand in place.
package isa
