//go:build !purego && !linux

package kernel

// allowMatrices is false: how other systems grant the registers of AMX has not been tried.
func allowMatrices() bool { return false }
