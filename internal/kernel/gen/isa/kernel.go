package isa

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// K builds one kernel for one Arch.
type K struct {
	*build.Context
	Arch Arch

	name   string
	labels int
	budget int               // constants that may still be kept in registers
	pinned map[uint32]V      // those that are
	consts map[uint32]string // names of the constants in memory, shared by all kernels of a file
}

// V is a vector value: a register, or a constant that becomes an operand in memory where the instruction allows it.
type V struct {
	r    reg.VecVirtual
	bits uint32
}

// readOnly marks constant data.
const readOnly = attr.RODATA | attr.NOPTR

func (v V) isConst() bool { return v.r == nil }

// X returns the low 128 bits of v.
func (v V) X() V { return V{r: v.r.AsX().(reg.VecVirtual)} }

// C is the vector whose lanes are all x.
func C(x float64) V { return Bits(math.Float32bits(float32(x))) }

// Bits is the vector whose lanes all hold the given bits.
func Bits(b uint32) V { return V{bits: b} }

func (k *K) vec(s reg.Spec) V { return V{r: k.Vec(s)} }

// New returns a vector register with no value.
func (k *K) New() V { return k.vec(k.Arch.spec()) }

func specOf(v V) reg.Spec {
	switch v.r.Size() {
	case 16:
		return reg.S128
	case 32:
		return reg.S256
	}
	return reg.S512
}

func (k *K) like(v V) V {
	if v.isConst() {
		return k.New()
	}
	return k.vec(specOf(v))
}

// Zero returns a new register holding zeros.
func (k *K) Zero() V { return k.zero(k.Arch.spec()) }

func (k *K) zero(s reg.Spec) V {
	v := k.vec(s)
	if k.Arch.EVEX {
		k.VPXORD(v.r, v.r, v.r)
	} else {
		k.VXORPS(v.r, v.r, v.r)
	}
	return v
}

// Pin keeps constants in registers for the rest of the kernel, the first ones first, as far as registers go.
func (k *K) Pin(cs ...V) {
	for _, c := range cs {
		if _, ok := k.pinned[c.bits]; ok {
			continue
		}
		if k.budget <= 0 {
			return
		}
		k.budget--
		k.pinned[c.bits] = k.broadcastConst(c, k.Arch.spec())
	}
}

func (k *K) broadcastConst(c V, s reg.Spec) V {
	if c.bits == 0 {
		return k.zero(s)
	}
	v := k.vec(s)
	m := k.constant(c.bits)
	k.VBROADCASTSS(m, v.r)
	return v
}

// constant returns the memory that holds bits, replicated to the vector width where the Arch needs it.
func (k *K) constant(bits uint32) operand.Mem {
	name, ok := k.consts[bits]
	if ok {
		return operand.NewDataAddr(operand.Symbol{Name: name, Static: true}, 0)
	}
	name = fmt.Sprintf("c%s%08x", k.Arch.Name, bits)
	k.consts[bits] = name
	m := k.StaticGlobal(name)
	k.DataAttributes(readOnly)
	n := 8
	if k.Arch.EVEX {
		n = 1
	}
	for range n {
		k.AppendDatum(operand.U32(bits))
	}
	return m
}

// Reg returns v in a register of the kernel's width.
func (k *K) Reg(v V) V { return k.inReg(v, k.Arch.spec()) }

func (k *K) inReg(v V, s reg.Spec) V {
	if !v.isConst() {
		return v
	}
	if p, ok := k.pinned[v.bits]; ok {
		return resize(p, s)
	}
	return k.broadcastConst(v, s)
}

func resize(v V, s reg.Spec) V {
	switch s {
	case reg.S128:
		return V{r: v.r.AsX().(reg.VecVirtual)}
	case reg.S256:
		return V{r: v.r.AsY().(reg.VecVirtual)}
	}
	return V{r: v.r.AsZ().(reg.VecVirtual)}
}

// Mut returns a fresh register with the value of v, for the methods that update in place.
func (k *K) Mut(v V) V {
	if v.isConst() {
		if p, ok := k.pinned[v.bits]; ok {
			v = p
		} else {
			return k.broadcastConst(v, k.Arch.spec())
		}
	}
	d := k.like(v)
	k.VMOVAPS(v.r, d.r)
	return d
}

func (k *K) label(s string) string {
	k.labels++
	return fmt.Sprintf("%s%d", s, k.labels)
}
