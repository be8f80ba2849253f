package optest

import (
	"math/rand/v2"

	"stheno/internal/kernel"
)

// Normal returns n numbers from N(0, sigma²), the same for the same seed.
func Normal[T kernel.Float](seed uint64, n int, sigma float64) []T {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	out := make([]T, n)
	for i := range out {
		out[i] = T(r.NormFloat64() * sigma)
	}
	return out
}

// Ints returns n integers in [0, below), the same for the same seed.
func Ints(seed uint64, n, below int) []int {
	r := rand.New(rand.NewPCG(seed, 0xbf58476d1ce4e5b9))
	out := make([]int, n)
	for i := range out {
		out[i] = r.IntN(below)
	}
	return out
}

// Awkward are sizes at which kernels break: empty, single, around vector widths, primes, just past a power of two.
var Awkward = []int{0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 59, 63, 64, 65, 97, 257, 1025}
