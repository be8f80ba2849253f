package kernel

import (
	"sync"
	"time"
)

// MeasurePeak returns the GFLOP/s that the active instruction set reaches in float32 with the given number of threads
// (at least 1) in a loop of independent multiply-adds between registers, a multiply-add counted as two operations. It
// takes about 0.1 s and returns the best of several rounds.
//
// The clock of a processor depends on what it has just done, by a tenth and more: a benchmark is compared with
// SamplePeak, taken in turn with it.
func MeasurePeak(threads int) float64 {
	best := 0.0
	for range 10 {
		best = max(best, SamplePeak(threads, 10*time.Millisecond))
	}
	return best
}

// SamplePeak is the rate of MeasurePeak over one stretch of time.
func SamplePeak(threads int, d time.Duration) float64 {
	return sampleRate(threads, d, func(int) float64 { return peakRound() })
}

// sampleRate is the rate, in 10⁹ a second over a time d, at which goroutines together do what round, which is given the
// goroutine's number and runs for some microseconds, says that it has done.
func sampleRate(threads int, d time.Duration, round func(thread int) float64) float64 {
	done := make([]float64, max(1, threads))
	var all sync.WaitGroup
	start := time.Now()
	run := func(t int) {
		for until := start.Add(d); time.Now().Before(until); {
			done[t] += round(t)
		}
	}
	for t := 1; t < len(done); t++ {
		all.Go(func() { run(t) })
	}
	run(0)
	all.Wait()
	sum := 0.0
	for _, x := range done {
		sum += x
	}
	return sum / time.Since(start).Seconds() / 1e9
}

// peakRound runs for some microseconds and returns the number of operations.
func peakRound() float64 {
	if vectorized[float32]() {
		return peakSIMD(1 << 12)
	}
	return peakGeneric(1 << 12)
}

// peakSink keeps the compiler from leaving peakGeneric's sums out.
var peakSink float32

// peakGeneric is the loop in portable Go.
func peakGeneric(rounds int) (flops float64) {
	var a, b, c, d, e, f, g, h float32 = 1, 2, 3, 4, 5, 6, 7, 8
	const x, y float32 = 0.5, 1
	for range rounds {
		a = a*x + y
		b = b*x + y
		c = c*x + y
		d = d*x + y
		e = e*x + y
		f = f*x + y
		g = g*x + y
		h = h*x + y
	}
	if s := a + b + c + d + e + f + g + h; s < 0 {
		peakSink = s
	}
	return float64(rounds) * 8 * 2
}
