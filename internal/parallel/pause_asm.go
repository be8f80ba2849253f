//go:build (amd64 || arm64) && !purego

package parallel

// pause executes n times the instruction that tells the processor of a spinning wait; n must be at least 1.
//
//go:noescape
func pause(n uint32)
