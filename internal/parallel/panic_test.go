package parallel

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// catch returns what f panics with.
func catch(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

//go:noinline
func blowUp(v any) { panic(v) }

func TestPanicReachesTheCaller(t *testing.T) {
	for _, threads := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("threads=%d", threads), func(t *testing.T) {
			setProcs(t, 2)
			setThreads(t, threads)
			for at := range 9 {
				v := catch(func() {
					Run(9, func(_ *Worker, i int) {
						if i == at {
							blowUp(fmt.Errorf("task %d: %w", i, io.ErrUnexpectedEOF))
						}
					})
				})
				p, ok := v.(*Panic)
				require.True(t, ok, "got %T", v)
				require.ErrorIs(t, p, io.ErrUnexpectedEOF)
				require.Contains(t, p.Error(), fmt.Sprintf("task %d: unexpected EOF", at))
				require.Contains(t, string(p.Stack), "blowUp", "the stack of the goroutine that panicked")
				checkRun(t, 59, threads)
			}
		})
	}
}

// One panic on a helper while the caller's own task runs on, whichever of them is which.
func TestPanicOnAHelper(t *testing.T) {
	setProcs(t, 2)
	setThreads(t, 2)
	rouse(t)
	var meet sync.WaitGroup
	meet.Add(2)
	var finished atomic.Bool
	v := catch(func() {
		Run(2, func(w *Worker, _ int) {
			meet.Done()
			meet.Wait()
			if w.ID() == 1 {
				var none []int
				none[w.ID()] = 0
			}
			finished.Store(true)
		})
	})
	require.True(t, finished.Load(), "the caller's task is completed first")
	p, ok := v.(*Panic)
	require.True(t, ok, "got %T", v)
	var re runtime.Error
	require.True(t, errors.As(p, &re))
	require.Contains(t, re.Error(), "index out of range")
	checkRun(t, 59, 2)
}

func TestPanicWithoutAnError(t *testing.T) {
	setThreads(t, 2)
	p := catch(func() { Run(3, func(*Worker, int) { panic(17) }) }).(*Panic)
	require.Equal(t, 17, p.Value)
	require.NoError(t, p.Unwrap())
	require.Contains(t, p.Error(), "17")
}

func TestPanicInEveryTask(t *testing.T) {
	setProcs(t, 4)
	setThreads(t, 4)
	for range 100 {
		v := catch(func() { Run(40, func(_ *Worker, i int) { panic(i) }) })
		require.IsType(t, (*Panic)(nil), v)
	}
	checkRun(t, 59, 4)
}

func TestPanicDropsUnclaimedTasks(t *testing.T) {
	setThreads(t, 1)
	calls := 0
	require.NotNil(t, catch(func() { Run(100, func(_ *Worker, i int) { calls++; panic(i) }) }))
	require.Equal(t, 1, calls)
	setThreads(t, 3)
	var many atomic.Int32
	require.NotNil(t, catch(func() { Run(100, func(_ *Worker, i int) { many.Add(1); panic(i) }) }))
	require.LessOrEqual(t, many.Load(), int32(3), "each worker runs one task at most")
}

// A nested Run's panic keeps its own value and stack instead of being wrapped twice.
func TestPanicInANestedRun(t *testing.T) {
	setThreads(t, 3)
	p := catch(func() {
		Run(4, func(*Worker, int) {
			Run(4, func(*Worker, int) { blowUp("deep") })
		})
	}).(*Panic)
	require.Equal(t, "deep", p.Value)
	checkRun(t, 59, 3)
}

// A failing require in a body calls runtime.Goexit on whatever goroutine runs it.
func TestGoexitEndsTheCaller(t *testing.T) {
	setProcs(t, 2)
	for _, c := range []struct{ threads, exits int }{{1, 0}, {2, 0}, {2, 1}} {
		t.Run(fmt.Sprintf("threads=%d/worker=%d", c.threads, c.exits), func(t *testing.T) {
			setThreads(t, c.threads)
			for range 20 {
				rouse(t)
				var meet sync.WaitGroup
				meet.Add(c.threads)
				reached, done := false, make(chan any)
				go func() {
					defer func() { done <- recover() }()
					Run(2*c.threads, func(w *Worker, i int) {
						if i < c.threads {
							meet.Done()
							meet.Wait()
						}
						if w.ID() == c.exits {
							runtime.Goexit()
						}
					})
					reached = true
				}()
				require.Nil(t, <-done, "no panic")
				require.False(t, reached, "Run does not return")
				checkRun(t, 59, c.threads)
			}
		})
	}
}
