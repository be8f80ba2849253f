//go:build !purego

package kernel

import "unsafe"

// tilesCall has a frame, which is where the garbage collector can stop a loop of such calls.
//
//go:noinline
func tilesCall(a *attnTilesArgs) { attnTilesAMX((*byte)(unsafe.Pointer(a))) }

// codeTilesCall is for codes.
//
//go:noinline
func codeTilesCall(a *codeTilesArgs) { attnTilesCodesAMX((*byte)(unsafe.Pointer(a))) }

//go:noinline
func roundedTilesCall(a *attnTilesArgs) { attnTilesRoundedAMX((*byte)(unsafe.Pointer(a))) }

//go:noinline
func halfTilesCall(a *attnTilesArgs) { attnTilesHalfAMX((*byte)(unsafe.Pointer(a))) }

func halfPiecesSIMD(x []uint16, queries bool) {
	n := 0
	if queries {
		n = 1
	}
	halfPieces(unsafe.SliceData(x), n)
}
