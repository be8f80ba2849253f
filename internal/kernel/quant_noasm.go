//go:build purego || !amd64

package kernel

func dequantizeSIMD(q *Quantized, dst *float32, ldd, at, steps int, params *panelParams) {
	panic(unreached)
}

func (v *vectorProduct) compute(x, y []float32) { panic(unreached) }
