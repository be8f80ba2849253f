//go:build !purego

package kernel

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// havePairs says that the processor has VDPBF16PS, and pairsFast that it multiplies more numbers with it than with VFMADD231PS.
var (
	havePairs = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BF16
	pairsFast = havePairs && cpuVendor() == "AuthenticAMD"
)

// cpuVendor is the name that CPUID gives.
func cpuVendor() string {
	var name [12]byte
	cpuVendorBytes(&name)
	return string(name[:])
}

//go:noescape
func cpuVendorBytes(name *[12]byte)

// onlineCall has a frame, which is where the garbage collector can stop a loop of such calls.
//
//go:noinline
func onlineCall(a *attnForwardArgs) { attnForwardAVX512((*byte)(unsafe.Pointer(a))) }

// onlineCodesCall is for codes.
//
//go:noinline
func onlineCodesCall(a *onlineCodesArgs) { attnCodesAVX512((*byte)(unsafe.Pointer(a))) }

//go:noinline
func onlinePairsCall(a *onlinePairsArgs) { attnPairsAVX512((*byte)(unsafe.Pointer(a))) }

//go:noinline
func pairRowsSIMD(dst []uint32, a, b []float32) {
	pairRowsAVX512(unsafe.SliceData(dst), unsafe.SliceData(a), unsafe.SliceData(b), len(dst))
}
