package notebooks

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// text is a string that a notebook may keep as its lines.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var lines []string
	if json.Unmarshal(b, &lines) == nil {
		*t = text(strings.Join(lines, ""))
		return nil
	}
	return json.Unmarshal(b, (*string)(t))
}

type notebook struct {
	Cells []struct {
		Type    string `json:"cell_type"`
		Count   int    `json:"execution_count"`
		Source  text
		Outputs []struct {
			Type string `json:"output_type"`
			Name string
			Text text
			Data map[string]any
		}
	}
	Metadata struct {
		Kernelspec struct{ Name string }
	}
}

// machine matches paths that name the machine that a notebook ran on.
var machine = regexp.MustCompile(`(^|[\s"'(=])(/(home|root|tmp|work|Users|usr|opt|var)/|[A-Z]:\\\\)`)

// TestExecuted holds notebooks to what a reader expects of them: they tell what they do, every cell has run, in order and
// without an error, and what they show is pictures and tables. STHENO_NOTEBOOKS names a folder of others to look at.
func TestExecuted(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(cmp.Or(os.Getenv("STHENO_NOTEBOOKS"), "."), "*.ipynb"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Less(t, len(data), 1<<20)
			host, err := os.Hostname()
			require.NoError(t, err)
			require.False(t, len(host) > 3 && bytes.Contains(data, []byte(host)), "the name of this machine")
			var n notebook
			require.NoError(t, json.Unmarshal(data, &n))
			require.Equal(t, "stheno", n.Metadata.Kernelspec.Name)
			require.True(t, strings.HasPrefix(string(n.Cells[0].Source), "# "), "a title comes first")
			count, pictures, words := 0, 0, 0
			for i, c := range n.Cells {
				if c.Type != "code" {
					words += len(strings.Fields(string(c.Source)))
					continue
				}
				count++
				require.Equal(t, count, c.Count, "cell %d", i)
				for _, o := range c.Outputs {
					require.NotEqual(t, "error", o.Type, "cell %d", i)
					require.NotEqual(t, "stderr", o.Name, "cell %d: %s", i, o.Text)
					require.NotRegexp(t, machine, string(o.Text), "cell %d", i)
					pictures += look(t, i, o.Data)
				}
			}
			require.Positive(t, pictures)
			require.Greater(t, words, 100)
		})
	}
}

// look checks what a cell shows and counts pictures. A result that is plain text alone is a value that cannot show itself, or
// an error that the cell did not look at.
func look(t *testing.T, cell int, data map[string]any) (pictures int) {
	for kind, content := range data {
		if kind != "image/png" {
			b, err := json.Marshal(content)
			require.NoError(t, err)
			require.NotRegexp(t, machine, string(b), "cell %d", cell)
			require.False(t, kind == "text/plain" && len(data) == 1, "cell %d shows plain text: %s", cell, b)
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(content.(string), "\n", ""))
		require.NoError(t, err)
		img, err := png.Decode(bytes.NewReader(raw))
		require.NoError(t, err)
		b, colours := img.Bounds(), map[color.Color]bool{}
		for y := b.Min.Y; y < b.Max.Y; y += 2 {
			for x := b.Min.X; x < b.Max.X; x += 2 {
				colours[img.At(x, y)] = true
			}
		}
		require.True(t, b.Dx() >= 200 && b.Dy() >= 100 && len(colours) > 8, "cell %d: a picture of %v with %d colours", cell, b, len(colours))
		pictures++
	}
	return pictures
}

func TestREADMEListsTheNotebooks(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	paths, err := filepath.Glob("*.ipynb")
	require.NoError(t, err)
	for _, path := range paths {
		require.Contains(t, string(readme), "("+path+")")
	}
}
