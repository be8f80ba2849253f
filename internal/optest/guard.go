package optest

import (
	"math"
	"testing"

	"stheno/internal/kernel"
)

const fence = 64

// Guard is a slice between two fences of a known NaN, at an offset that defeats alignment.
type Guard[T kernel.Float] struct {
	Data []T
	all  []T
}

// canary is a NaN whose payload no arithmetic makes.
const canary = 0x7fc0beef

// NewGuard returns n guarded elements, filled with the canary, starting offset elements into an allocation.
func NewGuard[T kernel.Float](n, offset int) *Guard[T] {
	all := make([]T, fence+offset+n+fence)
	for i := range all {
		all[i] = nan[T]()
	}
	return &Guard[T]{Data: all[fence+offset : fence+offset+n : fence+offset+n], all: all}
}

// Check fails the test if anything outside Data was written.
func (g *Guard[T]) Check(t testing.TB, what string) {
	t.Helper()
	off := len(g.all) - fence - len(g.Data)
	for i, v := range g.all {
		if i >= off && i < off+len(g.Data) {
			continue
		}
		if !isCanary(v) {
			t.Fatalf("%s: wrote %v at element %d of a slice of %d", what, v, i-off, len(g.Data))
		}
	}
}

func nan[T kernel.Float]() T {
	switch any(T(0)).(type) {
	case float32:
		return T(math.Float32frombits(canary))
	default:
		return any(math.Float64frombits(canary<<32 | canary)).(T)
	}
}

func isCanary[T kernel.Float](v T) bool {
	switch v := any(v).(type) {
	case float32:
		return math.Float32bits(v) == canary
	case float64:
		return math.Float64bits(v) == canary<<32|canary
	}
	return false
}
