package main

import (
	"testing"

	"stheno/internal/kernel/gen/files"
)

// The committed files are what the generator writes today.
func TestUpToDate(t *testing.T) { files.UpToDate(t, 6, generate) }
