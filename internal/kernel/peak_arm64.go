//go:build !purego

package kernel

// peakSIMD is the loop in assembly.
//
//go:noinline
func peakSIMD(rounds int) (flops float64) {
	peakFMANEON(rounds)
	return float64(rounds) * 24 * 4 * 2
}
