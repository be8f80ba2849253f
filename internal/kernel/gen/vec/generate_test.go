package main

import (
	"os"
	"path/filepath"
	"testing"
)

// The committed files are what the generator writes today.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Error(err)
			continue
		}
		if string(got) != string(want) {
			t.Errorf("%s is stale: run scripts/regen.sh", name)
		}
	}
}
