package cudamodules

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// listed is a package as go list describes it.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles, CgoFiles, Deps []string
}

func goList(t *testing.T, args ...string) map[string]*listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-tags", "cuda", "-deps", "-json=ImportPath,Dir,Export,GoFiles,CgoFiles,Deps"}, args...)...)
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", stderr.String())
	all := map[string]*listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(listed)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return all
		} else {
			require.NoError(t, err)
		}
		all[p.ImportPath] = p
	}
}

// original imports packages for a type check: those that stand on gorgonia.org/cu from their sources, with C taken on trust, others as
// they are compiled.
type original struct {
	fset     *token.FileSet
	all      map[string]*listed
	done     map[string]*types.Package
	compiled types.Importer
}

const cuPath = "gorgonia.org/cu"

func (o *original) Import(path string) (*types.Package, error) {
	if p := o.done[path]; p != nil {
		return p, nil
	}
	p := o.all[path]
	stands := p != nil && strings.HasPrefix(path, cuPath)
	for i := 0; p != nil && i < len(p.Deps) && !stands; i++ {
		stands = p.Deps[i] == cuPath
	}
	if !stands {
		return o.compiled.Import(path)
	}
	var files []*ast.File
	for _, name := range append(append([]string(nil), p.GoFiles...), p.CgoFiles...) {
		f, err := parser.ParseFile(o.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	var errs []error
	cfg := types.Config{Importer: o, FakeImportC: true, Error: func(err error) { errs = append(errs, err) }}
	pkg, _ := cfg.Check(path, o.fset, files, nil)
	if strings.HasPrefix(path, "stheno") && len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	o.done[path] = pkg
	return pkg, nil
}

// The files under the build tag cuda fit the original gorgonia.org/cu, in whose place cudamodules/cu stands. To compile it wants the
// headers of CUDA and cuDNN; types can be checked without.
func TestTaggedFilesFitTheOriginal(t *testing.T) {
	if testing.Short() {
		t.Skip("checks the types of Gorgonia and of all that stands on it: not with -short")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command")
	}
	ours := []string{"stheno", "stheno/internal/op", "stheno/ops", "stheno/ops/flashattn", "stheno/ops/quantize", "stheno/ops/grounding", "stheno/ops/kvcompress"}
	all := goList(t, ours...)
	if all[cuPath] == nil || strings.Contains(filepath.ToSlash(all[cuPath].Dir), "cudamodules/cu") {
		t.Skip("gorgonia.org/cu is replaced here")
	}
	var plain []string
	for path, p := range all {
		stands := strings.HasPrefix(path, cuPath)
		for _, d := range p.Deps {
			stands = stands || d == cuPath
		}
		if !stands && path != "C" && path != "unsafe" {
			plain = append(plain, path)
		}
	}
	exports := goList(t, append([]string{"-export"}, plain...)...)
	fset := token.NewFileSet()
	lookup := func(path string) (io.ReadCloser, error) { return os.Open(exports[path].Export) }
	o := &original{fset, all, map[string]*types.Package{}, importer.ForCompiler(fset, "gc", lookup)}
	for _, path := range ours {
		_, err := o.Import(path)
		require.NoError(t, err, path)
	}
}
