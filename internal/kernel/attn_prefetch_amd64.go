//go:build !purego

package kernel

import "unsafe"

// prefetch touches bytes bytes of each of rows rows, which are stride bytes apart. All arguments are positive.
//
//go:noescape
func prefetch(x unsafe.Pointer, stride, rows, bytes int)
