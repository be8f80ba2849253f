//go:build !purego

package kernel

import "golang.org/x/sys/cpu"

// bytesVectorized reports whether bytes are multiplied by VPDPBUSD.
func bytesVectorized() bool { return active == AVX512 && haveVNNI }

// haveBFloat16 says that the processor multiplies pairs of BF16 in one instruction.
var haveBFloat16 = cpu.X86.HasAVX512BF16

// bfloat16Vectorized reports whether pairs of BF16 are multiplied by VDPBF16PS.
func bfloat16Vectorized() bool { return active == AVX512 && haveBFloat16 }

//go:noinline
func peakBytesSIMD(rounds int) (ops float64) {
	peakBytesAVX512(rounds)
	return float64(rounds) * 24 * 64 * 2
}

//go:noinline
func peakBFloat16SIMD(rounds int) (ops float64) {
	peakBFloat16AVX512(rounds)
	return float64(rounds) * 24 * 32 * 2
}

//go:noinline
func readMemorySIMD(x *uint8, lines int) {
	if active == AVX512 {
		readMemoryAVX512(x, lines)
		return
	}
	readMemoryAVX2(x, lines)
}
