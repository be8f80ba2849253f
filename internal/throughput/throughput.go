// Package throughput is how benchmarks compare themselves with a ceiling of the machine.
package throughput

import (
	"slices"
	"testing"
	"time"
)

// Work is what one call does, and what its speed is compared with.
type Work struct {
	Ops     float64        // useful operations, or bytes, of one call
	Unit    string         // of 1e9 of them a second; "" means GFLOP/s
	Ceiling func() float64 // measures the ceiling, in Unit, for a millisecond or more; nil: no comparison
	Share   string         // the name of the share of the ceiling; "" means %peak
}

// CeilingTime is how long one look at a ceiling should take.
const CeilingTime = 2 * time.Millisecond

// blockTime is that of the calls between two looks at the ceiling.
const blockTime = 6 * time.Millisecond

// Run times f. Blocks of calls take turns with the ceiling, because the clock and the neighbours of a shared machine change
// both from one moment to the next; what is reported are medians over the blocks: of the time of a call, of the rate, and of
// the rate divided by the ceiling on both sides of the block. It returns the nanoseconds of a call.
func (w Work) Run(b *testing.B, f func()) float64 {
	b.Helper()
	var ns, shares []float64
	ceiling := func() float64 { return 1 }
	if w.Ceiling != nil {
		ceiling = w.Ceiling
	}
	before := ceiling()
	calls, spent := 0, time.Duration(0)
	end := func() {
		after := ceiling()
		each := float64(spent.Nanoseconds()) / float64(calls)
		ns = append(ns, each)
		shares = append(shares, w.Ops/each/((before+after)/2))
		before, calls, spent = after, 0, 0
	}
	for b.Loop() {
		start := time.Now()
		f()
		spent += time.Since(start)
		if calls++; spent >= blockTime {
			end()
		}
	}
	if calls > 0 && len(ns) == 0 {
		end()
	}
	each := median(ns)
	b.ReportMetric(each, "ns/op")
	unit, share := w.Unit, w.Share
	if unit == "" {
		unit = "GFLOP/s"
	}
	if share == "" {
		share = "%peak"
	}
	b.ReportMetric(w.Ops/each, unit)
	if w.Ceiling != nil {
		b.ReportMetric(100*median(shares), share)
	}
	return each
}

func median(x []float64) float64 {
	slices.Sort(x)
	return (x[len(x)/2] + x[(len(x)-1)/2]) / 2
}
