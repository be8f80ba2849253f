package kernel

import (
	"fmt"
	"math"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// extremes are numbers that pieces of BF16 do not hold, or not all of.
var extremes = []float32{
	float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), math.Float32frombits(0x7f800001), math.MaxFloat32, -0x1.fffp127,
	0x1p120, -0x1.fffffep110, 0x1.234566p-110, -0x1.fffffep-126, 0x1.fp-140, math.SmallestNonzeroFloat32,
}

// requireExtreme holds products with extremes to float64: each element to the bound of requireClose with a floor of k roundings of
// denormal numbers, to an infinity or NaN where that is the result. The product is added to init where that has elements.
func requireExtreme(t *testing.T, got, a, b, init Matrix[float32], msg string) {
	for i := range got.Rows {
		for j := range got.Cols {
			var want, sum float64
			if init.Data != nil {
				want = float64(init.Data[init.at(i, j)])
				sum = math.Abs(want)
			}
			for p := range a.Cols {
				x := float64(a.Data[a.at(i, p)]) * float64(b.Data[b.at(p, j)])
				want, sum = want+x, sum+math.Abs(x)
			}
			v := float64(got.Data[got.at(i, j)])
			near := math.Abs(v-want) <= float64(a.Cols+3)*(0x1p-24*sum+0x1p-149)
			switch {
			case math.IsNaN(want):
				near = math.IsNaN(v)
			case math.IsInf(want, 0):
				near = v == want
			case sum > math.MaxFloat32: // a sum of some of the terms may be beyond what float32 holds
				near = near || math.IsInf(v, 0) || math.IsNaN(v)
			}
			if !near {
				require.FailNow(t, "wrong element", "%s: (%d, %d): got %g, want %g", msg, i, j, v, want)
			}
		}
	}
}

// extremeShape is large enough for pieces where there are any.
func extremeShape(t *testing.T) (m, n, k int) {
	if !PiecesVectorized() {
		return 33, 34, 35
	}
	require.GreaterOrEqual(t, 97*130*130, pieceMinWork)
	return 97, 130, 130
}

// One extreme number in A or in B: what depends on it is what float32 makes of it, and nothing else is touched.
func TestGemmExtremes(t *testing.T) {
	m, n, k := extremeShape(t)
	forEachMatrixISA(t, func(t *testing.T) {
		for count, x := range extremes {
			m, n = n, m // first the columns of B, then the rows of A are cut for all
			next := normal[float32](uint64(count))
			a, b, c := newGuarded(m, k, k, 1, next), newGuarded(k, n, n, 1, next), newGuarded(m, n, n, 1, next)
			clean := c.clone()
			Gemm(clean.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{})
			for place, at := range map[string]*float32{
				"A, first": &a.Data[a.at(0, 0)], "A": &a.Data[a.at(m/2, k/3)], "A, last": &a.Data[a.at(m-1, k-1)],
				"B, first": &b.Data[b.at(0, 0)], "B": &b.Data[b.at(k/3, n/6)], "B, last": &b.Data[b.at(k-1, n-1)],
			} {
				old := *at
				*at = x
				Gemm(c.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{})
				requireExtreme(t, c.Matrix, a.Matrix, b.Matrix, Matrix[float32]{}, fmt.Sprintf("%g in %s", x, place))
				*at = old
			}
			Gemm(c.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{})
			require.Equal(t, clean.Data, c.Data)
		}
	})
}

// Operands of any magnitude, sums of which are large, small or denormal.
func TestGemmMagnitudes(t *testing.T) {
	m, n, k := extremeShape(t)
	forEachMatrixISA(t, func(t *testing.T) {
		for x := -140; x <= 120; x += 40 {
			for y := -140; y <= 120; y += 40 {
				next := normal[float32](uint64(300*x + y))
				scaled := func(e int) func() float32 { return func() float32 { return float32(math.Ldexp(float64(next()), e)) } }
				a, b, c := newGuarded(m, k, k, 1, scaled(x)), newGuarded(k, n, n, 1, scaled(y)), newGuarded(m, n, n, 1, next)
				Gemm(c.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{})
				requireExtreme(t, c.Matrix, a.Matrix, b.Matrix, Matrix[float32]{}, fmt.Sprintf("2^%d by 2^%d", x, y))
			}
		}
	})
}

// Small numbers among ordinary ones, as the tails of activations are: sums to which they do not matter stay in tiles, the others do not,
// and whichever way, C or the bias is added once.
func TestGemmSmallNumbers(t *testing.T) {
	shapes := [][3]int{{33, 34, 35}}
	if m, n, k := extremeShape(t); PiecesVectorized() {
		shapes = [][3]int{{m, n, k}, {n, m, k}, {70, 49, pieceSteps + 50}}
	}
	forEachMatrixISA(t, func(t *testing.T) {
		for count, e := range []int{-149, -126, -118, -110, -102, -90, -60} {
			m, n, k := shapes[count%len(shapes)][0], shapes[count%len(shapes)][1], shapes[count%len(shapes)][2]
			next := normal[float32](uint64(count))
			a, b, c, bias := newGuarded(m, k, k, 1, next), newGuarded(k, n, n, 1, next), newGuarded(m, n, n, 1, next), newGuarded(1, n, n, 1, next)
			tiny := float32(math.Ldexp(1, e))
			for p := range k {
				for i := p % 7; i < m; i += 7 {
					a.Data[a.at(i, p)] *= tiny // some of each row
				}
				a.Data[a.at(m/2, p)] *= tiny // all of a row
				b.Data[b.at(p, n/3)] *= 0x1p-40
			}
			// Little is added to the small row, and to the small column.
			clear(c.Data[c.at(m/2, 0):][:n])
			for i := range m {
				c.Data[c.at(i, n/3)] = 0
			}
			bias.Data[n/3] = 0
			msg := fmt.Sprintf("2^%d", e)
			got := c.clone()
			Gemm(got.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{})
			requireExtreme(t, got.Matrix, a.Matrix, b.Matrix, Matrix[float32]{}, msg)
			Gemm(got.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{Bias: bias.Data})
			requireExtreme(t, got.Matrix, a.Matrix, b.Matrix, Matrix[float32]{Data: bias.Data, ColStride: 1}, msg+", bias")
			got = c.clone()
			Gemm(got.Matrix, a.Matrix, b.Matrix, true, Epilogue[float32]{})
			requireExtreme(t, got.Matrix, a.Matrix, b.Matrix, c.Matrix, msg+", added")
			got.requireIntact(t, msg)
		}
	})
}

// Where some blocks go through pieces and others do not, the bits are still the same for any number of threads.
func TestGemmExtremesThreads(t *testing.T) {
	const m, n, k = 300, 400, 150
	x := normal[float32](5)
	a, b := newGuarded(m, k, k, 1, x), newGuarded(k, n, n, 1, x)
	for _, p := range []int{40 * k, 250*k + 3} {
		a.Data[p] = 0x1p-120
	}
	for _, p := range []int{60, 333 + 20*n} {
		b.Data[p] = -0x1p-120
	}
	a.Data[120*k], b.Data[200] = 0x1p115, -0x1p115
	var want []float32
	for _, threads := range []int{1, 2, 5} {
		withThreads(t, threads)
		c := newGuarded(m, n, n, 1, x)
		Gemm(c.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{})
		if want == nil {
			want = c.Data
		}
		require.Equal(t, want, c.Data, "threads=%d", threads)
	}
}

// A large result is written past the caches, to the same bits as one that an epilogue still needs.
func TestGemmLargeResult(t *testing.T) {
	const m, n, k = 1120, 960, 70
	x := normal[float32](7)
	a, b, bias := newGuarded(m, k, k, 1, x), newGuarded(k, n, n, 1, x), newGuarded(1, n, n, 1, x)
	a.Data[300*k] = 0x1p120 // whose block is not for pieces
	product := func(bias []float32, after func(i0, i1, j0, j1 int)) []float32 {
		// A line of the result begins on a line of the cache, or the test is of the ordinary way only.
		all := make([]float32, m*n+16)
		for i := range all {
			all[i] = float32(math.NaN())
		}
		skip := int(-uintptr(unsafe.Pointer(&all[0]))%64) / 4
		c := RowMajor(all[skip:][:m*n], m, n)
		Gemm(c, a.Matrix, b.Matrix, false, Epilogue[float32]{Bias: bias, After: after})
		return c.Data
	}
	forEachMatrixISA(t, func(t *testing.T) {
		for _, bias := range [][]float32{nil, bias.Data} {
			require.Equal(t, product(bias, func(i0, i1, j0, j1 int) {}), product(bias, nil))
		}
	})
}

// Tiles of AMX round like float32 and less often: over many terms the error is a fraction of that of multiply-adds one by one.
func TestGemmPiecesAccuracy(t *testing.T) {
	needPieces(t)
	const m, n, k = 64, 64, 1000
	x := normal[float32](6)
	a, b, c := newGuarded(m, k, k, 1, x), newGuarded(k, n, n, 1, x), newGuarded(m, n, n, 1, x)
	Gemm(c.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{})
	ref := multiply(c.Matrix, a.Matrix, b.Matrix, nil, nil)
	var got, naive float64
	for i, want := range ref.exact {
		got += math.Pow(float64(c.Data[i])-want, 2)
		naive += math.Pow(float64(ref.naive[i])-want, 2)
	}
	t.Logf("error %.3g of the naive sum's", math.Sqrt(got/naive))
	require.Less(t, math.Sqrt(got/naive), 0.7)
}

func TestChooseMatrices(t *testing.T) {
	all, yes, no := []ISA{Generic, AVX2, AVX512}, func() bool { return true }, func() bool { return false }
	for _, c := range []struct {
		request  string
		matrices func() bool
		want     ISA
		err      string
	}{
		{"", yes, AVX512, ""}, {"AMX", yes, AVX512, ""}, {"avx512", yes, AVX512, ""}, {"avx2", yes, AVX2, ""},
		{"amx", no, AVX512, "want one of generic, avx2, avx512; using avx512"}, {"none", yes, AVX512, "want one of generic, avx2, avx512, amx; using avx512"},
	} {
		got, err := choose(c.request, all, c.matrices)
		require.Equal(t, c.want, got)
		if c.err == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.err)
		}
	}
	_, err := choose("amx", []ISA{Generic, AVX2}, yes)
	require.Error(t, err)
}
