package isa

import "github.com/mmcloughlin/avo/reg"

// R is the register of v, for instructions that have no method here.
func (v V) R() reg.VecVirtual { return v.r }

// Half is the register of the lower half of v.
func (v V) Half() reg.Register {
	if specOf(v) == reg.S512 {
		return v.r.AsY()
	}
	return v.r.AsX()
}

// NewLabel returns a name that is unique in the kernel.
func (k *K) NewLabel(s string) string { return k.label(s) }
