//go:build purego || !amd64

package kernel

func weighSIMD([]productBlock, []WeighRun, []productBlock) { panic(unreached) }
