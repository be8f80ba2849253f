package isa

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Double broadcasts x, a number of float32, as float64.
func (k *K) Double(x float64) V {
	v := k.New()
	k.VCVTPS2PD(k.Reg(C(x)).Half(), v.r)
	return v
}

// Upper is the upper half of v, in the lower half of a register of its own.
func (k *K) Upper(v V) reg.Register {
	upper := k.New()
	if k.Arch.EVEX {
		k.VEXTRACTF64X4(operand.Imm(1), v.r, upper.Half())
	} else {
		k.VEXTRACTF128(operand.Imm(1), v.r, upper.Half())
	}
	return upper.Half()
}
