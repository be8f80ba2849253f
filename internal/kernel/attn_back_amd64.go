//go:build !purego

package kernel

import "unsafe"

// pieceRun is what the assembly takes; gen/attnback knows the order. Counts and the place of the runs are its variables.
type pieceRun struct {
	first     unsafe.Pointer
	firstLeft int
	then      unsafe.Pointer
	thenLeft  int
	runs      unsafe.Pointer
	runsLeft  int
	units     int
}

// runUnits is the number of units, of two rows and 32 columns, that a WeighRun has.
const runUnits = 16

//go:noinline
func weighSIMD(first []productBlock, runs []WeighRun, then []productBlock) {
	x := pieceRun{first: unsafe.Pointer(unsafe.SliceData(first)), firstLeft: len(first), then: unsafe.Pointer(unsafe.SliceData(then)), thenLeft: len(then),
		runs: unsafe.Pointer(unsafe.SliceData(runs)), runsLeft: len(runs), units: 2}
	steps := 0
	for i := range first {
		steps += first[i].steps
	}
	if runUnits*len(runs) > 2*steps {
		x.units = 4
	}
	attnBackAVX512((*byte)(unsafe.Pointer(&x)))
}
