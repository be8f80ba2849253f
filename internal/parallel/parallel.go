package parallel

import (
	"fmt"
	"runtime"
	"sync/atomic"
)

// MaxThreads is the largest thread count that SetThreads accepts.
const MaxThreads = 1024

// chosen is the thread count given to SetThreads, 0 while there is none.
var chosen atomic.Int32

// Threads returns how many tasks of one Run may execute at a time: the count given to SetThreads, or else the smaller of
// GOMAXPROCS and the number of logical CPUs, as they are at this moment.
func Threads() int {
	if n := chosen.Load(); n > 0 {
		return int(n)
	}
	return min(runtime.GOMAXPROCS(0), runtime.NumCPU())
}

// SetThreads sets the thread count for every Run that starts later and returns the count it replaces. Counts above
// GOMAXPROCS are honoured; they cost time. An n outside 1..MaxThreads is an error and changes nothing.
func SetThreads(n int) (old int, err error) {
	old = Threads()
	if n < 1 || n > MaxThreads {
		return old, fmt.Errorf("parallel: SetThreads: got %d threads, want 1 to %d", n, MaxThreads)
	}
	chosen.Store(int32(n))
	return old, nil
}

// Run calls body(w, i) once for every i in [0, n), on the caller's goroutine and on up to Threads()−1 workers, and returns
// when all calls have returned. For n ≤ 0 it does nothing.
//
// Run may be called from many goroutines and from inside a body. The workers serve one Run at a time; a Run that finds
// them taken executes all its tasks in order on its own goroutine. In either case it has Workers of its own, so a nested Run
// does not touch the scratch of the body around it.
//
// If a body panics, tasks not yet claimed are dropped, and when the running ones are done Run panics with a *Panic on the
// caller's goroutine. If a body calls runtime.Goexit (as testing's FailNow does), Run ends the caller's goroutine likewise.
func Run(n int, body func(w *Worker, i int)) {
	if n <= 0 {
		return
	}
	w := takeCaller()
	defer putCaller(w)
	if n > 1 {
		if threads := min(Threads(), n); threads > 1 && shared.acquire() {
			shared.run(w, threads, n, body)
			return
		}
	}
	defer rethrow()
	for i := range n {
		body(w, i)
	}
}
