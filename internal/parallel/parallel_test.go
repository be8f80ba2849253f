package parallel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// setThreads gives the test n threads and the count before it back afterwards.
func setThreads(t testing.TB, n int) {
	old := chosen.Load()
	_, err := SetThreads(n)
	require.NoError(t, err)
	t.Cleanup(func() { chosen.Store(old) })
}

// setProcs sets GOMAXPROCS for the length of the test.
func setProcs(t testing.TB, n int) {
	old := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(old) })
}

// checkRun requires that one Run over n tasks calls each exactly once, under IDs that at most one goroutine at a time uses
// and that are below limit.
func checkRun(t testing.TB, n, limit int) {
	counts := make([]atomic.Int32, max(n, 0))
	var inUse [MaxThreads]atomic.Bool
	var badID, shared atomic.Int32
	Run(n, func(w *Worker, i int) {
		counts[i].Add(1)
		id := w.ID()
		if id < 0 || id >= limit {
			badID.Add(1)
			return
		}
		if inUse[id].Swap(true) {
			shared.Add(1)
		}
		if i%7 == 0 {
			runtime.Gosched()
		}
		inUse[id].Store(false)
	})
	for i := range counts {
		require.EqualValues(t, 1, counts[i].Load(), "calls of task %d of %d", i, n)
	}
	require.Zero(t, badID.Load(), "tasks of %d with a worker number outside [0, %d)", n, limit)
	require.Zero(t, shared.Load(), "tasks of %d whose worker was in use elsewhere", n)
}

func TestRunCallsEachTaskOnce(t *testing.T) {
	for _, procs := range []int{1, 2, 4} {
		for _, threads := range []int{1, 2, 3, 8, 33} {
			t.Run(fmt.Sprintf("procs=%d/threads=%d", procs, threads), func(t *testing.T) {
				setProcs(t, procs)
				setThreads(t, threads)
				for range 20 {
					for _, n := range []int{-1, 0, 1, 2, 3, 59, 97, 1025} {
						checkRun(t, n, max(1, min(threads, n)))
					}
				}
			})
		}
	}
}

// A Run's writes are visible to its caller afterwards and the caller's to its bodies: the race detector watches.
func TestRunOrdersMemory(t *testing.T) {
	setThreads(t, 4)
	a := make([]int, 97)
	sum := 0
	for round := range 500 {
		Run(len(a), func(_ *Worker, i int) { a[i] += i + round - sum })
		for i, v := range a {
			require.Equal(t, i, v)
			a[i] = 0
		}
		sum++
	}
}

// Two tasks that wait for each other need two goroutines: the helpers do take part, also after they have parked.
func TestHelpersTakePart(t *testing.T) {
	setProcs(t, 4)
	setThreads(t, 4)
	for range 50 {
		rouse(t)
		var meet sync.WaitGroup
		meet.Add(4)
		var ids [4]atomic.Int32
		Run(4, func(w *Worker, _ int) {
			ids[w.ID()].Add(1)
			meet.Done()
			meet.Wait()
		})
		for id := range ids {
			require.EqualValues(t, 1, ids[id].Load(), "tasks of worker %d", id)
		}
		parkAll(t, 3)
	}
}

// parkAll waits until the first n helpers sleep.
func parkAll(t testing.TB, n int) {
	require.True(t, shared.acquire())
	hs := shared.helpers[:n]
	shared.release()
	for _, h := range hs {
		for h.state.Load() != parked {
			runtime.Gosched()
		}
	}
}

func TestThreads(t *testing.T) {
	old := chosen.Load()
	t.Cleanup(func() { chosen.Store(old) })

	chosen.Store(0)
	require.Equal(t, min(runtime.GOMAXPROCS(0), runtime.NumCPU()), Threads())
	setProcs(t, 1)
	require.Equal(t, 1, Threads(), "the default follows GOMAXPROCS")

	got, err := SetThreads(5)
	require.NoError(t, err)
	require.Equal(t, 1, got)
	require.Equal(t, 5, Threads())
	for _, n := range []int{0, -3, MaxThreads + 1} {
		got, err = SetThreads(n)
		require.EqualError(t, err, fmt.Sprintf("parallel: SetThreads: got %d threads, want 1 to 1024", n))
		require.Equal(t, 5, got)
		require.Equal(t, 5, Threads(), "an error changes nothing")
	}
	got, err = SetThreads(MaxThreads)
	require.NoError(t, err)
	require.Equal(t, 5, got)
}

// The count holds for each Run anew: with 1 after 4, no helper runs a task.
func TestThreadsAreHonouredAtEveryRun(t *testing.T) {
	for _, threads := range []int{4, 1, 3, 1, 2} {
		setThreads(t, threads)
		for range 100 {
			checkRun(t, 59, threads)
		}
	}
}

func TestNestedRun(t *testing.T) {
	setProcs(t, 2)
	setThreads(t, 3)
	for range 50 {
		var calls atomic.Int32
		Run(7, func(outer *Worker, i int) {
			Run(5, func(mid *Worker, j int) {
				if mid == outer || mid.ID() != 0 {
					calls.Add(1 << 20)
				}
				Run(3, func(inner *Worker, k int) {
					if inner == mid || inner == outer {
						calls.Add(1 << 20)
					}
					calls.Add(1)
				})
			})
		})
		require.EqualValues(t, 7*5*3, calls.Load())
	}
}

func TestConcurrentRuns(t *testing.T) {
	for _, procs := range []int{1, 2, 4} {
		setProcs(t, procs)
		setThreads(t, 4)
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for r := range 200 {
					n := (g*31 + r) % 60
					var sum atomic.Int64
					Run(n, func(_ *Worker, i int) { sum.Add(int64(i)) })
					if got, want := sum.Load(), int64(n*(n-1)/2); got != want {
						t.Errorf("sum over %d tasks: got %d, want %d", n, got, want)
					}
				}
			})
		}
		wg.Wait()
	}
}

// Changing the count while Runs are in flight neither loses nor repeats tasks.
func TestSetThreadsDuringRuns(t *testing.T) {
	setThreads(t, 1)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; !stop.Load(); n = n%9 + 1 {
			_, _ = SetThreads(n)
			runtime.Gosched()
		}
	})
	for range 500 {
		checkRun(t, 20, 9)
	}
	stop.Store(true)
	wg.Wait()
}

func TestRunDoesNotAllocate(t *testing.T) {
	setThreads(t, 4)
	var sum atomic.Int64
	body := func(w *Worker, i int) {
		s := Scratch[float32](w, 3, 100+i)
		s[i] = 1
		sum.Add(1)
	}
	require.Zero(t, testing.AllocsPerRun(200, func() { Run(16, body) }), "GOMAXPROCS=1, 4 threads")

	// AllocsPerRun itself sets GOMAXPROCS to 1, so with real helpers the count is taken by hand.
	setProcs(t, 2)
	const runs = 2000
	var before, after runtime.MemStats
	for range runs {
		Run(16, body)
	}
	runtime.ReadMemStats(&before)
	for range runs {
		Run(16, body)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.Mallocs-before.Mallocs, uint64(runs/20), "allocations in %d Runs", runs)

	_, err := SetThreads(1)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(200, func() { Run(16, body) }), "1 thread")
}

// A helper that the scheduler never runs: the Run takes its offer back and does not wait.
func TestRunDoesNotWaitForAHelperThatNeverStarts(t *testing.T) {
	for _, state := range []uint32{idle, parked} {
		c := new(crew)
		h := &helper{crew: c, wake: make(chan struct{}, 1), done: make(chan struct{}, 1)} // and no goroutine
		h.state.Store(state)
		c.helpers = []*helper{h}
		for range 3 {
			require.True(t, c.acquire())
			calls := 0
			c.run(new(Worker), 2, 5, func(*Worker, int) { calls++ })
			require.Equal(t, 5, calls)
			require.Equal(t, idle, h.state.Load())
			require.False(t, c.busy.Load())
		}
		want := 0
		if state == parked {
			want = 1
		}
		require.Len(t, h.wake, want, "a sleeping helper gets one token, however many offers")
	}
}
