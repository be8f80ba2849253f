package memory

import (
	"runtime"
	"testing"
)

func TestMake(t *testing.T) {
	for _, n := range []int{0, 1, 1 << 19, 1 << 20, 5<<20 + 3} {
		x := Make[float32](n)
		if len(x) != n {
			t.Fatalf("got %d elements, want %d", len(x), n)
		}
		for i := range x {
			if x[i] != 0 {
				t.Fatalf("element %d of %d: got %v, want 0", i, n, x[i])
			}
			x[i] = float32(i)
		}
		runtime.GC()
		for i := range x {
			if x[i] != float32(i) {
				t.Fatalf("element %d of %d: got %v after a collection", i, n, x[i])
			}
		}
	}
}
