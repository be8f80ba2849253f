package main

import (
	"testing"

	"stheno/internal/kernel/gen/files"
)

// The committed assembly is what the generator writes.
func TestUpToDate(t *testing.T) { files.UpToDate(t, 2, generate) }
