package files

import (
	"bytes"
	"errors"
	"log"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

// Assembly compiles what was built in ctx to assembly text and to the Go file that declares its functions. edit, unless
// nil, may change the instructions once they have registers.
func Assembly(ctx *build.Context, cfg printer.Config, edit func(*ir.File)) (asm, stubs []byte, err error) {
	file, err := ctx.Result()
	if err != nil {
		var all bytes.Buffer
		build.LogError(log.New(&all, "", 0), err, 0)
		return nil, nil, errors.New(all.String())
	}
	if err := pass.Compile.Execute(file); err != nil {
		return nil, nil, err
	}
	if edit != nil {
		edit(file)
	}
	if asm, err = printer.NewGoAsm(cfg).Print(file); err != nil {
		return nil, nil, err
	}
	stubs, err = printer.NewStubs(cfg).Print(file)
	return asm, stubs, err
}
