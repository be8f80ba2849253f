package parallel

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

const benchTasks = 16

var benchSink [MaxThreads * 16]float64 // one cache line pair for each worker

// chain is a dependent chain of n multiply-adds: work that speeds up by the number of cores and by nothing else.
//
//go:noinline
func chain(x float64, n int) float64 {
	for range n {
		x = x*0.999 + 0.001
	}
	return x
}

// bodyFor returns a body of which benchTasks calls take about work together, on one core of this machine as it is now.
func bodyFor(work time.Duration) func(w *Worker, i int) {
	const n = 10_000
	best := time.Hour
	for range 200 {
		start := time.Now()
		benchSink[0] = chain(0.5, n)
		best = min(best, time.Since(start))
	}
	length := int(n * float64(work) / benchTasks / float64(best))
	return func(w *Worker, _ int) {
		s := &benchSink[w.ID()*16]
		*s = chain(*s, length)
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// BenchmarkRun compares Runs of 16 equal tasks, eight of them back to back, with as many plain loops over the same tasks
// just before. work is what the tasks of a Run take together on one core. It reports the medians of both in ns for each
// Run, the median and the mean of their ratio: on a machine that does other things too, only the ratio means much.
func BenchmarkRun(b *testing.B) {
	const block = 8
	for _, work := range []time.Duration{0, 5 * time.Microsecond, 20 * time.Microsecond, 100 * time.Microsecond} {
		for _, threads := range []int{1, 2, 4, 8, 16} {
			if threads > 1 && threads > 2*runtime.NumCPU() {
				continue
			}
			b.Run(fmt.Sprintf("work=%v/threads=%d", work, threads), func(b *testing.B) {
				setThreads(b, threads)
				body := bodyFor(work)
				rouse(b)
				w := &Worker{}
				var serial, pool, ratio []float64
				var serialSum, poolSum float64
				for b.Loop() {
					start := time.Now()
					for range block {
						for i := range benchTasks {
							body(w, i)
						}
					}
					s := float64(time.Since(start)) / block
					start = time.Now()
					for range block {
						Run(benchTasks, body)
					}
					p := float64(time.Since(start)) / block
					serial, pool, ratio = append(serial, s), append(pool, p), append(ratio, s/p)
					serialSum, poolSum = serialSum+s, poolSum+p
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(serial), "serial-ns")
				b.ReportMetric(median(pool), "pool-ns")
				b.ReportMetric(median(ratio), "speedup")
				b.ReportMetric(serialSum/poolSum, "mean-speedup")
			})
		}
	}
}

// BenchmarkRunAfterAPause lets the helpers park before each Run and times the Run only.
func BenchmarkRunAfterAPause(b *testing.B) {
	for _, work := range []time.Duration{20 * time.Microsecond, 100 * time.Microsecond, time.Millisecond} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("work=%v/threads=%d", work, threads), func(b *testing.B) {
				setThreads(b, threads)
				body := bodyFor(work)
				var took []float64
				for b.Loop() {
					time.Sleep(2 * helperSpin)
					start := time.Now()
					Run(benchTasks, body)
					took = append(took, float64(time.Since(start)))
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(took), "pool-ns")
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
