package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"stheno/internal/kernel/gen/amx"
)

// z are the vector registers, chosen by hand.
var z = []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11,
	reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24,
	reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31}

const (
	line      = 64 // bytes of a vector and of a row of a tile
	tileBytes = amx.TileBytes
	pieces    = amx.Pieces
)

type emitter struct {
	*build.Context
	labels int
	tables map[string]operand.Mem
}

func newEmitter() *emitter {
	e := &emitter{Context: build.NewContext(), tables: map[string]operand.Mem{}}
	e.ConstraintExpr("amd64,!purego")
	return e
}

// function opens a leaf function without a frame.
func (e *emitter) function(name, signature string, doc ...string) {
	e.Function(name)
	e.Attributes(attr.NOSPLIT)
	e.Pragma("noescape")
	e.SignatureExpr(signature)
	doc[0] = name + " " + doc[0]
	e.Doc(doc...)
}

// slot is an argument where the caller left it. A function may change its slots: they are its variables.
func (e *emitter) slot(name string) operand.Mem {
	c, err := e.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return c.Addr
}

// arg loads an argument.
func (e *emitter) arg(name string) reg.GPVirtual {
	return e.Load(e.Param(name), e.GP64()).(reg.GPVirtual)
}

func (e *emitter) label(what string) string {
	e.labels++
	return fmt.Sprintf("%s%d", what, e.labels)
}

func at(base reg.Register, disp int) operand.Mem { return operand.Mem{Base: base, Disp: disp} }

func (e *emitter) add(n int, p reg.Register) { e.ADDQ(operand.I32(int32(n)), p) }

// word returns read-only memory that holds w, emitted once.
func (e *emitter) word(w uint32) operand.Mem {
	name := fmt.Sprintf("attnBack%08x", w)
	if m, ok := e.tables[name]; ok {
		return m
	}
	m := e.StaticGlobal(name)
	e.DataAttributes(attr.RODATA | attr.NOPTR)
	e.AppendDatum(operand.U32(w))
	e.tables[name] = m
	return m
}

// splat sets every lane of dst to w.
func (e *emitter) splat(w uint32, dst reg.Register) { e.VBROADCASTSS(e.word(w), dst) }

// times repeats body n times, n ≥ 0, which it counts down.
func (e *emitter) times(n reg.Register, body func()) {
	loop, done := e.label("loop"), e.label("done")
	e.TESTQ(n, n)
	e.JLE(operand.LabelRef(done))
	e.Label(loop)
	body()
	e.DECQ(n)
	e.JNZ(operand.LabelRef(loop))
	e.Label(done)
}
