package isa

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/printer"

	"stheno/internal/kernel/gen/files"
)

// Fn describes one kernel for every Arch.
type Fn struct {
	Name   string // without the Arch, as in "exp"
	Params string // as in "dst, x *float32, n int"
	Result string // as in "float32", empty for none
	Doc    string // what it computes, after "nameARCH "
	Body   func(k *K)
}

// Emit returns the assembly of fns for arch and the Go declarations that go with it.
func Emit(arch Arch, pkg, generator, constraint string, fns []Fn) (asm, stubs []byte, err error) {
	pins := make([]int, len(fns))
	for i, f := range fns {
		if pins[i], err = mostPins(arch, pkg, f); err != nil {
			return nil, nil, err
		}
	}
	ctx := newContext(pkg, constraint)
	consts := map[uint32]string{}
	for i, f := range fns {
		f.emit(ctx, arch, consts, pins[i])
	}
	return compile(ctx, arch, pkg, generator)
}

func newContext(pkg, constraint string) *build.Context {
	ctx := build.NewContext()
	ctx.ConstraintExpr(constraint)
	return ctx
}

// mostPins finds how many constants f can keep in registers.
func mostPins(arch Arch, pkg string, f Fn) (int, error) {
	n := 13
	if arch.EVEX {
		n = 28
	}
	var err error
	for ; n >= 0; n-- {
		ctx := newContext(pkg, "amd64")
		f.emit(ctx, arch, map[uint32]string{}, n)
		if _, _, err = compile(ctx, arch, pkg, ""); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("isa: %s%s: %w", f.Name, arch.Name, err)
}

func (f Fn) emit(ctx *build.Context, arch Arch, consts map[uint32]string, pins int) {
	name := f.Name + arch.Name
	ctx.Function(name)
	ctx.Attributes(attr.NOSPLIT)
	ctx.Pragma("noescape")
	sig := "func(" + f.Params + ")"
	if f.Result != "" {
		sig += " " + f.Result
	}
	ctx.SignatureExpr(sig)
	ctx.Doc(strings.Split(name+" "+f.Doc, "\n")...)
	k := &K{Context: ctx, Arch: arch, name: name, budget: pins, pinned: map[uint32]V{}, consts: consts}
	f.Body(k)
	ctx.VZEROUPPER()
	ctx.RET()
}

var highRegister = regexp.MustCompile(`\b[XYZ](1[6-9]|2[0-9]|3[01])\b`)

func compile(ctx *build.Context, arch Arch, pkg, generator string) (asm, stubs []byte, err error) {
	asm, stubs, err = files.Assembly(ctx, printer.Config{Name: generator, Pkg: pkg}, pruneMoves)
	if err == nil && !arch.EVEX {
		if r := highRegister.Find(asm); r != nil {
			return nil, nil, fmt.Errorf("out of registers: %s", r)
		}
	}
	return asm, stubs, err
}

// pruneMoves removes vector moves that register allocation has turned into moves from a register to itself.
func pruneMoves(f *ir.File) {
	for _, fn := range f.Functions() {
		fn.Nodes = slices.DeleteFunc(fn.Nodes, func(n ir.Node) bool {
			i, ok := n.(*ir.Instruction)
			return ok && i.Opcode == "VMOVAPS" && len(i.Operands) == 2 && operand.IsRegister(i.Operands[0]) && i.Operands[0] == i.Operands[1]
		})
	}
}
