//go:build purego || !amd64

package kernel

func fixedVectorized[T Float](Coding) bool { return false }

func fixRowSIMD(c Coding, dst []int8, x, scales []float32, sums []int32, factor int32) bool {
	panic(unreached)
}

func (v *vectorProduct) computeFixed(r *fixedRow, y []float32) { panic(unreached) }
