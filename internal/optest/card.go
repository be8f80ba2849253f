//go:build cuda && linux

package optest

import (
	"errors"
	"os"
	"sync"
	"testing"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

var buildCard = sync.OnceValues(func() (string, error) { return emulator.Build(emulator.Config{}) })

// Card makes sure that there is a CUDA device: the emulated one, unless the environment variable STHENO_LIBCUDA names a driver
// (libcuda.so.1 is that of a real card).
func Card(t testing.TB) {
	t.Helper()
	if os.Getenv(cudamodules.LibraryVar) != "" {
		return
	}
	path, err := buildCard()
	if errors.Is(err, emulator.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	os.Setenv(cudamodules.LibraryVar, path)
}
