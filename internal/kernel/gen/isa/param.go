package isa

import (
	"github.com/mmcloughlin/avo/gotypes"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Arg loads a pointer or integer parameter.
func (k *K) Arg(name string) reg.GPVirtual {
	r := k.GP64()
	k.Load(k.Param(name), r)
	return r
}

// Bytes loads an integer parameter that counts elements, times 4.
func (k *K) Bytes(name string) reg.GPVirtual {
	r := k.Arg(name)
	k.SHLQ(operand.Imm(2), r)
	return r
}

func (k *K) addr(c gotypes.Component) operand.Mem {
	b, err := c.Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// Scalar broadcasts a float32 (or 32-bit) parameter.
func (k *K) Scalar(name string) V {
	v := k.New()
	k.VBROADCASTSS(k.addr(k.Param(name)), v.r)
	return v
}

// At broadcasts element i of the float32 array at p.
func (k *K) At(p reg.Register, i int) V {
	v := k.New()
	k.VBROADCASTSS(operand.Mem{Base: p, Disp: 4 * i}, v.r)
	return v
}

// Result stores lane 0 of v as result i.
func (k *K) Result(i int, v V) {
	k.VMOVSS(v.X().r, k.addr(k.ReturnIndex(i)))
}

// Move advances p by the bytes in by.
func (k *K) Move(p, by reg.Register) { k.ADDQ(by, p) }

// Broadcast32 broadcasts the low 32 bits of a general register.
func (k *K) Broadcast32(r reg.GPVirtual) V {
	t := k.vec(reg.S128)
	if k.Arch.EVEX {
		d := k.New()
		k.VPBROADCASTD(r.As32(), d.r)
		return d
	}
	k.VMOVD(r.As32(), t.r)
	d := k.New()
	k.VPBROADCASTD(t.r, d.r)
	return d
}

// LoadPairs reads Lanes/2 elements at p and doubles each: p₀,p₀,p₁,p₁…
func (k *K) LoadPairs(p reg.Register) V {
	w, d := k.New(), k.New()
	k.VPMOVZXDQ(operand.Mem{Base: p}, w.r)
	k.VMOVSLDUP(w.r, d.r)
	return d
}

// Load4 and Load1 read four elements, or one with zeros above it, into 128 bits; Store4 and Store1 write them.
func (k *K) Load4(m operand.Mem) V {
	v := k.vec(reg.S128)
	k.VMOVUPS(m, v.r)
	return v
}

// Load1 reads one element.
func (k *K) Load1(m operand.Mem) V {
	v := k.vec(reg.S128)
	k.VMOVSS(m, v.r)
	return v
}

// Store4 writes the low four elements.
func (k *K) Store4(m operand.Mem, v V) { k.VMOVUPS(v.X().r, m) }

// Store1 writes the lowest element.
func (k *K) Store1(m operand.Mem, v V) { k.VMOVSS(v.X().r, m) }

// Put writes a whole vector.
func (k *K) Put(m operand.Mem, v V) { k.VMOVUPS(v.r, m) }

// Iota returns 0, 1, 2, … as float32 when float is set, as integers otherwise.
func (k *K) Iota(float bool) V {
	key, name := uint32(0xffdead02), "iotaInt"
	if float {
		key, name = 0xffdead03, "iotaFloat"
	}
	var table operand.Mem
	if _, ok := k.consts[key]; ok {
		table = operand.NewDataAddr(operand.Symbol{Name: name, Static: true}, 0)
	} else {
		k.consts[key] = name
		table = k.StaticGlobal(name)
		k.DataAttributes(readOnly)
		for i := range k.Arch.Lanes {
			if float {
				k.AppendDatum(operand.F32(float32(i)))
			} else {
				k.AppendDatum(operand.U32(i))
			}
		}
	}
	v := k.New()
	k.VMOVUPS(table, v.r)
	return v
}

// Get reads a whole vector.
func (k *K) Get(m operand.Mem) V {
	v := k.New()
	k.VMOVUPS(m, v.r)
	return v
}
