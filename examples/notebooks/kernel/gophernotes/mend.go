//go:build gophernotes

// The kernel is gophernotes' own main package, in the version that go.mod pins, with this file and the bindings beside it:
// install.sh lays gophernotes' files over this folder while it builds.
package main

import (
	"image"

	_ "stheno/examples/notebooks/kernel/bindings"
)

func init() {
	// gophernotes declares JSON() with one result here and another there, and gomacro will not load a proxy that does not
	// implement its interface.
	delete(display.Proxies, "JSONer")

	// A value that can be shown in several ways is shown once: as it renders itself, or else as the picture that it is.
	for name, show := range autoRenderers {
		autoRenderers[name] = func(d Data, v any) Data {
			_, renders := v.(Renderer)
			_, picture := v.(image.Image)
			if renders && name != "Renderer" || picture && !renders && name != "Image" {
				return d
			}
			return show(d, v)
		}
	}
}
