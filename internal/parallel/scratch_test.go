package parallel

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// onWorker runs f in a body on the caller's goroutine.
func onWorker(f func(w *Worker)) { Run(1, func(w *Worker, _ int) { f(w) }) }

func checkScratch[T any](t *testing.T, slot, n int) {
	onWorker(func(w *Worker) {
		s := Scratch[T](w, slot, n)
		require.Len(t, s, n)
		require.Equal(t, n, cap(s), "an append must not run into what follows")
		if n > 0 && unsafe.Sizeof(s[0]) > 0 {
			require.Zero(t, uintptr(unsafe.Pointer(&s[0]))%scratchAlign, "alignment")
		}
		clear(s)
	})
}

func TestScratchAlignedAndOfTheLengthAsked(t *testing.T) {
	type pair struct {
		a int8
		b [3]float64
	}
	for _, n := range []int{0, 1, 15, 16, 17, 59, 97, 1025, 100_003} {
		for slot := range Slots {
			checkScratch[float32](t, slot, n)
			checkScratch[float64](t, slot, n)
			checkScratch[int8](t, slot, n)
			checkScratch[complex128](t, slot, n)
			checkScratch[pair](t, slot, n)
			checkScratch[struct{}](t, slot, n)
		}
	}
}

func TestScratchIsKeptAndGrows(t *testing.T) {
	setThreads(t, 1)
	ReleaseScratch()
	var first *float32
	onWorker(func(w *Worker) { first = &Scratch[float32](w, 0, 1000)[0] })
	held := ScratchBytes()
	onWorker(func(w *Worker) {
		require.Same(t, first, &Scratch[float32](w, 0, 1000)[0])
		require.Same(t, first, &Scratch[float32](w, 0, 10)[0], "a smaller request takes the same memory")
		require.Equal(t, unsafe.Pointer(first), unsafe.Pointer(&Scratch[int8](w, 0, 4000)[0]), "so does another type")
	})
	require.Equal(t, held, ScratchBytes())
	onWorker(func(w *Worker) { Scratch[float32](w, 0, 2000) })
	require.Greater(t, ScratchBytes(), held)
}

// One more element each time: reallocations are few and the waste is at most an eighth and a few cache lines.
func TestScratchGrowsInSteps(t *testing.T) {
	setThreads(t, 1)
	ReleaseScratch()
	grown, held := 0, ScratchBytes()
	for n := 1; n <= 10_000; n++ {
		onWorker(func(w *Worker) { Scratch[float32](w, 0, n) })
		if now := ScratchBytes(); now != held {
			grown, held = grown+1, now
		}
		require.GreaterOrEqual(t, held, int64(4*n))
		require.LessOrEqual(t, held, int64(4*n)*9/8+3*scratchAlign)
	}
	require.Less(t, grown, 80)
}

func TestScratchSlotsAreApart(t *testing.T) {
	onWorker(func(w *Worker) {
		var all [Slots][]int32
		for slot := range all {
			all[slot] = Scratch[int32](w, slot, 97)
			for i := range all[slot] {
				all[slot][i] = int32(slot)
			}
		}
		for slot, s := range all {
			for i := range s {
				require.EqualValues(t, slot, s[i])
			}
		}
	})
}

// Workers of one Run, of concurrent Runs and of nested Runs all have memory of their own.
func TestScratchWorkersAreApart(t *testing.T) {
	setProcs(t, 4)
	setThreads(t, 4)
	fill := func(w *Worker, v int64) []int64 {
		s := Scratch[int64](w, 1, 59)
		for i := range s {
			s[i] = v
		}
		runtime.Gosched()
		return s
	}
	check := func(s []int64, v int64) {
		for i := range s {
			if s[i] != v {
				t.Errorf("element %d: got %d, want %d", i, s[i], v)
				return
			}
		}
	}
	var wg sync.WaitGroup
	for g := range int64(3) {
		wg.Go(func() {
			for range 50 {
				Run(20, func(w *Worker, i int) {
					v := g<<32 | int64(i)<<8
					s := fill(w, v)
					Run(2, func(w *Worker, j int) { check(fill(w, v+int64(j)), v+int64(j)) })
					check(s, v)
				})
			}
		})
	}
	wg.Wait()
}

func TestReleaseScratch(t *testing.T) {
	setProcs(t, 4)
	setThreads(t, 4)
	rouse(t)
	var meet sync.WaitGroup
	meet.Add(4)
	use := func(w *Worker, _ int) {
		meet.Done()
		meet.Wait()
		Scratch[byte](w, 15, 1<<20)
	}
	Run(4, use)
	require.GreaterOrEqual(t, ScratchBytes(), int64(4<<20), "all four workers hold theirs")
	ReleaseScratch()
	require.Zero(t, ScratchBytes())
	rouse(t)
	meet.Add(4)
	Run(4, use)
	require.GreaterOrEqual(t, ScratchBytes(), int64(4<<20), "and get it anew")
	ReleaseScratch()
	require.Zero(t, ScratchBytes())
}

// In the middle of a Run the memory stays usable, and is freed when the Run has ended.
func TestReleaseScratchDuringARun(t *testing.T) {
	setProcs(t, 2)
	setThreads(t, 2)
	ReleaseScratch()
	Run(8, func(w *Worker, i int) {
		s := Scratch[int](w, 0, 1025)
		for j := range s {
			s[j] = i
		}
		ReleaseScratch()
		for j := range s {
			if s[j] != i {
				t.Errorf("element %d: got %d, want %d", j, s[j], i)
				return
			}
		}
	})
	require.Zero(t, ScratchBytes())
}

func TestReleaseScratchAgainstRuns(t *testing.T) {
	setProcs(t, 2)
	setThreads(t, 3)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 300 {
				Run(9, func(w *Worker, i int) { Scratch[int](w, i, 97)[96] = i })
				ReleaseScratch()
			}
		})
	}
	wg.Wait()
	ReleaseScratch()
	require.Zero(t, ScratchBytes())
}

func TestScratchRefusesBadRequests(t *testing.T) {
	message := func(f func(w *Worker)) string {
		p, ok := catch(func() { onWorker(f) }).(*Panic)
		require.True(t, ok)
		return fmt.Sprint(p.Value)
	}
	require.Equal(t, "parallel: Scratch: got slot 24, want 0 to 23", message(func(w *Worker) { Scratch[int8](w, Slots, 1) }))
	require.Equal(t, "parallel: Scratch: got slot -1, want 0 to 23", message(func(w *Worker) { Scratch[int8](w, -1, 1) }))
	require.Contains(t, message(func(w *Worker) { Scratch[int8](w, 0, -1) }), "got n = -1")
	require.Contains(t, message(func(w *Worker) { Scratch[int64](w, 0, 1<<(bitsOfInt-3)) }), "want 0 or more that fit in memory")
	require.Contains(t, message(func(w *Worker) { Scratch[*int](w, 0, 1) }), "*int")
	require.Contains(t, message(func(w *Worker) { Scratch[string](w, 0, 1) }), "string")
	require.Contains(t, message(func(w *Worker) { Scratch[[2]struct{ p []int }](w, 0, 1) }), "without pointers")
	require.Contains(t, message(func(w *Worker) { Scratch[any](w, 0, 1) }), "without pointers")
}

const bitsOfInt = 32 << (^uint(0) >> 63)
