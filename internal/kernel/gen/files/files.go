// Package files writes what a generator makes and finds out whether the committed files are that.
package files

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Generate returns the text of every generated file by name.
type Generate func() (map[string][]byte, error)

// Main is the main function of the generator called name: it writes its files into the folder that -dir names.
func Main(name string, generate Generate) {
	dir := flag.String("dir", "..", "folder of package kernel")
	flag.Parse()
	if err := write(*dir, generate); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func write(dir string, generate Generate) error {
	texts, err := generate()
	if err != nil {
		return err
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// UpToDate fails a test, run in a generator's folder, unless all of its files, n of them, are committed as it makes them.
func UpToDate(t *testing.T, n int, generate Generate) {
	t.Helper()
	texts, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	if len(texts) != n {
		t.Fatalf("got %d generated files, want %d", len(texts), n)
	}
	for name, want := range texts {
		got, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale, run scripts/regen.sh", name)
		}
	}
}
