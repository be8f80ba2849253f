package kernel

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Codes and what they stand for, of part of a matrix, are those of plain loops on every instruction set, and nothing beside the part is
// touched.
func TestKVCodesAreCodedAndDecoded(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(9, 10))
		for _, size := range [][4]int{{16, 16, 16, 16}, {64, 64, 64, 64}, {64, 64, 59, 50}, {32, 80, 32, 79}, {48, 112, 33, 100}, {128, 256, 111, 200}} {
			for _, scheme := range []struct {
				bits   int
				minima bool
			}{{8, false}, {8, true}, {4, true}} {
				rows, cols := size[0], size[1]
				m := randomKVCodes(r, scheme.bits, rows, cols, scheme.minima)
				m.Scales[r.IntN(rows)] = 0
				top := float64(int(1)<<scheme.bits - 1)
				// number is one for row i: between two codes, at one, or beyond.
				number := func(i int) float32 {
					s, low := m.Row(i)
					return float32(float64(low) + float64(s)*(float64(r.IntN(int(4*top)))/2-top/2))
				}
				code := func(i int, x float32) int {
					s, low := m.Row(i)
					if s == 0 {
						return 0
					}
					return int(max(0, min(top, math.RoundToEven((float64(x)-float64(low))*(1/float64(s))))))
				}
				value := func(i, c int) float32 {
					s, low := m.Row(i)
					return float32(float64(s)*float64(c) + float64(low))
				}
				want := make([]int, rows*cols)
				for i := range want {
					want[i] = m.Code(i/cols, i%cols)
				}
				check := func() {
					t.Helper()
					for i, w := range want {
						if got := m.Code(i/cols, i%cols); got != w {
							t.Fatalf("%v of %v: code (%d, %d): got %d, want %d", scheme, size, i/cols, i%cols, got, w)
						}
					}
				}
				n0 := r.IntN(size[3])
				n1 := n0 + 1 + r.IntN(size[3]-n0)
				ld := size[2] + 3
				x := make([]float32, (n1-n0)*ld)
				for i := range x {
					x[i] = float32(math.NaN())
					if c := i % ld; c < size[2] {
						x[i] = number(c)
						want[c*cols+n0+i/ld] = code(c, x[i])
					}
				}
				m.QuantizeCols(x, ld, size[2], n0, n1)
				check()
				row, xs := r.IntN(rows), make([]float32, size[3])
				for i := range xs {
					xs[i] = number(row)
					want[row*cols+i] = code(row, xs[i])
				}
				m.QuantizeRow(row, xs)
				check()

				got, before := make([]float32, len(x)), make([]float32, len(x))
				for i := range got {
					got[i] = float32(r.NormFloat64())
					before[i] = got[i]
				}
				for i := range before {
					if c := i % ld; c < size[2] {
						before[i] = value(c, want[c*cols+n0+i/ld])
					}
				}
				m.DequantizeCols(got, ld, size[2], n0, n1)
				requireBits(t, before, got)
				last := min(rows, row+5)
				ld = size[3] + 2
				got, before = make([]float32, (last-row)*ld), make([]float32, (last-row)*ld)
				for i := range got {
					got[i] = float32(r.NormFloat64())
					before[i] = got[i]
					if c := i % ld; c < size[3] {
						before[i] = value(row+i/ld, want[(row+i/ld)*cols+c])
					}
				}
				m.DequantizeRows(got, ld, size[3], row, last)
				requireBits(t, before, got)
			}
		}
	})
}

// The transform is that of the matrix H(i, j) = (−1)^popcount(i & j)/√n, and has the bits of plain loops on every instruction set.
func TestHadamard(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(11, 12))
		for block := 1; block <= 1024; block *= 2 {
			for _, blocks := range []int{1, 3} {
				x := make([]float32, block*blocks)
				for i := range x {
					x[i] = float32(r.NormFloat64())
				}
				want, got := append([]float32(nil), x...), append([]float32(nil), x...)
				for i := range blocks {
					hadamard(want[i*block:][:block], float32(1/math.Sqrt(float64(block))))
				}
				Hadamard(got, block)
				requireBits(t, want, got)
				for i := range got[:block] {
					var sum, size float64
					for j, v := range x[:block] {
						size += math.Abs(float64(v))
						sign := 1.0
						for b := i & j; b > 0; b &= b - 1 {
							sign = -sign
						}
						sum += sign * float64(v)
					}
					// A sum and a difference for each bit of the size, the norm and the product with it are rounded; many of them, not all in the
					// same direction.
					norm := math.Sqrt(float64(block))
					require.InDelta(t, sum/norm, got[i], min(1e-5, float64(bits.Len(uint(block))+1)*0x1p-24*size/norm))
				}
			}
		}
	})
}
