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

// compute sets y, of 16·panels elements, to x times the panels.
func (v *vectorProduct) compute(x, y []float32) {
	width := v.q.panelLen()
	for j := 0; j < v.panels; {
		panels := 1
		if active == AVX512 && v.panels-j >= 4 {
			panels = 4
		}
		v.call(x, y[j*PanelCols:], v.at+j*width, width, j, panels)
		j += panels
	}
}

// call is one call of assembly, for panels from element at of the codes on.
//
//go:noinline
func (v *vectorProduct) call(x, y []float32, at, width, j, panels int) {
	q := v.q
	px, py, codes := unsafe.SliceData(x), unsafe.SliceData(y), q.codeAt(at)
	steps := tasks(q.K, q.Coding.StepRows())
	if !q.Coding.Integer() {
		h := (*uint16)(codes)
		switch {
		case active == AVX512 && panels == 4 && q.Coding == Float16:
			vectorFloat16x4AVX512(px, h, 2*width, steps, py)
		case active == AVX512 && panels == 4:
			vectorBFloat16x4AVX512(px, h, 2*width, steps, py)
		case active == AVX512 && q.Coding == Float16:
			vectorFloat16x1AVX512(px, h, 2*width, steps, py)
		case active == AVX512:
			vectorBFloat16x1AVX512(px, h, 2*width, steps, py)
		case q.Coding == Float16:
			vectorFloat16x1AVX2(px, h, 2*width, steps, py)
		default:
			vectorBFloat16x1AVX2(px, h, 2*width, steps, py)
		}
		return
	}
	c, s, z := (*uint8)(codes), &v.s[j*PanelCols], &v.z[j*PanelCols]
	per := tasks(q.groupRows(), q.Coding.StepRows())
	switch {
	case active == AVX512 && panels == 4 && q.Coding == Code8:
		vectorCodes8x4AVX512(px, c, width, steps, per, s, 4*v.lds, z, v.ldz, py)
	case active == AVX512 && panels == 4:
		vectorCodes4x4AVX512(px, c, width, steps, per, s, 4*v.lds, z, v.ldz, py)
	case active == AVX512 && q.Coding == Code8:
		vectorCodes8x1AVX512(px, c, width, steps, per, s, 4*v.lds, z, v.ldz, py)
	case active == AVX512:
		vectorCodes4x1AVX512(px, c, width, steps, per, s, 4*v.lds, z, v.ldz, py)
	case q.Coding == Code8:
		vectorCodes8x1AVX2(px, c, width, steps, per, s, 4*v.lds, z, v.ldz, py)
	default:
		vectorCodes4x1AVX2(px, c, width, steps, per, s, 4*v.lds, z, v.ldz, py)
	}
}
