package parallel

import "time"

// When other processes or goroutines keep a core busy, a helper on it does not run for milliseconds at a time. If that
// happens while it holds a task the whole Run waits. Two threads of which one is held up so are slower than one, so a
// helper that stalled a Run is left alone for a while, and for twice as long each time that it soon does so again.
const (
	stallMin    = callerSpin             // shorter waits are no stall
	stallTasks  = 3                      // nor are waits for up to this many tasks of the caller's average length
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

// note records that a Run waited for the helper from began to now, after its caller had worked on so many tasks for the
// time given. It is a stall if it is long for a task and longer than what the caller worked: tasks as unequal as that gain
// less than a third from a helper, so not much is lost where they are the reason.
func (r *rest) note(worked time.Duration, tasks int, began, now time.Duration) {
	waited := now - began
	if tasks == 0 || waited < stallMin || waited < worked || waited < stallTasks*worked/time.Duration(tasks) {
		return
	}
	if r.length == 0 || began-r.until > max(restForgive, r.length) {
		r.length = restMin
	} else {
		r.length = min(2*r.length, restMax)
	}
	r.until = now + r.length
}
