package parallel

import (
	"sync/atomic"
	"time"
)

const (
	pausesPerCheck = 4  // some 50–150 ns on current processors
	checksPerClock = 64 // some 3–10 µs; reading the clock costs about as much as one check
)

// epoch is the zero of clock.
var epoch = time.Now()

// clock returns the time since the process started, by the monotonic clock.
func clock() time.Duration { return time.Since(epoch) }

// spinWhile waits until state is not v and reports true, or until budget has passed and reports false.
func spinWhile(state *atomic.Uint32, v uint32, budget time.Duration) bool {
	end := time.Duration(-1)
	for {
		for range checksPerClock {
			if state.Load() != v {
				return true
			}
			relax()
		}
		if now := clock(); end < 0 {
			end = now + budget
		} else if now >= end {
			return false
		}
	}
}

// relax pauses for a moment of a spinning wait. It is a call that cannot be inlined, to a function that itself calls, and
// so begins with the stack check at which a goroutine can be preempted. A loop without such a call, around pause alone,
// spends almost all its time in assembly, where it cannot be, and a garbage collection may have to wait for seconds.
//
//go:noinline
func relax() { pause(pausesPerCheck) }
