package main

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// Sizes of the text, in bytes.
const (
	maxTraining = 16 << 20 // a training of minutes sees a part of it; tokens take 8 bytes each
	maxHeldOut  = 64 << 10 // what plain nodes evaluate in seconds
	minTraining = 1 << 10
	minHeldOut  = 64
)

// heldOutShare: one file of this many is held out.
const heldOutShare = 20

// corpus is text to train on and text held out.
type corpus struct {
	name            string
	training, held  []byte
	files, heldFile int // numbers of files
}

// selection says what of a file tree is text to read.
type selection struct {
	name string
	dir  func(name string) bool
	file func(name string) bool
	text func(data []byte) bool
}

// goSource selects the standard library: no commands, no vendored or test code, nothing generated.
var goSource = selection{
	dir:  func(name string) bool { return name != "cmd" && name != "vendor" && name != "testdata" },
	file: func(name string) bool { return strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") },
	text: func(data []byte) bool {
		return isText(data) && !bytes.HasPrefix(data, []byte("// Code generated ")) && !bytes.Contains(data, []byte("\n// Code generated "))
	},
}

// anyText selects every file that is not hidden and looks like UTF-8 text.
var anyText = selection{
	dir:  func(name string) bool { return !strings.HasPrefix(name, ".") },
	file: func(name string) bool { return !strings.HasPrefix(name, ".") },
	text: isText,
}

// isTextBytes is how much of a file isText looks at.
const isTextBytes = 4096

// isText reports whether data begins like UTF-8 text.
func isText(data []byte) bool {
	head := data[:min(len(data), isTextBytes)]
	if bytes.IndexByte(head, 0) >= 0 {
		return false
	}
	for cut := 0; cut < utf8.UTFMax; cut++ { // the last rune may be cut in two
		if utf8.Valid(head[:max(0, len(head)-cut)]) {
			return true
		}
	}
	return false
}

// readCorpus reads the selected files under tree. Which are held out follows from their paths alone, so the same tree is
// split alike everywhere; where that leaves one side empty, as with a single file, the end of the text is held out.
func readCorpus(tree fs.FS, sel selection) (corpus, error) {
	c := corpus{name: sel.name}
	paths, err := listFiles(tree, sel)
	if err != nil {
		return c, err
	}
	for _, p := range paths {
		held := pathHash(p)%heldOutShare == 0
		to, count, limit := &c.training, &c.files, maxTraining
		if held {
			to, count, limit = &c.held, &c.heldFile, maxHeldOut
		}
		room := limit - len(*to)
		if room == 0 {
			continue
		}
		data, err := readStart(tree, p, max(room, isTextBytes))
		if err != nil {
			return c, fmt.Errorf("reading the text: %w", err)
		}
		if len(data) == 0 || !sel.text(data) {
			continue
		}
		*to = append(*to, data[:min(len(data), room)]...)
		*count++
	}
	if len(c.held) < minHeldOut || len(c.training) < minTraining {
		all := append(c.training, c.held...)
		n := min(len(all)/heldOutShare, maxHeldOut)
		c.training, c.held = all[:len(all)-n:len(all)-n], all[len(all)-n:]
		c.files, c.heldFile = c.files+c.heldFile, 0
	}
	if len(c.held) < minHeldOut || len(c.training) < minTraining {
		return c, fmt.Errorf("%s: got %d bytes of text, want at least %d", sel.name, len(c.training)+len(c.held), heldOutShare*minHeldOut)
	}
	return c, nil
}

// readStart reads a file as far as n bytes: what a directory of any files holds need not fit into memory.
func readStart(tree fs.FS, p string, n int) ([]byte, error) {
	f, err := tree.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, int64(n)))
}

// listFiles returns the selected paths in the order of their hashes: a prefix of it is a fair sample of the tree.
func listFiles(tree fs.FS, sel selection) ([]string, error) {
	var paths []string
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("reading the text: %w", err)
		case d.IsDir():
			if p != "." && !sel.dir(d.Name()) {
				return fs.SkipDir
			}
		case d.Type().IsRegular() && sel.file(d.Name()):
			paths = append(paths, p)
		}
		return nil
	})
	slices.SortFunc(paths, func(a, b string) int {
		return cmp.Or(cmp.Compare(pathHash(a)>>8, pathHash(b)>>8), cmp.Compare(a, b))
	})
	return paths, err
}

// pathHash is the FNV-1a hash of a path, its bits mixed once more because FNV's last bytes reach few of them.
func pathHash(p string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, path.Clean(p))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// tokens turns text into token ids.
func tokens(text []byte) []int {
	out := make([]int, len(text))
	for i, b := range text {
		out[i] = int(b)
	}
	return out
}

// gzipBits is what gzip -9 needs for text, in bits per byte.
func gzipBits(text []byte) (float64, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return 0, err
	}
	if _, err := w.Write(text); err != nil {
		return 0, err
	}
	if err := w.Close(); err != nil {
		return 0, err
	}
	return 8 * float64(out.Len()) / float64(len(text)), nil
}
