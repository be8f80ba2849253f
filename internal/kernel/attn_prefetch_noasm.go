//go:build purego || !amd64

package kernel

// prefetch does nothing here.
func prefetch(uintptr, int, int, int) {}
