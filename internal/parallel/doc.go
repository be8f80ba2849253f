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
// that was not yet accepted and waits only for workers that hold a task. A worker that the operating system does not
// schedule therefore costs nothing, unless it loses its core while it holds a task. A worker to which that happens gets
// no offers for a while, longer each time, so that on a machine whose other cores are taken a Run is about as fast as a
// plain loop.
//
// Tasks must not wait for each other: any number of workers, the caller alone included, may execute them. They should be
// of similar length, from some microseconds to about a millisecond, and several times as many as threads.
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
