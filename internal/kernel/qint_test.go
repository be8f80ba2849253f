package kernel

import (
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"stheno/internal/parallel"
)

// roundedRow is a row of activations as GemmDynamic defines it.
func roundedRow[T Float](x []T) (q []int, sx T) {
	var largest float64
	for _, v := range x {
		largest = max(largest, math.Abs(float64(v)))
	}
	largest = max(largest, 0x1p-100)
	inv := T(127 / largest)
	for _, v := range x {
		q = append(q, int(math.RoundToEven(float64(v*inv))))
	}
	return q, T(largest / 127)
}

// dynamicReference is the product of the same integers in float64, and Σ_g |term g| for error bounds.
func dynamicReference[T Float](a Matrix[T], b *Quantized, bias []T) (want, sumAbs []float64) {
	for i := range a.Rows {
		q, sx := roundedRow(a.Data[a.at(i, 0):][:a.Cols])
		for j := range b.N {
			var y, abs float64
			for g := range b.Groups() {
				var sum int64
				from := g * b.groupRows()
				end := min(from+b.groupRows(), b.K)
				for p := from; p < end; p++ {
					sum += int64(q[p]) * int64(b.Code(p, j)-b.zero(p, j))
				}
				if from < end {
					term := float64(sum) * float64(b.Scales[b.param(from, j)]) * float64(sx)
					y, abs = y+term, abs+math.Abs(term)
				}
			}
			if bias != nil {
				y, abs = y+float64(bias[j]), abs+math.Abs(float64(bias[j]))
			}
			want, sumAbs = append(want, y), append(sumAbs, abs)
		}
	}
	return want, sumAbs
}

// forEachMatrixISA also turns off the instructions of AVX-512 for tiles.
func forEachMatrixISA(t *testing.T, test func(t *testing.T)) {
	forEachISA(t, func(t *testing.T) {
		test(t)
		if active == AVX512 && setMatrices(false) {
			defer setMatrices(true)
			t.Run("without AMX", test)
		}
	})
}

// forEachIntegerISA also turns off the instructions of AVX-512 for tiles, and those for bytes.
func forEachIntegerISA(t *testing.T, test func(t *testing.T)) {
	forEachMatrixISA(t, test)
	forEachISA(t, func(t *testing.T) {
		if active == AVX512 && setVNNI(false) {
			defer setVNNI(true)
			if setMatrices(false) { // no processor has the one without the other
				defer setMatrices(true)
			}
			t.Run("without VNNI", test)
		}
	})
}

func TestGemmDynamic(t *testing.T) {
	forEachIntegerISA(t, testGemmDynamic[float32])
	t.Run("float64", testGemmDynamic[float64])
}

func testGemmDynamic[T Float](t *testing.T) {
	x := normal[T](31)
	for count, s := range products() {
		m, k, n := s[0], s[1], s[2]
		for _, kind := range quantKinds {
			if !kind.coding.Integer() {
				continue
			}
			q := kind.random(k, n, uint64(count))
			a := newGuarded(m, k, k+count%3, 1, x)
			bias := newGuarded(1, n, n, 1, x).Data
			if count%2 == 0 {
				bias = nil
			}
			c := newGuarded(m, n, n+count%4, 1, x)
			want, sumAbs := dynamicReference(a.Matrix, q, bias)
			covered := make([]int, m*n)
			GemmDynamic(c.Matrix, a.Matrix, q, Epilogue[T]{Bias: bias, After: func(i0, i1, j0, j1 int) {
				for i := i0; i < i1; i++ {
					for j := j0; j < j1; j++ {
						covered[i*n+j]++
					}
				}
			}})
			msg := fmt.Sprintf("%v m=%d k=%d n=%d", kind, m, k, n)
			c.requireIntact(t, msg)
			u := 0x1p-24
			if !is32[T]() {
				u = 0x1p-52
			}
			for i, w := range want {
				got := float64(c.Data[c.at(i/n, i%n)])
				// A rounding of the sum to float32, two of the scalings, one for each addition.
				if !(math.Abs(got-w) <= float64(q.Groups()+4)*u*sumAbs[i]) || covered[i] != 1 {
					require.FailNow(t, "wrong element", "%s (%d, %d): got %v, want %v, in %d blocks", msg, i/n, i%n, got, w, covered[i])
				}
			}
		}
	}
}

// The largest sums that can occur, of the longest rows: they are exact.
func TestGemmDynamicDoesNotOverflow(t *testing.T) {
	forEachIntegerISA(t, func(t *testing.T) {
		for _, coding := range []Coding{Code8, Code4} {
			for _, k := range []int{31, 4096, MaxQuantizedRows} {
				for _, zero := range []int{0, int(coding.Middle()), 2*int(coding.Middle()) - 1} {
					for _, code := range []int{0, 2*int(coding.Middle()) - 1} {
						for _, sign := range []float32{1, -1} {
							if testing.Short() && k == MaxQuantizedRows && (zero > 0 || code == 0 || sign < 0) {
								continue
							}
							const m, n = 7, 17
							q := &Quantized{Coding: coding, K: k, N: n, Codes: make([]uint8, coding.CodeLen(k, n)), Scales: []float32{1}, Zeros: []uint8{uint8(zero)}}
							for i := range q.Codes {
								q.Codes[i] = uint8(code)
								if coding == Code4 {
									q.Codes[i] |= uint8(code) << 4
								}
							}
							a, c := RowMajor(make([]float32, m*k), m, k), RowMajor(make([]float32, m*n), m, n)
							for i := range a.Data {
								a.Data[i] = 127 * sign
							}
							GemmDynamic(c, a, q, Epilogue[float32]{})
							want := float32(sign) * float32(127*k*(code-zero))
							for _, got := range c.Data {
								require.Equal(t, want, got, "coding %d k=%d code=%d zero=%d", coding, k, code, zero)
							}
						}
					}
				}
			}
		}
	})
}

func TestGemmDynamicRows(t *testing.T) {
	const k, n = 70, 33
	q := quantKind{coding: Code8, group: 32}.random(k, n, 1)
	forEachIntegerISA(t, func(t *testing.T) {
		a := RowMajor(make([]float32, 8*k), 8, k)
		x := normal[float32](8)
		for i := range a.Data {
			a.Data[i] = x()
		}
		clear(a.Data[k : 2*k])                       // zeros
		a.Data[2*k+69] = float32(math.NaN())         // a NaN
		a.Data[3*k+3] = float32(math.Inf(-1))        // an infinity
		a.Data[4*k+7], a.Data[4*k+8] = 1e38, -3.4e38 // the largest numbers
		for p := range k {                           // the smallest ones
			a.Data[5*k+p] *= 0x1p-120
		}
		c := RowMajor(make([]float32, 8*n), 8, n)
		GemmDynamic(c, a, q, Epilogue[float32]{})
		for j := range n {
			require.Zero(t, c.Data[n+j])
			require.True(t, math.IsNaN(float64(c.Data[2*n+j])))
			require.True(t, math.IsNaN(float64(c.Data[3*n+j])))
			require.False(t, math.IsNaN(float64(c.Data[4*n+j])))
			require.LessOrEqual(t, math.Abs(float64(c.Data[5*n+j])), 1e-27)
			require.False(t, math.IsNaN(float64(c.Data[7*n+j])))
		}
	})
}

// Products have the same bits on any number of threads.
func TestQuantizedThreads(t *testing.T) {
	old := parallel.Threads()
	defer parallel.SetThreads(old)
	sizes := [][3]int{{1, 512, 700}, {3, 500, 700}, {97, 200, 300}}
	if testing.Short() {
		sizes = [][3]int{{3, 160, 600}}
	}
	forEachIntegerISA(t, func(t *testing.T) {
		for _, s := range sizes {
			m, k, n := s[0], s[1], s[2]
			a, dy := newGuarded(m, k, k, 1, normal[float32](1)), newGuarded(m, n, n, 1, normal[float32](2))
			for _, kind := range quantKinds {
				q := kind.random(k, n, 3)
				var want [][]float32
				for _, threads := range []int{1, 2, 3, 7} {
					_, err := parallel.SetThreads(threads)
					require.NoError(t, err)
					c, d, dx := make([]float32, m*n), make([]float32, m*n), make([]float32, m*k)
					GemmQuantized(RowMajor(c, m, n), a.Matrix, q, Epilogue[float32]{})
					GemmQuantizedT(RowMajor(dx, m, k), dy.Matrix, q)
					if kind.coding.Integer() {
						GemmDynamic(RowMajor(d, m, n), a.Matrix, q, Epilogue[float32]{})
					}
					if want == nil {
						want = [][]float32{c, d, dx}
					}
					require.Equal(t, want, [][]float32{c, d, dx}, "%v, %d threads", kind, threads)
				}
			}
		}
	})
}

// A collection during a long product does not wait for it: assembly is left often enough.
func TestQuantizedLetsTheCollectorIn(t *testing.T) {
	m, k, n := 48, 1<<14, 64
	if testing.Short() {
		m = 6
	}
	a, c := RowMajor(make([]float32, m*k), m, k), RowMajor(make([]float32, m*n), m, n)
	kinds := []*Quantized{quantKind{coding: Code8}.random(k, n, 1), quantKind{coding: Code4, group: 32}.random(k, n, 1)}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				for _, q := range kinds {
					GemmDynamic(c, a, q, Epilogue[float32]{})
					GemmQuantized(c, a, q, Epilogue[float32]{})
				}
			}
		}
	}()
	for range 5 {
		start := time.Now()
		runtime.GC()
		require.Less(t, time.Since(start), time.Second)
	}
	close(stop)
	<-done
}

func TestQuantizedAllocations(t *testing.T) {
	forEachIntegerISA(t, func(t *testing.T) {
		for _, kind := range quantKinds {
			count := func(m, k, n int) float64 {
				q := kind.random(k, n, 1)
				a, c := RowMajor(make([]float32, m*k), m, k), RowMajor(make([]float32, m*n), m, n)
				run := func() {
					GemmQuantized(c, a, q, Epilogue[float32]{})
					if kind.coding.Integer() {
						GemmDynamic(c, a, q, Epilogue[float32]{})
					}
				}
				run()
				return testing.AllocsPerRun(3, run)
			}
			require.LessOrEqual(t, count(5, 64, 48), 20.0, "%v", kind)
			require.LessOrEqual(t, count(120, 300, 200), 20.0, "%v", kind)
			require.LessOrEqual(t, count(1, 300, 200), 20.0, "%v", kind)
		}
	})
}
