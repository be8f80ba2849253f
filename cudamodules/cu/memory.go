package cu

import "fmt"

// DevicePtr is an address in a card's memory.
type DevicePtr uintptr

// Uintptr is the address.
func (p DevicePtr) Uintptr() uintptr { return uintptr(p) }

// MemSize is not known to a pointer.
func (p DevicePtr) MemSize() uintptr { panic("cu: the size behind a DevicePtr is not known") }

func (p DevicePtr) String() string { return fmt.Sprintf("0x%x", uintptr(p)) }

// MemAttachFlags are those of managed memory.
type MemAttachFlags int

// AttachGlobal lets every stream use the memory.
const AttachGlobal MemAttachFlags = 1

// MemInfo says how many bytes of the current card's memory are free, and how many there are.
func MemInfo() (free, total int64, err error) {
	ctx, err := currentContext()
	if err != nil {
		return 0, 0, err
	}
	return ctx.MemoryInfo()
}

// MemAllocManaged takes memory that the card and the host can use.
func MemAllocManaged(n int64, _ MemAttachFlags) (DevicePtr, error) {
	ctx, err := currentContext()
	if err != nil {
		return 0, err
	}
	p, err := ctx.AllocManaged(n)
	return DevicePtr(p), err
}

// MemFree gives memory back, to whichever card it is of.
func MemFree(p DevicePtr) error {
	inUse.Lock()
	var all []*shared
	for _, s := range inUse.contexts {
		all = append(all, s)
	}
	inUse.Unlock()
	for _, s := range all {
		if err := s.Free(ptr(p)); err != nil {
			return err
		}
	}
	return nil
}
