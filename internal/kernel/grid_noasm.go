//go:build purego || !amd64

package kernel

func rowRangeSIMD([]float32) (lo, hi float32, ok bool)                 { return 0, 0, false }
func columnRangeSIMD(_, _, _ []float32, _, _, _ int) bool              { return false }
func roundColumnsSIMD(_, _ []float32, _, _, _ int, _ Grids) bool       { return false }
func columnErrorsSIMD([]float64, []float32, int, int, int, Grids) bool { return false }
func passColumnsSIMD(_, _, _ []float32, _, _, _ int, _ Grids) bool     { return false }
func learnColumnsSIMD([]float32, []float64, []float32, []float32, int, int, int, Grids) bool {
	return false
}
func roundToScaleSIMD(_, _ []float32, _, _, _ float32) bool { return false }
