package kernel

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// The vectors are those of Random123, tests/kat_vectors, philox4x32 10.
func TestPhiloxKnownAnswers(t *testing.T) {
	ones := uint32(0xffffffff)
	require.Equal(t, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, philox4x32([4]uint32{}, [2]uint32{}))
	require.Equal(t, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}, philox4x32([4]uint32{ones, ones, ones, ones}, [2]uint32{ones, ones}))
	require.Equal(t, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
		philox4x32([4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}))
}

// Every instruction set yields the words of the definition, across the carry into the high counter word too.
func TestRandomWords(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		for _, block := range []uint64{0, 1, 77, 1<<28 - 2, 1<<57 - 3} {
			for _, seed := range []uint64{0, 1, 0x0123456789abcdef, math.MaxUint64} {
				got := make([]uint32, 5*wordsPerBlock)
				randomWords(got[:4*wordsPerBlock], seed, block)
				for i, w := range got[:4*wordsPerBlock] {
					e := block*wordsPerBlock + uint64(i)
					n := (e>>6)*16 + e&15
					want := philox4x32([4]uint32{uint32(n), uint32(n >> 32)}, [2]uint32{uint32(seed), uint32(seed >> 32)})[(e>>4)&3]
					if w != want {
						require.Equal(t, want, w, "block %d seed %#x word %d", block, seed, i)
					}
				}
				require.Equal(t, make([]uint32, wordsPerBlock), got[4*wordsPerBlock:])
			}
		}
	})
}

// The decision on an element depends on its number alone: any cut of a long row gives the same, on every instruction set, in both
// precisions and in place.
func TestDropoutRow(t *testing.T) {
	const total, keep, seed, base = 5000, 0.7, 99, 1<<33 + 5
	x := allOf(total, 2)
	whole := make([]float64, total)
	wide := make([]float64, total)
	for i := range wide {
		wide[i] = 2
	}
	DropoutRow(whole, wide, seed, base, keep)
	kept := 0
	for _, v := range whole {
		if v != 0 {
			kept++
			require.InEpsilon(t, 2/keep, v, 1e-15)
		}
	}
	// Five standard deviations of a binomial.
	require.InDelta(t, keep*total, kept, 5*math.Sqrt(total*keep*(1-keep)))
	forEachISA(t, func(t *testing.T) {
		for _, n := range vecSizes() {
			if n > total {
				continue
			}
			for _, from := range []int{0, 1, 59, 64, 100} {
				if from+n > total {
					continue
				}
				g, dst := fencedCopy(x[from:from+n], 1), newFenced(n, 3)
				DropoutRow(dst.data, g.data, seed, base+uint64(from), keep)
				dst.intact(t)
				g.intact(t)
				DropoutRow(g.data, g.data, seed, base+uint64(from), keep)
				require.Equal(t, dst.data, g.data)
				for i, v := range dst.data {
					want := float32(0)
					if whole[from+i] != 0 {
						want = float32(2) * float32(1/keep)
					}
					if v != want {
						require.Equal(t, want, v, "n=%d from=%d i=%d", n, from, i)
					}
				}
			}
		}
		y := make([]float32, 100)
		DropoutRow(y, x[:100], seed, 0, 1)
		require.Equal(t, x[:100], y)
		DropoutRow(y, x[:100], seed, 0, 0)
		require.Equal(t, make([]float32, 100), y)
	})
}
