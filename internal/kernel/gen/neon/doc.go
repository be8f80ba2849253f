// Command neon generates the arm64 assembly of package kernel: what the commands gemm and vec generate for amd64, with vectors
// of four float32. It writes text, for avo knows amd64 only.
//
// Run it from the module's root, the directory above this one:
//
//	go run ./neon -dir ..
//
// Instructions that Go's assembler lacks, most of floating-point vector arithmetic, are words with the mnemonic in the
// margin; a test hands the margins to llvm-mc where there is one.
package main
