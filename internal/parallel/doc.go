// Package parallel runs the independent tasks of one operation on the cores of the process.
//
//	Run(n, body) = body(w₀, 0), body(w₁, 1), …, body(wₙ₋₁, n−1) in any order, at most Threads() of them at a time
//
// It is made for operations that last 20 µs and more, many of them in a row, so the way in and out is short: worker
// goroutines watch for the next operation for a fraction of a millisecond before they park, tasks are claimed one by one
// from a shared counter, and Run itself allocates nothing.
//
// # Offers
//
// A Run offers its tasks to the workers and starts on them itself. Once no task is unclaimed it takes back every offer
// that was not yet accepted and waits only for workers that hold a task. A worker that the operating system has not
// scheduled therefore costs nothing, and a Run on a loaded machine is never slower than its caller alone by more than
// the one task a descheduled worker may hold. Tasks should be small enough for that (about 5–500 µs) and more numerous
// than threads.
//
// # Determinism
//
// Which worker runs which task changes from run to run. A result that must not depend on it combines values by task
// index, never by Worker.ID.
//
// # Garbage collection
//
// Every wait in this package is bounded and goes through functions that can be preempted, so it does not hold up a
// collection. A body that loops around assembly must do likewise: see the function relax.
package parallel
