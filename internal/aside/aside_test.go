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

func TestChecksLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	file, none := filepath.Join(dir, "a"), filepath.Join(dir, "none")
	require.NoError(t, Write(file, put("one")))
	require.NoError(t, CheckFile(file))
	require.NoError(t, CheckFile(filepath.Join(dir, "b")))
	require.ErrorContains(t, CheckFile(dir), "a folder or a device, want a file")
	err := CheckFile(filepath.Join(none, "b"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.EqualError(t, err, "got the folder "+none+", want one that can be written to: no such file or directory")
	require.NoError(t, CheckFolder(filepath.Join(none, "of", "these")))
	require.ErrorContains(t, CheckFolder(filepath.Join(file)), "got the file "+file+", want a folder")
	require.ErrorContains(t, CheckFolder(filepath.Join(file, "in")), "not a directory")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
}
