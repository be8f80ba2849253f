// Package aside writes files so that they appear whole or not at all.
package aside

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Write makes the file path hold what write writes: into a new file beside it, which then takes its place. Where anything
// fails the new file is removed, and what was at path stays.
func Write(path string, write func(f *os.File) error) (err error) {
	f, err := createBeside(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err = write(f); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	syncFolder(filepath.Dir(path))
	return nil
}

// createBeside makes a new file in path's folder, with the permissions that the user's umask leaves.
func createBeside(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // the rename would replace even a device
		return nil, fmt.Errorf("%s is a folder or a device, want a file", path)
	}
	for serial := uint64(time.Now().UnixNano()); ; serial++ {
		f, err := os.OpenFile(path+"."+strconv.FormatUint(serial, 36)+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
	}
}

// syncFolder makes a rename durable where the system can; the file itself is synced already.
func syncFolder(dir string) {
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}
