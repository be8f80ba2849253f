//go:build linux && (amd64 || arm64) && !android && !faketime

package cudamodules

import (
	"fmt"
	"reflect"
	"unsafe"

	"github.com/ebitengine/purego"
)

const libraryName = "libcuda.so.1"

// load opens a library and binds its functions. A library without one of them is too old a driver.
func load(path string) (*api, error) {
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("cudamodules: %w: %w", ErrNoDriver, err)
	}
	a := new(api)
	v := reflect.ValueOf(a).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("cuda")
		sym, err := purego.Dlsym(h, name)
		if err != nil {
			return nil, fmt.Errorf("cudamodules: %w: %s has no %s: %w", ErrOldDriver, path, name, err)
		}
		// The fields are this package's own and unexported, so reflection alone may not set them.
		field := reflect.NewAt(v.Field(i).Type(), unsafe.Pointer(v.Field(i).UnsafeAddr()))
		purego.RegisterFunc(field.Interface(), sym)
	}
	return a, nil
}
