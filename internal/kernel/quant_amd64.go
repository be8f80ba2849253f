//go:build !purego

package kernel

import "unsafe"

// dequantizeMaxSteps bounds the steps that one call of assembly widens.
const dequantizeMaxSteps = 1 << 11

// dequantizeSIMD widens steps of a panel from element at of the codes on, all in one group. ldd is in bytes.
func dequantizeSIMD(q *Quantized, dst *float32, ldd, at, steps int, params *panelParams) {
	for {
		n := min(steps, dequantizeMaxSteps)
		dequantizeCall(q.Coding, dst, ldd, q.codeAt(at), n, &params.scales[0], &params.zeros[0])
		if steps -= n; steps == 0 {
			return
		}
		at += n * q.Coding.stepLen()
		dst = (*float32)(unsafe.Add(unsafe.Pointer(dst), n*q.Coding.StepRows()*ldd))
	}
}

//go:noinline
func dequantizeCall(c Coding, dst *float32, ldd int, codes unsafe.Pointer, steps int, s *float32, z *uint8) {
	if active == AVX512 {
		switch c {
		case Float16:
			panelFloat16AVX512(dst, ldd, (*uint16)(codes), steps)
		case BFloat16:
			panelBFloat16AVX512(dst, ldd, (*uint16)(codes), steps)
		case Code8:
			panelCodes8AVX512(dst, ldd, (*uint8)(codes), steps, s, z)
		default:
			panelCodes4AVX512(dst, ldd, (*uint8)(codes), steps, s, z)
		}
		return
	}
	switch c {
	case Float16:
		panelFloat16AVX2(dst, ldd, (*uint16)(codes), steps)
	case BFloat16:
		panelBFloat16AVX2(dst, ldd, (*uint16)(codes), steps)
	case Code8:
		panelCodes8AVX2(dst, ldd, (*uint8)(codes), steps, s, z)
	default:
		panelCodes4AVX2(dst, ldd, (*uint8)(codes), steps, s, z)
	}
}
