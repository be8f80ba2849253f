package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Where init finds its work; init/main.go reads the same names.
const (
	binaryAt  = "binary"
	argsAt    = "args"
	envAt     = "env"
	workdirAt = "work"
)

// fileSystem returns the initial file system: init, the binary, its arguments and environment (each string ended by a zero
// byte), its working directory, and the mount points.
func fileSystem(c config) ([]byte, error) {
	var a archive
	for _, d := range []string{"dev", "proc", "sys", "tmp", workdirAt} {
		a.add(d, modeDir|0o755, nil)
	}
	for _, s := range append(c.args, c.env...) {
		if strings.ContainsRune(s, 0) {
			return nil, fmt.Errorf("got the argument %q, want one without a zero byte", s)
		}
	}
	a.add(argsAt, modeFile|0o644, zeroEnded(c.args))
	a.add(envAt, modeFile|0o644, zeroEnded(c.env))
	a.add("etc", modeDir|0o755, nil)
	a.add("etc/passwd", modeFile|0o644, []byte("root:x:0:0:root:/tmp:/bin/false\n"))
	err := errors.Join(a.copy("init", c.init, 0o755), a.copy(binaryAt, c.binary, 0o755))
	if err != nil {
		return nil, err
	}
	if c.dir != "" {
		if err := a.copyTree(workdirAt, c.dir); err != nil {
			return nil, err
		}
	}
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes(), nil
}

func zeroEnded(s []string) []byte {
	var b []byte
	for _, v := range s {
		b = append(append(b, v...), 0)
	}
	return b
}

const (
	modeDir  = 0o040000
	modeFile = 0o100000
)

// archive is a cpio archive in the "newc" format (Linux Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	bytes.Buffer
	files int
}

// add appends an entry. Everything belongs to root and dates from 1970.
func (a *archive) add(name string, mode int, data []byte) {
	a.files++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.files, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.WriteString(name)
	a.WriteByte(0)
	a.pad()
	a.Write(data)
	a.pad()
}

// pad fills up to the next multiple of 4, where every header and every file begins.
func (a *archive) pad() {
	for a.Len()%4 != 0 {
		a.WriteByte(0)
	}
}

func (a *archive) copy(name, from string, perm int) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	a.add(name, modeFile|perm, data)
	return nil
}

// copyTree adds the regular files and folders below from, which are to appear below name.
func (a *archive) copyTree(name, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		to := name + "/" + filepath.ToSlash(rel)
		switch {
		case d.IsDir():
			a.add(to, modeDir|0o755, nil)
			return nil
		case d.Type().IsRegular():
			return a.copy(to, path, 0o755)
		}
		return nil
	})
}
