//go:build purego || !(amd64 || arm64)

package parallel

// pause lets some nanoseconds pass for each of n.
func pause(n uint32) {
	for range n {
		for range 16 {
			nothing()
		}
	}
}

//go:noinline
func nothing() {}
