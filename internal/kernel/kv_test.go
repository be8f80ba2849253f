package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// randomKVCodes is a matrix of random codes, with scales and minima of several magnitudes.
func randomKVCodes(r *rand.Rand, bits, rows, cols int, minima bool) *KVCodes {
	m := &KVCodes{Bits: bits, Rows: rows, Cols: cols, Codes: make([]uint8, KVCodeLen(bits, rows, cols)), Scales: make([]uint16, rows)}
	for i := range m.Codes {
		m.Codes[i] = uint8(r.UintN(256))
	}
	for i := range m.Scales {
		m.Scales[i] = Float16Bits(float32(math.Exp(r.NormFloat64() - 3)))
	}
	if minima {
		m.Mins = make([]uint16, rows)
		for i := range m.Mins {
			m.Mins[i] = Float16Bits(float32(r.NormFloat64()))
		}
	}
	return m
}

var kvSizes = [][2]int{{16, 16}, {32, 16}, {16, 32}, {64, 64}, {48, 80}, {64, 96}, {80, 112}, {128, 64}, {256, 128}, {16, 0}}

// Each product is compared with float64 on the same codes. The bar is twice the error of a loop in float32 that adds one product after
// the other, with a floor of a unit in the last place of Σ|x|·(scale·code + |min|), whose terms are what is added up.
func TestKVProductsAgainstFloat64(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, size := range kvSizes {
			rows, cols := size[0], size[1]
			for _, scheme := range []struct {
				bits   int
				minima bool
			}{{8, false}, {8, true}, {4, true}, {16, false}} {
				name := fmt.Sprint(rows, "×", cols, " ", scheme)
				value, terms := func(row, n int) float64 { return 0 }, func(row, n int) float64 { return 0 }
				x := make([]float32, rows)
				for i := range x {
					x[i] = float32(r.NormFloat64())
				}
				const guard = 16
				all := make([]float32, guard+cols+guard)
				for i := range all {
					all[i] = float32(r.NormFloat64())
				}
				before := append([]float32(nil), all...)
				y := all[guard : guard+cols : guard+cols]
				if scheme.bits == 16 {
					ld := cols + 3
					w := make([]uint16, rows*ld)
					for i := range w {
						w[i] = Float16Bits(float32(r.NormFloat64()))
					}
					value = func(row, n int) float64 { return float64(Float16Value(w[row*ld+n])) }
					terms = func(row, n int) float64 { return math.Abs(value(row, n)) }
					AddVecMulHalf(y, x, w, ld, 1<<40)
				} else {
					m := randomKVCodes(r, scheme.bits, rows, cols, scheme.minima)
					value = func(row, n int) float64 {
						s, low := m.Row(row)
						return float64(s)*float64(m.Code(row, n)) + float64(low)
					}
					terms = func(row, n int) float64 {
						s, low := m.Row(row)
						return float64(s)*float64(m.Code(row, n)) + math.Abs(float64(low))
					}
					m.Ahead, m.AheadRows = 1<<40, -1<<40 // prefetching what is not there does no harm
					m.AddProduct(y, x, make([]float32, rows))
				}
				worst, naive, size := 0.0, 0.0, 0.0
				for n := range y {
					want, loop, abs := float64(before[guard+n]), before[guard+n], 0.0
					for i, a := range x {
						want += float64(a) * value(i, n)
						loop += a * float32(value(i, n))
						abs += math.Abs(float64(a)) * terms(i, n)
					}
					e := math.Abs(float64(y[n]) - want)
					if math.IsNaN(e) {
						t.Fatalf("%s: column %d: got %v, want %v", name, n, y[n], want)
					}
					worst, naive, size = max(worst, e), max(naive, math.Abs(float64(loop)-want)), max(size, abs)
				}
				if bar := 2*naive + size*0x1p-23; !(worst <= bar) {
					t.Errorf("%s: error %.3g, bar %.3g", name, worst, bar)
				}
				for i := range guard {
					if all[i] != before[i] || all[guard+cols+i] != before[guard+cols+i] {
						t.Errorf("%s: wrote beside y", name)
					}
				}
			}
		}
	})
}

// Codes of every place are apart from one another, and every value of them comes back.
func TestKVCodesKeepWhatIsSet(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, bits := range []int{8, 4} {
		m := &KVCodes{Bits: bits, Rows: 32, Cols: 48, Codes: make([]uint8, KVCodeLen(bits, 32, 48)), Scales: make([]uint16, 32), Mins: make([]uint16, 32)}
		want := make([]int, 32*48)
		for range 3 {
			for _, i := range r.Perm(len(want)) {
				want[i] = r.IntN(1 << bits)
				m.SetCode(i/48, i%48, want[i])
			}
			for i, w := range want {
				if got := m.Code(i/48, i%48); got != w {
					t.Fatalf("%d bits: element %d: got %d, want %d", bits, i, got, w)
				}
			}
		}
		for i := range m.Scales {
			m.Scales[i], m.Mins[i] = Float16Bits(0.5), Float16Bits(float32(i))
		}
		cols, rows := make([]float32, 20*40), make([]float32, 7*40)
		m.DequantizeCols(cols, 40, 32, 5, 25)
		m.DequantizeRows(rows, 40, 40, 11, 18)
		for i := range 32 {
			for n := range 48 {
				v := 0.5*float32(want[i*48+n]) + float32(i)
				if m.Value(i, n) != v || n >= 5 && n < 25 && cols[(n-5)*40+i] != v || i >= 11 && i < 18 && n < 40 && rows[(i-11)*40+n] != v {
					t.Fatalf("%d bits: value (%d, %d): want %v", bits, i, n, v)
				}
			}
		}
	}
}
