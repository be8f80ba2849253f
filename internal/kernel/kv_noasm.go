//go:build purego || !amd64

package kernel

func kvCodesSIMD(*KVCodes, []float32, []float32, []float32) bool { return false }
func kvHalvesSIMD([]float32, []float32, []uint16, int, int) bool { return false }

func kvQuantizeColsSIMD(*KVCodes, []float32, int, int, int, int, int) bool       { return false }
func kvDequantizeColsSIMD(*KVCodes, []float32, int, int, int, int, int) bool     { return false }
func kvQuantizeRowSIMD([]uint8, []float32, kvEncoder, uint32, int) bool          { return false }
func kvDequantizeRowSIMD([]float32, []uint8, float32, float32, uint32, int) bool { return false }
func hadamardSIMD([]float32, int, float32) bool                                  { return false }
