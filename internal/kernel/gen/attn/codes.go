package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// multiply is a step of a product of float32.
func (f *forwardFunc) multiply(b, a, sum reg.VecPhysical) { f.VFMADD231PS(b, a, sum) }

// multiplyCodes is a step of a product of codes: four for each lane. Those of keys are unsigned, 128 higher than they are.
func (f *forwardFunc) multiplyCodes(b, a, sum reg.VecPhysical) { f.VPDPBUSD(a, b, sum) }

// beginCodes lets the sums begin at what takes back the 128 of the keys' codes.
func (f *forwardFunc) beginCodes(nv int) {
	sum := f.get(fSum)
	for i := range tileRows {
		for j := range nv {
			f.VPBROADCASTD(operand.Mem{Base: sum, Index: f.off, Scale: 1, Disp: 4 * i}, z[4*i+j])
		}
	}
}

// endCodes scales the sums: times the row's scale, then the key's.
func (f *forwardFunc) endCodes(nv int) {
	scale, keys := f.get(fScale), f.get(fKeyScale)
	for j := range nv {
		f.VMOVUPS(at(keys, line*j), z[24+j])
	}
	for i := range tileRows {
		x := z[28+i%4]
		f.VBROADCASTSS(operand.Mem{Base: scale, Index: f.off, Scale: 1, Disp: 4 * i}, x)
		for j := range nv {
			f.VCVTDQ2PS(z[4*i+j], z[4*i+j])
		}
		for j := range nv {
			f.VMULPS(x, z[4*i+j], z[4*i+j])
		}
		for j := range nv {
			f.VMULPS(z[24+j], z[4*i+j], z[4*i+j])
		}
	}
}
