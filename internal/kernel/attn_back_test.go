package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// product is C += x·y in float64 with the sum of absolute values, for x (m×k) and y (k×n).
func exactProduct(c, x, y []float32, m, n, k int) (sum, size []float64) {
	sum, size = make([]float64, m*n), make([]float64, m*n)
	for i := range m {
		for j := range n {
			s, a := float64(c[i*n+j]), math.Abs(float64(c[i*n+j]))
			for p := range k {
				v := float64(x[i*k+p]) * float64(y[p*n+j])
				s += v
				a += math.Abs(v)
			}
			sum[i*n+j], size[i*n+j] = s, a
		}
	}
	return sum, size
}

func transposed(x []float32, rows, cols int) []float32 {
	t := make([]float32, len(x))
	for i := range rows {
		for j := range cols {
			t[j*rows+i] = x[i*cols+j]
		}
	}
	return t
}

// Both ways to pack either operand give the product, to a few roundings of float32, and write nothing else.
func TestMultiplyPieces(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(71, 72))
		for _, s := range [][3]int{{1, 1, 1}, {2, 2, 2}, {1, 2, 3}, {3, 1, 2}, {3, 3, 1}, {6, 4, 2}, {2, 5, 3}} {
			m, n, k := 16*s[0], 16*s[1], 32*s[2]
			x, y := randoms(rng, m*k, 1), randoms(rng, k*n, 1)
			for way := range 4 {
				a, b := make([]uint16, 3*m*k), make([]uint16, 3*k*n)
				if way&1 == 0 {
					SplitRows(a, x, k, m, k, false)
				} else {
					SplitColumns(a, transposed(x, m, k), m, k, m, true)
				}
				if way&2 == 0 {
					SplitColumns(b, y, n, k, n, false)
				} else {
					SplitRows(b, transposed(y, k, n), k, n, k, true)
				}
				for _, add := range []bool{false, true} {
					c := fencedCopy(randoms(rng, m*n, 1), 1)
					from := append([]float32(nil), c.data...)
					if !add {
						from = make([]float32, m*n)
						fillAll(c.data, float32(math.NaN()))
					}
					MultiplyPieces(c.data, n, a, s[2], b, s[2], s[0], s[1], s[2], add)
					c.intact(t)
					want, size := exactProduct(from, x, y, m, n, k)
					for i := range want {
						// What is left out of a product is 2⁻²² of it at most, and the same sums are rounded a few times.
						near(t, want[i], c.data[i], 0x1p-24*size[i]*(2+math.Sqrt(float64(s[2]))), "%v way %d element %d", s, way, i)
					}
				}
			}
		}
	})
}

func fillAll(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

// Pieces are those of the portable version, for parts of a larger matrix too, and the largest number is found.
func TestSplitIsThatOfPortableGo(t *testing.T) {
	rng := rand.New(rand.NewPCG(73, 74))
	const rows, cols, ld = 64, 96, 113
	x := randoms(rng, rows*ld, 1)
	for i := range x { // beside numbers that are small, or have pieces that are none of BF16, none may change
		if r := rng.IntN(3); r > 0 {
			x[i] = float32(math.Ldexp(float64(x[i]), -70*r*rng.IntN(2)))
		}
	}
	x[5*ld+7] = -9
	type result struct {
		dst  []uint16
		most float32
	}
	run := func() (all []result) {
		for _, turned := range []bool{false, true} {
			r := result{dst: make([]uint16, 3*rows*cols)}
			r.most = SplitRows(r.dst, x, ld, rows, cols, turned)
			c := result{dst: make([]uint16, 3*rows*cols)}
			c.most = SplitColumns(c.dst, x, ld, rows, cols, turned)
			all = append(all, r, c)
		}
		return all
	}
	restore, err := Use(Generic)
	require.NoError(t, err)
	want := run()
	restore()
	require.EqualValues(t, 9, want[0].most)
	require.Equal(t, want, run())
	for i := range x {
		if math.Abs(float64(x[i])) < 0x1p-102 {
			continue
		}
		sum := float32(0)
		for _, bits := range cut(x[i]) {
			sum += math.Float32frombits(uint32(bits) << 16)
		}
		require.Equal(t, x[i], sum)
	}
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1)), 1e38} {
		x[63*ld+95] = bad
		for _, r := range run() {
			require.Equal(t, fmt.Sprint(float32(math.Abs(float64(bad)))), fmt.Sprint(r.most))
		}
	}
}

// Parts of packed operands are found by the distance of their tiles, and the place of a tile changes no bit.
func TestMultiplyPiecesOfParts(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(75, 76))
		const m, n, k = 96, 64, 96
		x, y := randoms(rng, m*k, 1), randoms(rng, k*n, 1)
		a, b := make([]uint16, 3*m*k), make([]uint16, 3*k*n)
		SplitRows(a, x, k, m, k, false)
		SplitColumns(b, y, n, k, n, false)
		part := make([]float32, 48*n)
		MultiplyPieces(part, n, a[(2*3+1)*PieceTile:], 3, b[PieceTile:], 3, 3, 4, 2, false)
		single := make([]float32, 256)
		MultiplyPieces(single, 16, a[(3*3+1)*PieceTile:], 3, b[(2*3+1)*PieceTile:], 3, 1, 1, 2, false)
		for i := range 16 {
			require.Equal(t, part[(16+i)*n+32:][:16], single[16*i:][:16])
		}
	})
}

// The fused step packs what the steps one by one do, but for a rounding of the exponential.
func TestWeighPieces(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(77, 78))
		for _, rows := range []int{32, 96} {
			for _, cols := range []int{32, 64} {
				s, dp := randoms(rng, rows*64, 3), randoms(rng, rows*64, 1)
				rowMax, delta := randoms(rng, rows, 1), randoms(rng, rows, 1)
				inf := float32(math.Inf(1))
				rowMax[1], rowMax[rows-1], s[5], s[3*64+cols-1] = inf, inf, -inf, -inf
				var got [3]*fencedBits
				for i := range got {
					got[i] = newFencedBits(3 * rows * cols)
				}
				WeighPieces(s, dp, rows, cols, rowMax, delta, got[0].data, got[1].data, got[2].data)
				for i := range got {
					got[i].intact(t)
				}
				value := func(dst []uint16, tile, i int) (v float64) {
					for piece := range 3 {
						v += float64(math.Float32frombits(uint32(dst[tile*PieceTile+512*piece+i]) << 16))
					}
					return v
				}
				for r := range rows {
					for c := range cols {
						p := math.Exp(float64(s[r*64+c]) - float64(rowMax[r]))
						ds := p * (float64(dp[r*64+c]) - float64(delta[r]))
						byCol, byRow := c/16*(rows/32)+r/32, r/16*(cols/32)+c/32
						inCol, inRow := r%16*32+c%16*2+r%32/16, r%16*32+c%16*2+c%32/16
						what := fmt.Sprintf("%d×%d (%d, %d)", rows, cols, r, c)
						tol := 8e-7 * (1 + math.Abs(float64(s[r*64+c]-rowMax[r])))
						if p == 0 {
							tol = 0
						}
						near(t, p, float32(value(got[0].data, byCol, inCol)), tol*p, "%s weight", what)
						tol *= p * (math.Abs(float64(dp[r*64+c])) + math.Abs(float64(delta[r])))
						near(t, ds, float32(value(got[1].data, byCol, inCol)), tol, "%s dS by columns", what)
						near(t, ds, float32(value(got[2].data, byRow, inRow)), tol, "%s dS by rows", what)
					}
				}
			}
		}
	})
}

// Weights and dS below 2⁻¹¹⁰ have pieces that are no numbers of BF16; what is cut off of one must not become part of another.
func TestWeighPiecesOfTinyWeights(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(79, 80))
		const rows, cols = 32, 64
		s, dp := randoms(rng, rows*64, 1), randoms(rng, rows*64, 1)
		for i := range s {
			if tiny := i/64/16 ^ i/16%2; tiny == 1 { // beside one that is not, in either order
				s[i] -= 82
			}
		}
		var got [3][]uint16
		for i := range got {
			got[i] = make([]uint16, 3*rows*cols)
		}
		WeighPieces(s, dp, rows, cols, make([]float32, rows), make([]float32, rows), got[0], got[1], got[2])
		value := func(dst []uint16, i int) (v float64) {
			for piece := range 3 {
				v += float64(math.Float32frombits(uint32(dst[512*piece+i]) << 16))
			}
			return v
		}
		for r := range rows {
			for c := range cols {
				p := math.Exp(float64(s[r*64+c]))
				ds := p * float64(dp[r*64+c])
				inCol, inRow := c/16*PieceTile+r%16*32+c%16*2+r/16, (r/16*2+c/32)*PieceTile+r%16*32+c%16*2+c%32/16
				tol := 8e-7 * (1 + math.Abs(float64(s[r*64+c])))
				near(t, p, float32(value(got[0], inCol)), tol*p+0x1p-125, "weight (%d, %d)", r, c)
				near(t, ds, float32(value(got[1], inCol)), tol*math.Abs(ds)+0x1p-125, "dS (%d, %d) by columns", r, c)
				near(t, ds, float32(value(got[2], inRow)), tol*math.Abs(ds)+0x1p-125, "dS (%d, %d) by rows", r, c)
			}
		}
	})
}

// fencedBits is a slice between canaries.
type fencedBits struct{ all, data []uint16 }

func newFencedBits(n int) *fencedBits {
	all := make([]uint16, n+64)
	for i := range all {
		all[i] = 0xabcd
	}
	return &fencedBits{all, all[32 : 32+n : 32+n]}
}

func (f *fencedBits) intact(t *testing.T) {
	t.Helper()
	for i := range 32 {
		require.EqualValues(t, 0xabcd, f.all[i])
		require.EqualValues(t, 0xabcd, f.all[len(f.all)-1-i])
	}
}

func TestPiecesChecks(t *testing.T) {
	for want, f := range map[string]func(){
		"SplitRows: got 8×32":            func() { SplitRows[float32](nil, nil, 32, 8, 32, false) },
		"SplitColumns: got 16×16":        func() { SplitColumns[float32](nil, nil, 16, 16, 16, false) },
		"kernel: x: got 511":             func() { SplitRows(make([]uint16, 1536), make([]float32, 511), 32, 16, 32, true) },
		"kernel: dst: got 1535 elements": func() { SplitColumns(make([]uint16, 1535), make([]float32, 512), 16, 32, 16, true) },
		"kernel: C: got 255": func() {
			MultiplyPieces(make([]float32, 255), 16, make([]uint16, 1536), 1, make([]uint16, 1536), 1, 1, 1, 1, true)
		},
		"kernel: A: got 1535": func() {
			MultiplyPieces(make([]float32, 256), 16, make([]uint16, 1535), 1, make([]uint16, 1536), 1, 1, 1, 1, true)
		},
		"rows of 15": func() {
			MultiplyPieces(make([]float32, 256), 15, make([]uint16, 1536), 1, make([]uint16, 1536), 1, 1, 1, 1, true)
		},
	} {
		func() {
			defer func() { require.Contains(t, fmt.Sprint(recover()), want) }()
			f()
		}()
	}
}

func BenchmarkMultiplyPieces(b *testing.B) {
	for _, s := range [][3]int{{2, 2, 2}, {2, 2, 8}, {6, 4, 2}, {4, 4, 3}, {6, 4, 4}} {
		b.Run(fmt.Sprintf("m=%d/n=%d/k=%d", 16*s[0], 16*s[1], 32*s[2]), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			m, n, k := 16*s[0], 16*s[1], 32*s[2]
			x, y := randoms(rng, m*k, 1), randoms(rng, k*n, 1)
			pa, pb, c := make([]uint16, 3*m*k+32), make([]uint16, 3*k*n+32), make([]float32, m*n+16)
			pa, pb = pa[-uintptr(unsafe.Pointer(&pa[0]))%64/2:], pb[-uintptr(unsafe.Pointer(&pb[0]))%64/2:]
			c = c[-uintptr(unsafe.Pointer(&c[0]))%64/4:]
			SplitRows(pa, x, k, m, k, false)
			SplitColumns(pb, y, n, k, n, false)
			for b.Loop() {
				MultiplyPieces(c, n, pa, s[2], pb, s[2], s[0], s[1], s[2], true)
			}
			b.ReportMetric(2*float64(m*n*k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
