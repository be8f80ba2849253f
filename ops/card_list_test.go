package ops_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// staysOnHost are the op types that have no CUDADo, and why.
var staysOnHost = map[string]string{
	"op.packOp":         "lays out a view of the host's memory before it is copied to the card",
	"ops.embeddingGrad": "under the build tag cuda, cudaEmbeddingGrad stands in its place",
	"quantize.tap":      "a Recorder's node, which only calibration has: it counts values in tables of the host",
}

// Every op type of this module either runs on a card under the build tag cuda, itself or as part of a type that embeds it, or is
// explained above. Sources are read, not built: the test needs no tag.
func TestEveryOpTypeIsOnTheCardOrExplained(t *testing.T) {
	nodes, onCard, embeds := map[string]bool{}, map[string]bool{}, map[string]string{}
	for _, root := range []string{".", "../internal/op"} {
		require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			pkg := file.Name.Name + "."
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.TypeSpec:
					if s, ok := n.Type.(*ast.StructType); ok {
						for _, f := range s.Fields.List {
							if len(f.Names) > 0 {
								continue
							}
							switch name := nameOf(f.Type); name {
							case "Base":
								nodes[pkg+n.Name.Name] = true
							default:
								embeds[pkg+n.Name.Name] = pkg + name
							}
						}
					}
				case *ast.FuncDecl:
					if n.Name.Name == "CUDADo" && n.Recv != nil {
						onCard[pkg+nameOf(n.Recv.List[0].Type)] = true
					}
				}
				return true
			})
			return nil
		}))
	}
	require.Greater(t, len(nodes), 20)
	for outer, inner := range embeds {
		if onCard[outer] {
			onCard[inner] = true
		}
	}
	for name := range nodes {
		why, explained := staysOnHost[name]
		require.NotEqual(t, onCard[name], explained, "%s: got CUDADo %t, and %q as what explains that it has none", name, onCard[name], why)
	}
	for name := range staysOnHost {
		require.True(t, nodes[name], "%s is no op type", name)
	}
}

// nameOf is the name of a type, without pointers and packages.
func nameOf(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return nameOf(x.X)
	case *ast.SelectorExpr:
		return x.Sel.Name
	case *ast.Ident:
		return x.Name
	}
	return ""
}

// The README's table of nodes says of each that it runs on the emulated card.
func TestREADMETableOfTheCard(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(text), "| node | CPU | gradient | CUDA |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := strings.Split(table, "\n")[1:]
	require.Greater(t, len(rows), 20)
	for _, row := range rows {
		cells := strings.Split(row, "|")
		require.Len(t, cells, 6, row)
		require.Contains(t, cells[4], "emulated", row)
	}
}
