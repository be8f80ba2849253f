package cu

import (
	"errors"
	"math/bits"
)

// Borrow lends n bytes of the card's memory, with arbitrary contents, for kernels that are launched until Return. What is given back
// is kept for the next borrower: as all launches are on one stream, those of the next one come after. It is freed with the context, or
// when there is no room for a loan otherwise.
func (b *BatchedContext) Borrow(n int64) (DevicePtr, error) {
	size := scratchSize(n)
	inUse.Lock()
	s := inUse.contexts[b.Device]
	if s == nil {
		inUse.Unlock()
		return 0, errNoContext
	}
	if free := s.scratch[size]; len(free) > 0 {
		p := free[len(free)-1]
		s.scratch[size] = free[:len(free)-1]
		inUse.Unlock()
		return p, nil
	}
	inUse.Unlock()
	p, err := s.Alloc(size)
	if errors.Is(err, OutOfMemory) {
		if e := s.freeScratch(); e != nil {
			return 0, errors.Join(err, e)
		}
		p, err = s.Alloc(size)
	}
	return DevicePtr(p), err
}

// freeScratch frees what nobody has borrowed, once the kernels that were given it have ended. Who wants it meanwhile waits.
func (s *shared) freeScratch() error {
	inUse.Lock()
	defer inUse.Unlock()
	err := s.Synchronize()
	for _, pieces := range s.scratch {
		for _, p := range pieces {
			err = errors.Join(err, s.Free(ptr(p)))
		}
	}
	s.scratch = nil
	return err
}

// Return ends a loan of n bytes.
func (b *BatchedContext) Return(p DevicePtr, n int64) {
	inUse.Lock()
	defer inUse.Unlock()
	s := inUse.contexts[b.Device]
	if s == nil {
		return
	}
	if s.scratch == nil {
		s.scratch = map[int64][]DevicePtr{}
	}
	size := scratchSize(n)
	s.scratch[size] = append(s.scratch[size], p)
}

// scratchSize is the power of two that n bytes take, so that there are few sizes.
func scratchSize(n int64) int64 { return max(256, int64(1)<<bits.Len64(uint64(n-1))) }
