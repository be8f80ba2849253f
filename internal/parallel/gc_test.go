package parallel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gcPatience is what all collections of one test may take: a stall that this package is built to avoid takes seconds for
// each, a collection without one some milliseconds even on a busy machine.
const gcPatience = 30 * time.Second

// requireCollections runs n garbage collections and fails if they do not come to an end.
func requireCollections(t *testing.T, n int) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			runtime.GC()
		}
	}()
	select {
	case <-done:
	case <-time.After(gcPatience):
		require.FailNow(t, "garbage collection stalls", "%d collections took more than %v", n, gcPatience)
	}
}

// Tasks that are little but assembly, and Runs of them without a break.
func TestRunDoesNotStallCollection(t *testing.T) {
	setProcs(t, 2)
	setThreads(t, 2)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			Run(8, func(*Worker, int) { pause(100) })
		}
	})
	requireCollections(t, 50)
	stop.Store(true)
	wg.Wait()
}

// A spinning wait that nothing ends: what lets a collection stop it is that it calls Go functions.
func TestSpinDoesNotStallCollection(t *testing.T) {
	setProcs(t, 2)
	var state atomic.Uint32
	var wg sync.WaitGroup
	wg.Go(func() { spinWhile(&state, idle, 2*gcPatience) })
	requireCollections(t, 50)
	state.Store(offered)
	wg.Wait()
}

// A caller that waits for a helper's long task sleeps in the end, and is woken.
func TestLongTaskOfAHelper(t *testing.T) {
	setProcs(t, 2)
	setThreads(t, 2)
	for range 20 {
		rouse(t)
		var meet sync.WaitGroup
		meet.Add(2)
		var finished atomic.Bool
		Run(2, func(w *Worker, _ int) {
			meet.Done()
			meet.Wait()
			if w.ID() == 1 {
				time.Sleep(2 * callerSpin)
				finished.Store(true)
			}
		})
		require.True(t, finished.Load())
	}
}
