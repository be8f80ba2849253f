//go:build purego || !amd64

package kernel

func bytesVectorized() bool { return false }

func peakBytesSIMD(int) float64  { panic(unreached) }
func readMemorySIMD(*uint8, int) { panic(unreached) }
