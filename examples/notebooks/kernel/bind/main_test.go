package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is committed must be what the generator writes now.
func TestBindingsAreCurrent(t *testing.T) {
	want, err := generate(packages)
	require.NoError(t, err)
	got, err := filepath.Glob("../bindings/" + prefix + "*.go")
	require.NoError(t, err)
	require.Len(t, got, len(want), "run scripts/regen.sh")
	for name, text := range want {
		committed, err := os.ReadFile(filepath.Join("../bindings", name))
		require.NoError(t, err, "run scripts/regen.sh")
		require.True(t, string(text) == string(committed), "%s is stale: run scripts/regen.sh", name)
	}
}
