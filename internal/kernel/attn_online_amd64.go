//go:build !purego

package kernel

import "unsafe"

// onlineCall has a frame, which is where the garbage collector can stop a loop of such calls.
//
//go:noinline
func onlineCall(a *attnForwardArgs) { attnForwardAVX512((*byte)(unsafe.Pointer(a))) }

// onlineCodesCall is for codes.
//
//go:noinline
func onlineCodesCall(a *onlineCodesArgs) { attnCodesAVX512((*byte)(unsafe.Pointer(a))) }
