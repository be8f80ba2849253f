//go:build !purego

package kernel

// prefetch touches bytes bytes of each of rows rows, which are stride bytes apart. All arguments are positive. x is a number, as nothing
// is read.
func prefetch(x uintptr, stride, rows, bytes int)
