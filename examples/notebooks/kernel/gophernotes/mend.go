//go:build gophernotes

// The kernel is gophernotes' own main package, in the version that go.mod pins, with this file and the bindings beside it:
// install.sh lays gophernotes' files over this folder while it builds.
package main

import (
	"fmt"
	"image"

	_ "stheno/examples/notebooks/kernel/bindings"
)

func init() {
	// gophernotes declares JSON() with one result here and another there, and gomacro will not load a proxy that does not
	// implement its interface.
	delete(display.Proxies, "JSONer")

	// A value that can be shown in several ways is shown once: as it renders itself, or else as the picture that it is. One that
	// panics while it is shown, as a nil pointer may, does not end the kernel.
	for name, show := range autoRenderers {
		autoRenderers[name] = func(d Data, v any) (shown Data) {
			defer func() {
				if r := recover(); r != nil {
					shown = MakeData(MIMETypeText, fmt.Sprintf("a %T that cannot be shown: %v", v, r))
				}
			}()
			_, renders := v.(Renderer)
			_, picture := v.(image.Image)
			if renders && name != "Renderer" || picture && !renders && name != "Image" {
				return d
			}
			return show(d, v)
		}
	}
}
