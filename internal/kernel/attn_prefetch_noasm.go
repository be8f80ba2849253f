//go:build purego || !amd64

package kernel

import "unsafe"

// prefetch does nothing here.
func prefetch(unsafe.Pointer, int, int, int) {}
