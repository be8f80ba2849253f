//go:build !cuda

package card

import "errors"

// The types of package cudamodules, which this build does without.
type (
	Number interface {
		~int8 | ~uint8 | ~int16 | ~uint16 | ~int32 | ~uint32 | ~int64 | ~uint64 | ~int | ~float32 | ~float64
	}
	Ptr      uintptr
	Geometry struct {
		Grid, Block [3]int
		Shared      int
	}
)

var errBuild = errors.New("card: got a build without the tag cuda, want one with it")

// Alloc fails.
func Alloc[T Number](int) ([]T, error) { return nil, errBuild }

// Free does nothing.
func Free[T Number]([]T) error { return nil }

// OutOfMemory is false.
func OutOfMemory(error) bool { return false }

// None is false.
func None(error) bool { return false }

// Holds is false.
func Holds(uintptr) bool { return false }

// At is 0.
func At[T Number]([]T) Ptr { return 0 }

// Launch fails.
func Launch(string, string, Geometry, ...any) error { return errBuild }

// Synchronize does nothing.
func Synchronize() error { return nil }
