//go:build purego || !amd64

package kernel

func kvCodesSIMD(*KVCodes, []float32, []float32, []float32) bool { return false }
func kvHalvesSIMD([]float32, []float32, []uint16, int, int) bool { return false }
