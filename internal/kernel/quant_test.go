package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// quantKind is a coding with its parameters.
type quantKind struct {
	coding Coding
	group  int
	zeros  bool
	single bool // one scale for all
}

func (k quantKind) String() string {
	return fmt.Sprintf("coding=%d/group=%d/zeros=%v/single=%v", k.coding, k.group, k.zeros, k.single)
}

var quantKinds = []quantKind{
	{coding: Float16}, {coding: BFloat16},
	{coding: Code8}, {coding: Code8, zeros: true}, {coding: Code8, single: true}, {coding: Code8, single: true, zeros: true},
	{coding: Code8, group: 32}, {coding: Code8, group: 64, zeros: true},
	{coding: Code4}, {coding: Code4, zeros: true}, {coding: Code4, single: true}, {coding: Code4, group: 32},
	{coding: Code4, group: 32, zeros: true}, {coding: Code4, group: 128},
}

// random is a k×n matrix with any codes (finite halves) between canaries: what lies beyond its ends and in the padding of
// its panels is such that a product which used it would be far off.
func (kind quantKind) random(k, n int, seed uint64) *Quantized {
	r := rand.New(rand.NewPCG(seed, 61))
	q := &Quantized{Coding: kind.coding, K: k, N: n, Group: kind.group}
	size := kind.coding.CodeLen(k, n)
	if !kind.coding.Integer() {
		nan := uint16(0x7e00)
		if kind.coding == BFloat16 {
			nan = 0x7fc0
		}
		all := make([]uint16, size+2*guard)
		for i := range all {
			all[i] = nan
		}
		q.Halves = all[guard:][:size:size]
		for p := range k {
			for j := range n {
				x := float32(r.NormFloat64())
				if kind.coding == Float16 {
					q.SetCode(p, j, int(Float16Bits(x)))
				} else {
					q.SetCode(p, j, int(BFloat16Bits(x)))
				}
			}
		}
		return q
	}
	all := make([]uint8, size+2*guard)
	for i := range all {
		all[i] = uint8(r.Uint32())
	}
	q.Codes = all[guard:][:size:size]
	params := 1
	if !kind.single {
		params = q.Groups() * n
	}
	q.Scales = newGuarded(1, params, params, 1, func() float32 { return float32(0.01 + 0.1*r.Float64()) }).Data
	if kind.zeros {
		q.Zeros = make([]uint8, params)
		for i := range q.Zeros {
			q.Zeros[i] = uint8(r.IntN(2 * int(kind.coding.Middle())))
		}
	}
	return q
}

// wide is the matrix of values.
func (q *Quantized) wide() []float32 {
	w := make([]float32, q.K*q.N)
	for p := range q.K {
		for j := range q.N {
			w[p*q.N+j] = q.Value(p, j)
		}
	}
	return w
}

func TestQuantizedCodes(t *testing.T) {
	for _, kind := range quantKinds {
		q := kind.random(41, 35, 1)
		limit := 1 << 16
		if kind.coding.Integer() {
			limit = 2 * int(kind.coding.Middle())
		}
		for p := range q.K {
			for j := range q.N {
				q.SetCode(p, j, (p*37+j*11)%limit)
			}
		}
		for p := range q.K {
			for j := range q.N {
				require.Equal(t, (p*37+j*11)%limit, q.Code(p, j), "%v (%d, %d)", kind, p, j)
			}
		}
	}
}

// The values are those of the definition, exactly, on every instruction set.
func TestDequantizeRows(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		for _, kind := range quantKinds {
			for _, s := range [][2]int{{0, 5}, {5, 0}, {1, 1}, {2, 17}, {7, 16}, {8, 15}, {33, 33}, {64, 31}, {97, 59}, {131, 65}} {
				k, n := s[0], s[1]
				q := kind.random(k, n, uint64(k*1000+n))
				for _, from := range []int{0, 8, 40} {
					if from > k {
						continue
					}
					got := newFenced((k-from)*n, 1)
					DequantizeRows(got.data, q, from, k)
					got.intact(t)
					require.Equal(t, q.wide()[from*n:], got.data, "%v %d×%d", kind, k, n)
				}
			}
		}
	})
}

// The smallest and largest codes, scales and zero points.
func TestDequantizeExtremes(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		for _, coding := range []Coding{Code8, Code4} {
			top := 2*int(coding.Middle()) - 1
			for _, scale := range []float32{0x1p-126, 1, 1e36, 0} {
				for _, zero := range []int{0, 1, int(coding.Middle()), top} {
					q := &Quantized{Coding: coding, K: top + 1, N: 1, Codes: make([]uint8, coding.CodeLen(top+1, 1)), Scales: []float32{scale}, Zeros: []uint8{uint8(zero)}}
					for p := range q.K {
						q.SetCode(p, 0, p)
					}
					got := make([]float32, q.K)
					DequantizeRows(got, q, 0, q.K)
					for p, x := range got {
						require.Equal(t, float32(float64(scale)*float64(p-zero)), x, "%d", p)
					}
				}
			}
		}
	})
}

// awkwardProducts are sizes m, k, n at and around the widths of steps, panels, tiles and blocks.
var awkwardProducts = [][3]int{
	{1, 1, 1}, {1, 8, 16}, {1, 59, 97}, {1, 97, 1}, {1, 257, 130}, {1, 0, 5}, {0, 5, 5}, {5, 5, 0}, {1, 1025, 33}, {2, 33, 64}, {3, 7, 65}, {4, 130, 31},
	{5, 0, 3}, {5, 31, 17}, {6, 64, 64}, {7, 65, 63}, {8, 3, 15}, {11, 129, 48}, {12, 40, 80}, {13, 257, 59}, {59, 97, 130}, {97, 59, 257}, {131, 400, 70},
}

// products are the sizes to test, fewer under -short.
func products() [][3]int {
	if !testing.Short() {
		return awkwardProducts
	}
	return [][3]int{{1, 59, 97}, {3, 7, 65}, {13, 403, 59}}
}

func TestGemmQuantized(t *testing.T) {
	t.Run("float32", testGemmQuantized[float32])
	t.Run("float64", testGemmQuantized[float64])
}

func testGemmQuantized[T Float](t *testing.T) {
	x := normal[T](21)
	for count, s := range products() {
		m, k, n := s[0], s[1], s[2]
		for _, kind := range quantKinds {
			q := kind.random(k, n, uint64(count))
			w := widened[T](q)
			a, da := newGuarded(m, k, k+count%3, 1, x), newGuarded(m, n, n+count%2, 1, x)
			bias := newGuarded(1, n, n, 1, x).Data
			if count%2 == 0 {
				bias = nil
			}
			c, dc := newGuarded(m, n, n+count%4, 1, x), newGuarded(m, k, k+1, 1, x)
			ref := multiply(c.Matrix, a.Matrix, RowMajor(w, k, n), nil, bias)
			refT := multiply(dc.Matrix, da.Matrix, RowMajor(w, k, n).T(), nil, nil)
			forEachVariant(t, func(variant string) {
				got, gotT := c.clone(), dc.clone()
				covered := make([]int, m*n)
				var ep Epilogue[T]
				ep.Bias = bias
				ep.After = func(i0, i1, j0, j1 int) {
					for i := i0; i < i1; i++ {
						for j := j0; j < j1; j++ {
							covered[i*n+j]++
						}
					}
				}
				GemmQuantized(got.Matrix, a.Matrix, q, ep)
				GemmQuantizedT(gotT.Matrix, da.Matrix, q)
				msg := fmt.Sprintf("%s %v m=%d k=%d n=%d", variant, kind, m, k, n)
				got.requireIntact(t, msg)
				gotT.requireIntact(t, msg+" transposed")
				ref.requireClose(t, got.Matrix, k, msg)
				refT.requireClose(t, gotT.Matrix, n, msg+" transposed")
				for i, times := range covered {
					require.Equal(t, 1, times, "%s: element %d is in one block", msg, i)
				}
			})
		}
	}
}

// forEachVariant runs a part of a test on every instruction set, and on AVX-512 without tiles of matrices where there are such.
func forEachVariant(t *testing.T, test func(variant string)) {
	for _, isa := range Supported() {
		restore, err := Use(isa)
		require.NoError(t, err)
		test(isa.String())
		if isa == AVX512 && setMatrices(false) {
			test("avx512 without AMX")
			setMatrices(true)
		}
		restore()
	}
}

// widened is wide in T.
func widened[T Float](q *Quantized) []T {
	w := make([]T, q.K*q.N)
	for i, v := range q.wide() {
		w[i] = T(v)
	}
	return w
}

// What is not finite in a row of A stays in its row, and a padded column or row of codes takes no part.
func TestGemmQuantizedNotFinite(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		for _, kind := range quantKinds {
			for _, m := range []int{3, 13} {
				const k, n = 37, 21
				q := kind.random(k, n, 5)
				a, c := newGuarded(m, k, k, 1, normal[float32](6)), newGuarded(m, n, n, 1, normal[float32](7))
				a.Data[a.at(1, 36)] = float32(math.NaN())
				GemmQuantized(c.Matrix, a.Matrix, q, Epilogue[float32]{})
				for i := range m {
					for j := range n {
						y := float64(c.Data[c.at(i, j)])
						require.Equal(t, i == 1, math.IsNaN(y), "%v NaN at (%d, %d): %v", kind, i, j, y)
					}
				}
			}
		}
	})
}

func TestQuantizedChecks(t *testing.T) {
	a, c := RowMajor(make([]float32, 6), 2, 3), RowMajor(make([]float32, 8), 2, 4)
	good := quantKind{coding: Code8}.random(3, 4, 1)
	call := func(change func(q *Quantized)) func() {
		q := *good
		change(&q)
		return func() { GemmQuantized(c, a, &q, Epilogue[float32]{}) }
	}
	require.NotPanics(t, call(func(*Quantized) {}))
	for name, f := range map[string]func(q *Quantized){
		"codes":  func(q *Quantized) { q.Codes = q.Codes[1:] },
		"scales": func(q *Quantized) { q.Scales = q.Scales[:2] },
		"zeros":  func(q *Quantized) { q.Zeros = make([]uint8, 1) },
		"inner":  func(q *Quantized) { q.K = 2 },
		"outer":  func(q *Quantized) { q.N = 3; q.Scales = q.Scales[:3] },
		"group":  func(q *Quantized) { q.Group = 5 },
	} {
		require.Panics(t, call(f), name)
	}
}
