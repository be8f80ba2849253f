// Package memory makes large slices that are quick to stream through.
package memory

import "unsafe"

// hugePage is the size of a huge page of memory.
const hugePage = 2 << 20

// hugeMin is the size from which a slice is worth a request. Many small ones that are allocated in a row, as the weights of a model
// are, share huge pages.
const hugeMin = 64 << 10

// Make returns a slice of n zeros. The operating system is asked to back one of 64 KiB or more with huge pages, which on Linux more
// than doubles the speed of reading what does not fit into the caches. T holds no pointers.
func Make[T uint8 | uint16 | int64 | float32 | float64](n int) []T {
	x := make([]T, n)
	if size := uintptr(n) * unsafe.Sizeof(*new(T)); size >= hugeMin {
		advise(unsafe.Pointer(unsafe.SliceData(x)), size)
	}
	return x
}
