package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	return string(text)
}

// Example is what the README says that its lines print.
func Example() {
	main()
	// Output: (1, 1024, 8, 64) (1, 1024, 2, 64)
}

func TestREADMELinesAreThisProgram(t *testing.T) {
	block := regexp.MustCompile("(?s)```go\n(.*?)```").FindStringSubmatch(readme(t))
	require.NotNil(t, block, "the README has no Go")
	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	var body []string
	for line := range strings.Lines(block[1]) {
		if line != "\n" {
			line = "\t" + line
		}
		body = append(body, line)
	}
	require.Greater(t, len(body), 5)
	require.Contains(t, string(program), strings.Join(body, ""))
	require.Contains(t, readme(t), "(1, 1024, 8, 64) (1, 1024, 2, 64)")
}

// TestREADMEListsEveryNode holds the table of nodes to what the packages export.
func TestREADMEListsEveryNode(t *testing.T) {
	text := readme(t)
	for _, dir := range []string{"ops", "ops/flashattn", "ops/kvcompress", "ops/quantize", "ops/grounding"} {
		names := nodeFunctions(t, filepath.Join("../..", dir))
		require.NotEmpty(t, names, dir)
		for _, name := range names {
			require.Contains(t, text, "| `"+filepath.Base(dir)+"."+name+"` |")
		}
	}
}

// nodeFunctions are the exported functions of a package that return a node.
func nodeFunctions(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	var names []string
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() || f.Type.Results == nil {
				continue
			}
			if star, ok := f.Type.Results.List[0].Type.(*ast.StarExpr); ok {
				if s, ok := star.X.(*ast.SelectorExpr); ok && s.Sel.Name == "Node" {
					names = append(names, f.Name.Name)
				}
			}
		}
	}
	return names
}
