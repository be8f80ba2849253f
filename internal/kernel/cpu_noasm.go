//go:build purego || !amd64

package kernel

func supportedSIMD() []ISA { return nil }
