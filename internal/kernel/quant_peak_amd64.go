//go:build !purego

package kernel

// bytesVectorized reports whether bytes are multiplied by VPDPBUSD.
func bytesVectorized() bool { return active == AVX512 && haveVNNI }

//go:noinline
func peakBytesSIMD(rounds int) (ops float64) {
	peakBytesAVX512(rounds)
	return float64(rounds) * 24 * 64 * 2
}

//go:noinline
func readMemorySIMD(x *uint8, lines int) {
	if active == AVX512 {
		readMemoryAVX512(x, lines)
		return
	}
	readMemoryAVX2(x, lines)
}
