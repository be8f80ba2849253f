//go:build !purego

package kernel

import "syscall"

// allowMatrices asks Linux for the registers of AMX, which it sets up for processes that want them only.
func allowMatrices() bool {
	const (
		requestComponent = 0x1023 // ARCH_REQ_XCOMP_PERM
		tileData         = 18     // XFEATURE_XTILEDATA
	)
	_, _, err := syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, requestComponent, tileData, 0)
	return err == 0
}
