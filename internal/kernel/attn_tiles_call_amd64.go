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
