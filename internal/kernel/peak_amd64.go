//go:build !purego

package kernel

// peakSIMD is the loop in assembly.
//
//go:noinline
func peakSIMD(rounds int) (flops float64) {
	if active == AVX512 {
		peakFMAAVX512(rounds)
		return float64(rounds) * 24 * 16 * 2
	}
	peakFMAAVX2(rounds)
	return float64(rounds) * 12 * 8 * 2
}
