package aside

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func put(text string) func(*os.File) error {
	return func(f *os.File) error { _, err := f.WriteString(text); return err }
}

func TestWriteReplacesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	require.NoError(t, Write(path, put("one")))
	require.NoError(t, Write(path, put("two")))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "two", string(b))
}

func TestFailuresLeaveWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	require.NoError(t, Write(path, put("one")))
	broken := errors.New("broken")
	require.ErrorIs(t, Write(path, func(f *os.File) error { return errors.Join(put("half")(f), broken) }), broken)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "one", string(b))
	require.ErrorContains(t, Write(dir, put("x")), "is a folder or a device, want a file")
	require.ErrorIs(t, Write(filepath.Join(dir, "none", "a"), put("x")), os.ErrNotExist)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is left beside it")
}
