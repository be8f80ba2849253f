package aside

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// CheckFile finds out whether Write could write the file path, before what it will hold is computed.
func CheckFile(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("got %s, a folder or a device, want a file", path)
	}
	return tryWriting(filepath.Dir(path))
}

// CheckFolder finds out whether files could be written into the folder dir once it is made, without making it.
func CheckFolder(dir string) error {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return tryWriting(dir)
		case err == nil:
			return fmt.Errorf("got the file %s, want a folder", dir)
		case !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir || dir == ".":
			return notWritable(dir, err)
		}
		dir = filepath.Dir(dir)
	}
}

// tryWriting makes a file in dir and removes it.
func tryWriting(dir string) error {
	f, err := os.CreateTemp(dir, ".try-*")
	if err != nil {
		return notWritable(dir, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// notWritable leaves out the path of err, which may be that of a file nobody asked for.
func notWritable(dir string, err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		err = e.Err
	}
	return fmt.Errorf("got the folder %s, want one that can be written to: %w", dir, err)
}
