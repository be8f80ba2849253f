//go:build purego || !amd64

package kernel

// Without assembly all elements are left to portable Go.

func toFloat16SIMD([]uint16, []float32) (n, over int) { return 0, 0 }
func fromFloat16SIMD([]float32, []uint16) int         { return 0 }
func toBFloat16SIMD([]uint16, []float32) int          { return 0 }
func fromBFloat16SIMD([]float32, []uint16) int        { return 0 }
