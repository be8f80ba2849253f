//go:build purego || !amd64

package kernel

import "unsafe"

func shortActivations(Coding) bool { return false }

func roundRowSIMD(dst unsafe.Pointer, short bool, x []float32, inv float32, sums []int32) {
	panic(unreached)
}

func (t *intTile[T]) computeSIMD() { panic(unreached) }
