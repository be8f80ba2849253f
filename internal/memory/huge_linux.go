package memory

import (
	"syscall"
	"unsafe"
)

// advise asks for huge pages under the size bytes from p on, from the beginning of the first to the end of the last: what else lies
// there is the garbage collector's too, whose arenas begin and end at multiples of huge pages. A system that refuses changes nothing
// but speed, so the error does not matter.
func advise(p unsafe.Pointer, size uintptr) {
	const madvHugepage = 14
	first := uintptr(p) &^ (hugePage - 1)
	last := (uintptr(p) + size + hugePage - 1) &^ (hugePage - 1)
	syscall.Syscall(syscall.SYS_MADVISE, first, last-first, madvHugepage)
}
