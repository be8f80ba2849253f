package parallel

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

var benchSink [MaxThreads * 16]float64

// chain is a dependent chain of n multiply-adds: work that speeds up by the number of cores and by nothing else.
func chain(n int) float64 {
	x := 1.0
	for range n {
		x = x*0.999 + 0.001
	}
	return x
}

// chainFor returns how long a chain takes for d on this machine now.
func chainFor(d time.Duration) int {
	best := time.Hour
	const n = 100_000
	for range 20 {
		start := time.Now()
		benchSink[0] = chain(n)
		best = min(best, time.Since(start))
	}
	return max(1, int(float64(n)*float64(d)/float64(best)))
}

// BenchmarkRun measures Runs of 16 equal tasks back to back; work is what all tasks take together on one core. The serial
// case is a plain loop. A speed-up shows as the ratio between the cases of one work.
func BenchmarkRun(b *testing.B) {
	const tasks = 16
	for _, work := range []time.Duration{0, 5 * time.Microsecond, 20 * time.Microsecond, 100 * time.Microsecond} {
		length := chainFor(work / tasks)
		body := func(w *Worker, _ int) { benchSink[w.ID()*16] += chain(length) }
		b.Run(fmt.Sprintf("work=%v/serial", work), func(b *testing.B) {
			w := &Worker{}
			for b.Loop() {
				for i := range tasks {
					body(w, i)
				}
			}
		})
		for _, threads := range []int{1, 2, 4, 8} {
			if threads > 1 && threads > 2*runtime.NumCPU() {
				continue
			}
			b.Run(fmt.Sprintf("work=%v/threads=%d", work, threads), func(b *testing.B) {
				setThreads(b, threads)
				b.ReportAllocs()
				for b.Loop() {
					Run(tasks, body)
				}
			})
		}
	}
}

// BenchmarkRunAfterAPause leaves the helpers enough time to park before each Run, outside the measured time.
func BenchmarkRunAfterAPause(b *testing.B) {
	const tasks = 16
	for _, work := range []time.Duration{20 * time.Microsecond, 100 * time.Microsecond, time.Millisecond} {
		length := chainFor(work / tasks)
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("work=%v/threads=%d", work, threads), func(b *testing.B) {
				setThreads(b, threads)
				body := func(w *Worker, _ int) { benchSink[w.ID()*16] += chain(length) }
				var total time.Duration
				runs := 0
				for b.Loop() {
					time.Sleep(2 * helperSpin)
					start := time.Now()
					Run(tasks, body)
					total += time.Since(start)
					runs++
				}
				b.ReportMetric(float64(total.Nanoseconds())/float64(runs), "ns/Run")
			})
		}
	}
}

func BenchmarkScratch(b *testing.B) {
	w := &Worker{}
	for b.Loop() {
		benchSink[0] += float64(Scratch[float32](w, 0, 1024)[0])
	}
	for i := range w.slabs {
		w.slabs[i].drop()
	}
}
