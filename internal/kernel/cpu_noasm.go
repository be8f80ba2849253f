//go:build purego || !(amd64 || arm64)

package kernel

func supportedSIMD() []ISA { return nil }
