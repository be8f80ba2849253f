package cu

import (
	"errors"
	"fmt"
	"sync"

	"stheno/cudamodules"
)

// OutOfMemory is what errors.Is finds in the error of a call for which there was no memory.
var OutOfMemory = cudamodules.ErrOutOfMemory

// ContextFlags are ignored: a card's context is shared.
type ContextFlags int

// SchedAuto is the default.
const SchedAuto ContextFlags = 0

// CUContext is a card in use.
type CUContext struct{ device Device }

func (c CUContext) String() string { return fmt.Sprintf("context of %v", c.device) }

// inUse are the cards in use, one context each, and which of them global functions mean.
var inUse struct {
	sync.Mutex
	contexts map[Device]*shared
	current  Device
}

type shared struct {
	*cudamodules.Context
	users   int
	scratch map[int64][]DevicePtr    // by size: what nobody has borrowed
	modules map[string]*sharedModule // by text
}

// MakeContext begins to use the card.
func (d Device) MakeContext(ContextFlags) (CUContext, error) {
	inUse.Lock()
	defer inUse.Unlock()
	s := inUse.contexts[d]
	if s == nil {
		dev, err := d.open()
		if err != nil {
			return CUContext{}, err
		}
		ctx, err := dev.Context()
		if err != nil {
			return CUContext{}, err
		}
		s = &shared{Context: ctx}
		if inUse.contexts == nil {
			inUse.contexts = map[Device]*shared{}
		}
		inUse.contexts[d] = s
	}
	s.users++
	inUse.current = d
	return CUContext{d}, nil
}

// leave ends one use of the card. The last one closes its context, which frees whatever is left.
func leave(d Device) error {
	inUse.Lock()
	defer inUse.Unlock()
	s := inUse.contexts[d]
	if s == nil {
		return nil
	}
	if s.users--; s.users > 0 {
		return nil
	}
	delete(inUse.contexts, d)
	return s.Close()
}

// SetCurrentContext says which card MemAllocManaged, LoadData and the like mean.
func SetCurrentContext(c CUContext) error {
	if _, err := contextOf(c.device); err != nil {
		return err
	}
	inUse.Lock()
	inUse.current = c.device
	inUse.Unlock()
	return nil
}

var errNoContext = errors.New("cu: no context: MakeContext comes first")

func contextOf(d Device) (*cudamodules.Context, error) {
	inUse.Lock()
	defer inUse.Unlock()
	s := inUse.contexts[d]
	if s == nil {
		return nil, errNoContext
	}
	return s.Context, nil
}

func currentContext() (*cudamodules.Context, error) {
	inUse.Lock()
	d := inUse.current
	inUse.Unlock()
	return contextOf(d)
}

// Of gives the context of package cudamodules on a card in use, for work that Gorgonia's interface has no words for.
func Of(d Device) (*cudamodules.Context, error) { return contextOf(d) }
