package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"stheno/internal/kernel/gen/files"
)

// The committed files are what the generator writes.
func TestUpToDate(t *testing.T) { files.UpToDate(t, 5, generate) }

// Every word means what its margin says.
func TestMargins(t *testing.T) {
	assembler, err := exec.LookPath("llvm-mc")
	if err != nil {
		t.Skip("no llvm-mc, which assembles the margins")
	}
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	meant := make(map[string]string) // word by mnemonic
	line := regexp.MustCompile(`WORD \$0x([0-9a-f]{8}) // (.*)`)
	for name, text := range files {
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			if w, ok := meant[m[2]]; ok && w != m[1] {
				t.Errorf("%s: %q is both %s and %s", name, m[2], w, m[1])
			}
			meant[m[2]] = m[1]
		}
	}
	if len(meant) < 100 {
		t.Fatalf("neon: got %d different words, want hundreds", len(meant))
	}
	var order []string
	for mnemonic := range meant {
		order = append(order, mnemonic)
	}
	cmd := exec.Command(assembler, "-triple=aarch64", "-show-encoding")
	cmd.Stdin = strings.NewReader(strings.Join(order, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	encodings := regexp.MustCompile(`encoding: \[0x(..),0x(..),0x(..),0x(..)\]`).FindAllStringSubmatch(string(out), -1)
	if len(encodings) != len(order) {
		t.Fatalf("neon: got %d encodings, want %d", len(encodings), len(order))
	}
	for i, e := range encodings {
		if got := e[4] + e[3] + e[2] + e[1]; got != meant[order[i]] {
			t.Errorf("%s: got word %s, want %s", order[i], meant[order[i]], got)
		}
	}
}

// The polynomials are those that amd64 uses; it has one more, for a reduction that only AVX-512 has an instruction for.
func TestPolynomialsOfPackageIsa(t *testing.T) {
	source := func(path string) map[string]string {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[string]string)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			list, ok := spec.Values[0].(*ast.CompositeLit)
			if !ok {
				return true
			}
			var words []string
			for _, e := range list.Elts {
				sign := ""
				if u, ok := e.(*ast.UnaryExpr); ok {
					sign, e = u.Op.String(), u.X
				}
				words = append(words, sign+e.(*ast.BasicLit).Value)
			}
			found[spec.Names[0].Name] = fmt.Sprint(words)
			return true
		})
		return found
	}
	got, want := source("math.go"), source(filepath.Join("..", "isa", "math.go"))
	if len(got) != 4 {
		t.Fatalf("neon: got %d polynomials, want 4", len(got))
	}
	for name, coefficients := range got {
		if coefficients != want[name] {
			t.Errorf("%s: got %s, want %s", name, coefficients, want[name])
		}
	}
}
