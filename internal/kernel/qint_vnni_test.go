//go:build purego || !amd64

package kernel

func setVNNI(bool) bool     { return false }
func setMatrices(bool) bool { return false }
