package cudamodules

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"
	"sync"
)

//go:embed ptx/*.ptx
var ptxFiles embed.FS

const ptxSuffix = "_sm80.ptx"

// Modules lists the modules of kernels: the names of the files in src.
func Modules() []string {
	files, err := fs.Glob(ptxFiles, "ptx/*"+ptxSuffix)
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(strings.TrimPrefix(f, "ptx/"), ptxSuffix)
	}
	return files
}

// PTX is the text of a module, for compute capability 8.0 and later.
func PTX(module string) (string, error) {
	text, err := ptxFiles.ReadFile("ptx/" + module + ptxSuffix)
	if err != nil {
		return "", fmt.Errorf("cudamodules: got module %q, want one of %v", module, Modules())
	}
	return string(text), nil
}

var entries sync.Map // module → []string

// Entries lists the kernels of a module, in the order of the file.
func Entries(module string) ([]string, error) {
	if e, ok := entries.Load(module); ok {
		return e.([]string), nil
	}
	text, err := PTX(module)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, ".visible .entry "); ok {
			name, _, _ := strings.Cut(rest, "(")
			names = append(names, strings.TrimSpace(name))
		}
	}
	entries.Store(module, names)
	return names, nil
}

// Load loads one of Modules.
func (c *Context) Load(module string) (*Module, error) {
	text, err := PTX(module)
	if err != nil {
		return nil, err
	}
	return c.LoadPTX(module, text)
}
