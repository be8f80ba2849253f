package parallel

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Panic is the value that Run panics with when a body has panicked.
type Panic struct {
	Value any    // what the body panicked with
	Stack []byte // the stack of the goroutine it panicked on, as of runtime/debug.Stack
}

// Error returns the original value and stack.
func (p *Panic) Error() string {
	return fmt.Sprintf("parallel: panic in a body of Run: %v\n\n%s", p.Value, p.Stack)
}

// Unwrap returns the original value if it is an error, else nil.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// failure is the way in which a body ended without returning: a panic, or runtime.Goexit.
type failure struct {
	panic  *Panic
	goexit bool
}

// newFailure describes a body that did not return, given what recover returned. It must be called while the failed
// goroutine's stack still stands, that is from the deferred function.
func newFailure(recovered any) *failure {
	switch v := recovered.(type) {
	case nil:
		return &failure{goexit: true}
	case *Panic: // from a Run nested in the body
		return &failure{panic: v}
	default:
		return &failure{panic: &Panic{Value: v, Stack: debug.Stack()}}
	}
}

// raise repeats the failure on the calling goroutine.
func (f *failure) raise() {
	if f.goexit {
		runtime.Goexit()
	}
	panic(f.panic)
}

// rethrow, deferred, turns any panic into one with a *Panic.
func rethrow() {
	if v := recover(); v != nil {
		newFailure(v).raise()
	}
}
