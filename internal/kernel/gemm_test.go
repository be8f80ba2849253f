package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"stheno/internal/parallel"
)

// withThreads sets the size of the pool for one test.
func withThreads(t testing.TB, n int) {
	old, err := parallel.SetThreads(n)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := parallel.SetThreads(old)
		require.NoError(t, err)
	})
}

// gemmCase is one product: its shape, the layouts of its operands and its epilogue.
type gemmCase struct {
	m, n, k    int
	a, b       string // "row", "col" or "any" (neither stride is 1)
	accumulate bool
	bias       bool
	gap        int
}

func (c gemmCase) String() string {
	return fmt.Sprintf("m=%d n=%d k=%d a=%s b=%s accumulate=%t bias=%t gap=%d", c.m, c.n, c.k, c.a, c.b, c.accumulate, c.bias, c.gap)
}

func (c gemmCase) operand(rows, cols int, layout string) (rowStride, colStride int) {
	switch layout {
	case "row":
		return cols + c.gap, 1
	case "col":
		return 1, rows + c.gap
	default:
		return 2*cols + c.gap, 2
	}
}

// testGemm runs one case under every instruction set.
func testGemm[T Float](t *testing.T, g gemmCase, seed uint64) {
	x := normal[T](seed)
	rs, cs := g.operand(g.m, g.k, g.a)
	a := newGuarded(g.m, g.k, rs, cs, x)
	rs, cs = g.operand(g.k, g.n, g.b)
	b := newGuarded(g.k, g.n, rs, cs, x)
	c := newGuarded(g.m, g.n, g.n+g.gap, 1, x)
	var scale []T
	if g.accumulate {
		for range g.m {
			scale = append(scale, 1)
		}
	}
	var ep Epilogue[T]
	if g.bias {
		ep.Bias = newGuarded(1, g.n, g.n, 1, x).Data
		if g.n == 0 {
			ep.Bias = []T{}
		}
	}
	ref := multiply(c.Matrix, a.Matrix, b.Matrix, scale, ep.Bias)
	run := func(name string) {
		got := c.clone()
		if !g.accumulate {
			for i := range got.Data {
				got.Data[i] = T(math.NaN())
			}
		}
		Gemm(got.Matrix, a.Matrix, b.Matrix, g.accumulate, ep)
		msg := fmt.Sprint(name, " ", g)
		got.requireIntact(t, msg)
		ref.requireClose(t, got.Matrix, g.k, msg)
	}
	for _, isa := range tested() {
		restore, err := Use(isa)
		require.NoError(t, err)
		run(isa.String())
		if isa == AVX512 && setMatrices(false) {
			run("without AMX")
			setMatrices(true)
		}
		restore()
	}
}

var layouts = []string{"row", "col", "any"}

func TestGemm(t *testing.T) {
	t.Run("float32", testGemmSizes[float32])
	t.Run("float64", testGemmSizes[float64])
}

func testGemmSizes[T Float](t *testing.T) {
	count := 0
	for _, m := range append([]int{3, 4}, awkward...) {
		for _, n := range awkward {
			for _, k := range awkward {
				count++
				if skipCase[T](m*n*k, count) {
					continue
				}
				testGemm[T](t, gemmCase{
					m: m, n: n, k: k, a: layouts[count%3], b: layouts[count/3%3],
					accumulate: count%2 == 0, bias: count%5 < 2, gap: count % 7,
				}, uint64(count))
			}
		}
	}
}

// Shapes beyond one block in each direction, for all layouts.
func TestGemmBlocks(t *testing.T) {
	for _, a := range layouts {
		for _, b := range layouts {
			if testing.Short() && a != b {
				continue
			}
			for _, s := range [][3]int{{gemmRows + 7, 97, gemmSteps + 13}, {2*gemmRows + 1, 65, 33}, {13, gemmCols + 77, 2*gemmSteps + 1}, {pieceRows + 70, 40, 50}, {61, pieceColsMost + 70, 45}, {50, 70, pieceSteps + 77}, {1, 2049, 771}, {2, 1030, 1111}, {777, 1, 1025}} {
				testGemm[float32](t, gemmCase{m: s[0], n: s[1], k: s[2], a: a, b: b, accumulate: a == b, bias: a == "row", gap: 3}, 7)
			}
		}
	}
}

// C with a row stride wider than its only column, as one column of a larger matrix.
func TestGemmOneColumn(t *testing.T) {
	for _, layout := range layouts {
		for _, k := range []int{1, 8, 59} {
			x := normal[float32](8)
			g := gemmCase{gap: 2}
			rs, cs := g.operand(97, k, layout)
			a, b, c := newGuarded(97, k, rs, cs, x), newGuarded(k, 1, 5, 1, x), newGuarded(97, 1, 7, 3, x)
			bias := []float32{x()}
			ref := multiply(c.Matrix, a.Matrix, b.Matrix, nil, bias)
			forEachMatrixISA(t, func(t *testing.T) {
				got := c.clone()
				Gemm(got.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{Bias: bias})
				got.requireIntact(t, "")
				ref.requireClose(t, got.Matrix, k, layout)
			})
		}
	}
}

// The result is the same to the bit for any number of threads.
func TestGemmThreads(t *testing.T) {
	forEachMatrixISA(t, func(t *testing.T) {
		for _, s := range [][3]int{{97, 257, 130}, {200, 700, 400}, {1, 3001, 770}, {2, 1500, 300}, {1500, 1, 777}, {6, 1025, 200}, {500, 16, 64}, {pieceRows + 40, 48, 40}, {70, 90, pieceSteps + 50}} {
			for _, transposed := range []bool{false, true} {
				x := normal[float32](9)
				a, b := newGuarded(s[0], s[2], s[2], 1, x), newGuarded(s[2], s[1], s[1], 1, x)
				if transposed {
					a, b = newGuarded(s[0], s[2], 1, s[0], x), newGuarded(s[2], s[1], 1, s[2], x)
				}
				var want []float32
				for _, threads := range []int{1, 2, 3, 5} {
					withThreads(t, threads)
					c := newGuarded(s[0], s[1], s[1], 1, x)
					Gemm(c.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{})
					if want == nil {
						want = c.Data
					}
					require.Equal(t, want, c.Data, "%v transposed=%t threads=%d", s, transposed, threads)
				}
			}
		}
	})
}

// The blocks given to After partition C and are finished.
func TestGemmAfter(t *testing.T) {
	for _, threads := range []int{1, 3} {
		withThreads(t, threads)
		for _, s := range [][3]int{{300, 1100, 70}, {1, 900, 200}, {2, 70, 3}, {900, 1, 200}, {5, 6, 0}, {64, 64, 64}} {
			forEachMatrixISA(t, func(t *testing.T) {
				x := normal[float32](10)
				m, n, k := s[0], s[1], s[2]
				a, b, c := newGuarded(m, k, k, 1, x), newGuarded(k, n, n, 1, x), newGuarded(m, n, n, 1, x)
				bias := newGuarded(1, n, n, 1, x).Data
				want := c.clone()
				Gemm(want.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{Bias: bias})
				visits := make([]atomic.Int32, m*n)
				Gemm(c.Matrix, a.Matrix, b.Matrix, false, Epilogue[float32]{Bias: bias, After: func(i0, i1, j0, j1 int) {
					for i := i0; i < i1; i++ {
						for j := j0; j < j1; j++ {
							visits[i*n+j].Add(1)
							c.Data[c.at(i, j)] *= -2
						}
					}
				}})
				for i := range visits {
					if visits[i].Load() != 1 || c.Data[i] != -2*want.Data[i] {
						require.FailNow(t, "After", "%v: element %d: visited %d times, got %v, want %v", s, i, visits[i].Load(), c.Data[i], -2*want.Data[i])
					}
				}
			})
		}
	}
}

func TestGemmChecksShapes(t *testing.T) {
	s := make([]float32, 12)
	for name, call := range map[string]func(){
		"inner": func() { Gemm(RowMajor(s, 2, 2), RowMajor(s, 2, 3), RowMajor(s, 2, 2), false, Epilogue[float32]{}) },
		"short": func() { Gemm(RowMajor(s[:3], 2, 2), RowMajor(s, 2, 3), RowMajor(s, 3, 2), false, Epilogue[float32]{}) },
		"bias": func() {
			Gemm(RowMajor(s, 2, 2), RowMajor(s, 2, 3), RowMajor(s, 3, 2), false, Epilogue[float32]{Bias: s[:1]})
		},
		"stride": func() {
			Gemm(RowMajor(s, 2, 2).T(), RowMajor(s, 2, 3), RowMajor(s, 3, 2), false, Epilogue[float32]{})
		},
	} {
		require.Panics(t, call, name)
	}
}

// A warm product allocates its own record and closure, whatever its size.
func TestGemmAllocations(t *testing.T) {
	withThreads(t, 1)
	forEachMatrixISA(t, func(t *testing.T) {
		for _, s := range [][3]int{{1, 300, 300}, {64, 64, 64}, {200, 600, 500}} {
			a, b, c := make([]float32, s[0]*s[2]), make([]float32, s[2]*s[1]), make([]float32, s[0]*s[1])
			got := testing.AllocsPerRun(5, func() {
				Gemm(RowMajor(c, s[0], s[1]), RowMajor(a, s[0], s[2]), RowMajor(b, s[2], s[1]), false, Epilogue[float32]{})
			})
			require.LessOrEqual(t, got, 3.0, "%v", s)
		}
	})
}

// A product of many seconds, made of short calls of assembly, has to come to points where the garbage collector can stop
// it; without them a collection waits until it ends. The bound is loose because machines are busy.
func TestGemmLetsCollectorRun(t *testing.T) {
	withThreads(t, 1)
	const m, n, k = 1 << 24, 64, 384
	// Strides of 0 make a long product of little memory: all rows of A are one, and so are those of C.
	a := Matrix[float32]{Data: make([]float32, k), Rows: m, Cols: k, ColStride: 1}
	b := RowMajor(make([]float32, k*n), k, n)
	c := Matrix[float32]{Data: make([]float32, n), Rows: m, Cols: n, ColStride: 1}
	forEachMatrixISA(t, func(t *testing.T) {
		var stop atomic.Bool
		var blocks atomic.Int64
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer func() { _ = recover() }() // of the panic that ends the product
			Gemm(c, a, b, false, Epilogue[float32]{After: func(i0, i1, j0, j1 int) {
				blocks.Add(1)
				if stop.Load() {
					panic("enough")
				}
			}})
		}()
		for blocks.Load() == 0 {
			runtime.Gosched()
		}
		for range 10 {
			start := time.Now()
			runtime.GC()
			require.Less(t, time.Since(start), time.Second)
		}
		select {
		case <-done:
			require.Fail(t, "the product ended before the collections did")
		default:
		}
		stop.Store(true)
		<-done
	})
}

// Products of random shapes and layouts.
func FuzzGemm(f *testing.F) {
	f.Add(uint64(1), uint16(5), uint16(6), uint16(7))
	f.Fuzz(func(t *testing.T, seed uint64, m, n, k uint16) {
		r := rand.New(rand.NewPCG(seed, 1))
		testGemm[float32](t, gemmCase{
			m: int(m % 200), n: int(n % 600), k: int(k % 500), a: layouts[r.IntN(3)], b: layouts[r.IntN(3)],
			accumulate: r.IntN(2) == 0, bias: r.IntN(2) == 0, gap: r.IntN(9),
		}, seed)
	})
}
