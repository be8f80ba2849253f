package parallel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Worker is the identity under which a goroutine executes tasks of one Run, and the owner of its scratch memory. It is
// valid inside the body it was given to, on that goroutine only.
type Worker struct {
	id    int
	gen   uint64 // the value of scratchGen that the slabs belong to
	slabs [Slots]slab
}

// ID returns the worker's number within its Run, 0 for the caller. No two goroutines in one Run share a number, and it is
// below min(Threads(), n) as they were when the Run started. Workers of different Runs may have equal numbers.
func (w *Worker) ID() int { return w.id }

// callers holds the Workers of goroutines that call Run, the last one used on top.
var callers struct {
	sync.Mutex
	idle []*Worker
}

func takeCaller() *Worker {
	callers.Lock()
	defer callers.Unlock()
	if n := len(callers.idle); n > 0 {
		w := callers.idle[n-1]
		callers.idle = callers.idle[:n-1]
		return w
	}
	return &Worker{gen: scratchGen.Load()}
}

func putCaller(w *Worker) {
	callers.Lock()
	defer callers.Unlock()
	w.dropStale(scratchGen.Load())
	callers.idle = append(callers.idle, w)
}

// The states of a helper. Its own goroutine makes the transitions marked h, the Run that owns the crew those marked r.
//
//	idle    → offered  r  a Run wants help
//	parked  → offered  r  the same, and a token is sent on wake
//	offered → idle     r  the offer is taken back
//	offered → running  h  the offer is accepted
//	running → idle     h  no unclaimed task is left
//	running → awaited  r  the Run has spun long enough and sleeps on done
//	awaited → idle     h  the same as running → idle, and a token is sent on done
//	idle    → parked   h  the helper has spun long enough and sleeps on wake
const (
	idle uint32 = iota
	parked
	offered
	running
	awaited
)

// How long goroutines of the pool spin before they sleep.
const (
	// A helper waiting for the next Run. Waking its thread takes 5–100 µs: spinning costs at most about twice that.
	helperSpin = 200 * time.Microsecond
	// The same while the last Run goes on without it. Its caller has at most a task left then, unless the two threads
	// share a core: in that case the caller cannot go on before the helper sleeps.
	helperSpinBusy = 30 * time.Microsecond
	// A Run waiting for the last task of a helper. If the helper's core is taken by another process, sleeping soon is
	// what lets the operating system move the helper to the caller's core.
	callerSpin = 30 * time.Microsecond
)

// helper is a Worker with a goroutine of its own. The padding keeps state, on which it spins, off the cache lines that
// others write.
type helper struct {
	Worker
	crew  *crew
	wake  chan struct{} // capacity 1: neither side's send ever blocks
	done  chan struct{} // capacity 1
	asked bool          // the owner's note that this Run made an offer
	rest  rest          // the owner's too
	_     [128]byte
	// state holds one of the constants above.
	state atomic.Uint32
	_     [124]byte
}

func newHelper(c *crew, id int) *helper {
	h := &helper{
		Worker: Worker{id: id, gen: scratchGen.Load()},
		crew:   c,
		wake:   make(chan struct{}, 1),
		done:   make(chan struct{}, 1),
	}
	go h.loop()
	return h
}

// loop serves Runs until the process ends. Only a runtime.Goexit in a body leaves it, and the deferred call then goes on
// with a fresh goroutine.
func (h *helper) loop() {
	defer func() { go h.loop() }()
	for {
		h.await()
		h.serve()
	}
}

// await returns in state running.
func (h *helper) await() {
	for {
		if h.state.CompareAndSwap(offered, running) {
			return
		}
		if h.spin() {
			continue
		}
		if h.state.CompareAndSwap(idle, parked) {
			<-h.wake
		}
	}
}

// spin waits for an offer and reports whether there is one.
func (h *helper) spin() bool {
	if h.id >= int(h.crew.procs.Load()) {
		return false // no processor to spare: it would only keep others from running
	}
	if spinWhile(&h.state, idle, helperSpinBusy) {
		return true
	}
	return !h.crew.busy.Load() && spinWhile(&h.state, idle, helperSpin-helperSpinBusy)
}

// serve takes part in the Run that was accepted.
func (h *helper) serve() {
	defer func() {
		if h.state.Swap(idle) == awaited {
			h.done <- struct{}{}
			// The caller is next in line on this processor: it continues at once if the helper steps aside.
			runtime.Gosched()
		}
	}()
	h.crew.work(&h.Worker)
}

// offer asks the helper to take part in the Run described by its crew.
func (h *helper) offer() {
	if h.state.Swap(offered) == parked {
		h.wake <- struct{}{}
	}
}

// dismiss takes the offer back and reports true, or reports whether the helper is done with it.
func (h *helper) dismiss() bool {
	return h.state.CompareAndSwap(offered, idle) || h.state.Load() != running
}

// wait returns when the helper is done.
func (h *helper) wait() {
	if h.crew.procs.Load() > 1 && spinWhile(&h.state, running, callerSpin) {
		return
	}
	if h.state.CompareAndSwap(running, awaited) {
		<-h.done
	}
}
