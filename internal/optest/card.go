//go:build cuda && linux

package optest

import (
	"errors"
	"hash/fnv"
	"os"
	"strconv"
	"sync"
	"testing"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

var buildCard = sync.OnceValues(func() (string, error) { return emulator.Build(emulator.Config{}) })

// Card makes sure that there is a CUDA device: the emulated one, unless the environment variable STHENO_LIBCUDA names a driver
// (libcuda.so.1 is that of a real card).
//
// Each test has a schedule of the emulated card's threads, by its name; the environment variable STHENO_SCHEDULE moves all of them on.
func Card(t testing.TB) {
	t.Helper()
	err := UseCard()
	if errors.Is(err, emulator.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(cudamodules.LibraryVar) == emulated {
		schedule(t)
	}
}

// UseCard is Card for a TestMain: where all tests of a package want a device, as Gorgonia's machines do under the tag.
func UseCard() error {
	if os.Getenv(cudamodules.LibraryVar) != "" {
		return nil
	}
	path, err := buildCard()
	if err != nil {
		return err
	}
	emulated = path
	return os.Setenv(cudamodules.LibraryVar, path)
}

var emulated string // the library, once it is in use

// schedules is how many there are: in order, the last warps ahead, and by chance.
const schedules = 6

func schedule(t testing.TB) {
	name := fnv.New32()
	name.Write([]byte(t.Name()))
	move, _ := strconv.Atoi(os.Getenv("STHENO_SCHEDULE"))
	emulator.Schedule(emulated, (int(name.Sum32()%schedules)+move)%schedules)
}
