package kernel

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// The digits of a row stand for its numbers, but for 2⁻³⁰ of the largest of their block, and the sums are those of digits.
func TestFixedRow(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		if !fixedVectorized[float32](Code8) {
			t.Skip("no instruction that multiplies bytes")
		}
		for _, coding := range []Coding{Code8, Code4} {
			testFixedRow(t, coding)
		}
	})
}

func testFixedRow(t *testing.T, coding Coding) {
	bits := 30
	if coding == Code4 {
		bits = 26
	}
	normal := normal[float32](3)
	for _, k := range []int{1, 4, 31, 32, 33, 64, 100, 257} {
		x := make([]float32, k)
		for p := range x {
			x[p] = normal() * float32(math.Pow(2, float64(p/fixedBlock%5*40-90)))
		}
		for _, last := range []float32{x[k-1], 0, math.MaxFloat32, -0x1.fffffep127, 0x1p-126, 1, 0x1.fffffep0} {
			x[k-1] = last
			blocks := tasks(k, fixedBlock)
			scales := newFenced(2*blocks, 1)
			r := fixedRow{make([]int8, 128*blocks+1), scales.data, make([]int32, 4*blocks+1), false}
			require.True(t, r.fix(coding, x, -8))
			scales.intact(t)
			require.Zero(t, r.x[128*blocks])
			require.Zero(t, r.sums[4*blocks])
			for b := range blocks {
				var largest float64
				for p := b * fixedBlock; p < min(k, (b+1)*fixedBlock); p++ {
					largest = max(largest, math.Abs(float64(x[p])))
				}
				var want [fixedDigits]int32
				var values [fixedBlock]float64
				for i := range values {
					for l := range fixedDigits {
						d := r.x[128*b+16*(i/4)+4*l+i%4]
						values[i] += math.Ldexp(float64(d), 8*l)
						weight := int32(-8)
						if coding == Code4 && i%8 >= 4 {
							weight *= 17
						}
						want[l] += weight * int32(d)
					}
				}
				for i, value := range values {
					if coding == Code4 && i%8 < 4 {
						value += values[i+4]
					} else if coding == Code4 {
						value *= 16
					}
					var exact float64
					if p := b*fixedBlock + i; p < k {
						exact = float64(x[p])
					}
					require.InDelta(t, exact, value*float64(r.scales[2*b]), math.Max(math.Ldexp(largest, -bits), math.Ldexp(1, -97-bits)), "k=%d block %d element %d", k, b, i)
				}
				require.Equal(t, want[:], r.sums[4*b:4*b+4])
				require.Equal(t, 0x1p16*r.scales[2*b], r.scales[2*b+1])
			}
		}
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1))} {
			x[k/2] = bad
			r := fixedRow{make([]int8, 128*tasks(k, 32)), make([]float32, 2*tasks(k, 32)), make([]int32, 4*tasks(k, 32)), false}
			require.False(t, r.fix(coding, x, -1))
		}
	}
}
