package cudamodules

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

//go:embed ptx/*.ptx
var ptxFiles embed.FS

// only90 ends the names of modules for compute capability 9.0 alone, which is what PTX calls sm_90a.
const only90 = "_sm90a"

// allModules lists the modules of kernels: the names of the files in src.
func allModules() []string {
	files, err := fs.Glob(ptxFiles, "ptx/*.ptx")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(f, "ptx/"), ".ptx"), "_sm80")
	}
	return files
}

// Modules lists the modules of kernels for compute capability 8.0 and later.
func Modules() []string { return slices.DeleteFunc(allModules(), OnlyOn90) }

// OnlyOn90 says whether a module is for cards of compute capability 9.0 alone. No other loads it.
func OnlyOn90(module string) bool { return strings.HasSuffix(module, only90) }

func ptxFile(module string) string {
	if OnlyOn90(module) {
		return module + ".ptx"
	}
	return module + "_sm80.ptx"
}

var texts sync.Map // module → string: to read an embedded file is to copy it

// PTX is the text of a module.
func PTX(module string) (string, error) {
	if text, ok := texts.Load(module); ok {
		return text.(string), nil
	}
	data, err := ptxFiles.ReadFile("ptx/" + ptxFile(module))
	if err != nil {
		return "", fmt.Errorf("cudamodules: got module %q, want one of %v", module, allModules())
	}
	text, _ := texts.LoadOrStore(module, string(data))
	return text.(string), nil
}

var entries sync.Map // PTX text → []string

// Entries lists the kernels of a module, in the order of the file.
func Entries(module string) ([]string, error) {
	text, err := PTX(module)
	if err != nil {
		return nil, err
	}
	return EntriesOf(text), nil
}

// EntriesOf lists the kernels of PTX text, in their order.
func EntriesOf(ptx string) []string {
	if e, ok := entries.Load(ptx); ok {
		return e.([]string)
	}
	var names []string
	for line := range strings.Lines(ptx) {
		if rest, ok := strings.CutPrefix(line, ".visible .entry "); ok {
			name, _, _ := strings.Cut(rest, "(")
			names = append(names, strings.TrimSpace(name))
		}
	}
	entries.Store(ptx, names)
	return names
}

// Load gives one of Modules, which the driver compiles when the first of its kernels is asked for.
func (c *Context) Load(module string) (*Module, error) {
	text, err := PTX(module)
	if err != nil {
		return nil, err
	}
	return c.Later(module, text), nil
}
