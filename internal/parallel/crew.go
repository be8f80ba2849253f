package parallel

import (
	"runtime"
	"sync/atomic"
	"time"
)

// crew is a set of helpers and the Run that they serve. Whoever holds busy owns the fields; helpers read the description
// of the Run between accepting its offer and finishing, which lies within the owner's hold.
type crew struct {
	busy  atomic.Bool
	procs atomic.Int32 // GOMAXPROCS when the latest Run started
	_     [120]byte

	helpers []*helper // helper i has ID i+1; grows, never shrinks
	gen     uint64    // the value of scratchGen up to which helpers have dropped scratch
	body    func(w *Worker, i int)
	n       uint64
	failed  atomic.Pointer[failure] // the first failure of the Run
	_       [64]byte

	next atomic.Uint64 // the first task that is not claimed; n and above: none is left
	_    [120]byte
}

// shared is the process's crew.
var shared crew

// acquire makes the caller the crew's owner unless there is one.
func (c *crew) acquire() bool {
	return !c.busy.Load() && c.busy.CompareAndSwap(false, true)
}

// release ends ownership. A ReleaseScratch that found the crew taken leaves its work to the owner: hence the check before
// and, for one that came in between, again after the hand-over.
func (c *crew) release() {
	for {
		gen := scratchGen.Load()
		if c.gen != gen {
			for _, h := range c.helpers {
				h.dropStale(gen)
			}
			c.gen = gen
		}
		c.busy.Store(false)
		if scratchGen.Load() == gen || !c.acquire() {
			return
		}
	}
}

// run executes body for [0, n) on the owner and threads−1 helpers, and ends ownership.
func (c *crew) run(w *Worker, threads, n int, body func(w *Worker, i int)) {
	c.procs.Store(int32(runtime.GOMAXPROCS(0)))
	for id := len(c.helpers) + 1; id < threads; id++ {
		c.helpers = append(c.helpers, newHelper(c, id))
	}
	c.body, c.n = body, uint64(n)
	c.next.Store(0)

	start, mine, returned := clock(), 0, false
	defer func() {
		c.collect(threads-1, mine, start)
		f := c.failed.Load()
		if f != nil {
			c.failed.Store(nil)
		}
		c.body = nil // so that what the closure holds can be collected
		c.release()
		// When w itself is in Goexit its goroutine is ending already.
		if f != nil && (returned || !f.goexit) {
			f.raise()
		}
	}()
	for _, h := range c.helpers[:threads-1] {
		// Helpers that are awake may finish all tasks while others are still being woken.
		if c.next.Load() >= c.n {
			break
		}
		if h.rest.over(start) {
			h.asked = true
			h.offer()
		}
	}
	mine = c.work(w)
	returned = true
}

// collect ends the participation of the first k helpers in the Run that began at start, of whose tasks the owner has
// executed mine.
func (c *crew) collect(k, mine int, start time.Duration) {
	asked := 0
	for _, h := range c.helpers[:k] {
		if h.asked {
			asked++
		}
	}
	var task, saved time.Duration // of the owner's tasks the average; and what each helper has spared it
	looked := false
	for _, h := range c.helpers[:k] {
		if !h.asked {
			continue
		}
		h.asked = false
		if h.dismiss() {
			continue
		}
		began := clock()
		if !looked && mine > 0 {
			task = (began - start) / time.Duration(mine)
			saved = task * time.Duration(int(c.n)-mine) / time.Duration(asked)
		}
		looked = true
		h.wait()
		if mine > 0 {
			h.rest.note(task, saved, began, clock())
		}
	}
}

// work claims and executes tasks until none is left, and returns how many. Each claim calls body, which gives the scheduler
// a point to preempt at. A failure is recorded, and takes away the tasks that are left.
func (c *crew) work(w *Worker) (tasks int) {
	returned := false
	defer func() {
		if !returned {
			c.failed.CompareAndSwap(nil, newFailure(recover()))
			c.next.Store(c.n)
		}
	}()
	for {
		i := c.next.Add(1) - 1
		if i >= c.n {
			break
		}
		c.body(w, int(i))
		tasks++
	}
	returned = true
	return tasks
}
