package parallel

import "time"

// When other processes or goroutines keep a core busy, a helper on it does not run for milliseconds at a time. If that
// happens while it holds a task the whole Run waits. Two threads of which one is held up so are slower than one, so a
// helper that stalled a Run is left alone for a while, and for twice as long each time that it soon does so again.
const (
	stallMin    = callerSpin             // shorter waits are no stall
	stallTasks  = 3                      // nor are waits of less than this many tasks
	stallWorth  = 2                      // nor of less than this many times what the helper's work was worth
	restMin     = time.Millisecond       // after a first stall
	restMax     = 256 * time.Millisecond // a trial costs one scheduler slice, some 4 ms: under 2 % of this
	restForgive = 20 * time.Millisecond  // this long without a stall, or as long as the last rest: the next is a first one
)

// rest is the time for which a helper gets no offers. The zero value is none.
type rest struct {
	until  time.Duration // on clock
	length time.Duration
}

// over reports whether the helper may be asked at the given time.
func (r *rest) over(now time.Duration) bool { return now >= r.until }

// note records that a Run waited for the helper from began to now. A task had taken its caller the time given on average,
// and what the helper did would have taken it saved. The wait is a stall if it is long for a task and cost more than
// the helper was worth. Tasks of very unequal length can look like that too; with them a helper is worth little.
func (r *rest) note(task, saved, began, now time.Duration) {
	if waited := now - began; waited < stallMin || waited < stallTasks*task || waited < stallWorth*saved {
		return
	}
	if r.length == 0 || began-r.until > max(restForgive, r.length) {
		r.length = restMin
	} else {
		r.length = min(2*r.length, restMax)
	}
	r.until = now + r.length
}
