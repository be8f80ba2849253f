package main

import (
	"testing"

	"stheno/internal/kernel/gen/files"
)

func TestFilesAreUpToDate(t *testing.T) { files.UpToDate(t, 4, generate) }
