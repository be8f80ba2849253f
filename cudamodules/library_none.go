//go:build !(linux && (amd64 || arm64) && !android && !faketime)

package cudamodules

import (
	"fmt"
	"runtime"
)

const libraryName = "libcuda.so.1"

func load(string) (*api, error) {
	return nil, fmt.Errorf("cudamodules: %w: not supported on %s/%s", ErrNoDriver, runtime.GOOS, runtime.GOARCH)
}
