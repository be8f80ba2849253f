package kernel

import "testing"

// Prefetch has no result; what can go wrong is a size that makes it run away or touch what is not there.
func TestPrefetchTakesAnySize(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 17, 64, 100} {
		for _, rows := range []int{-1, 0, 1, 3, 5000} {
			for _, length := range []int{0, 1, 99, 100, 1000} {
				Prefetch(make([]float32, length), 100, rows, n)
				Prefetch(make([]float64, length)[min(1, length):], 100, rows, n)
			}
		}
	}
	Prefetch(make([]float32, 10), 0, 3, 5)
	if n := testing.AllocsPerRun(10, func() { Prefetch(prefetchInput[:], 8, 4, 8) }); n != 0 {
		t.Fatalf("got %v allocations, want none", n)
	}
}

var prefetchInput [64]float32
