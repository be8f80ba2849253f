package ops_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docs/adding-an-op.md quotes this package: what it shows must be what stands here.
func TestAddingAnOpQuotesTheSource(t *testing.T) {
	doc, err := os.ReadFile("../docs/adding-an-op.md")
	require.NoError(t, err)
	var source string
	for _, name := range []string{"rmsnorm.go", "rmsnorm_test.go", "rows.go", "op_cuda.go", "op_cuda_test.go"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		source += string(text)
	}
	blocks := strings.Split(string(doc), "```go\n")[1:]
	require.NotEmpty(t, blocks)
	for _, b := range blocks {
		quote, _, closed := strings.Cut(b, "```")
		require.True(t, closed)
		require.Contains(t, source, quote)
	}
}
