//go:build purego || !amd64

package kernel

func dequantizeSIMD(q *Quantized, dst *float32, ldd, at, steps int, params *panelParams) {
	panic(unreached)
}
