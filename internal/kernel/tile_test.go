package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// awkward holds sizes below, at and above the widths of vectors, tiles and groups of rows.
var awkward = []int{0, 1, 2, 5, 6, 7, 15, 16, 17, 31, 33, 59, 63, 64, 65, 97, 130, 257}

// tested are the instruction sets to test: the one that EnvISA asks for, or all of the machine.
func tested() []ISA {
	if os.Getenv(EnvISA) != "" {
		return []ISA{Active()}
	}
	return Supported()
}

// A request that cannot be honoured must not pass as a test of what was asked for.
func TestRequestedISA(t *testing.T) { require.NoError(t, ActiveErr()) }

// forEachISA runs a test under every instruction set to test.
func forEachISA(t *testing.T, test func(t *testing.T)) {
	for _, isa := range tested() {
		t.Run(isa.String(), func(t *testing.T) {
			restore, err := Use(isa)
			require.NoError(t, err)
			defer restore()
			test(t)
		})
	}
}

// guard is the number of NaN on either side of a guarded matrix: more than a tile could reach beyond an edge.
const guard = 80

// guarded is a matrix between NaN, which also fill the gaps that its strides leave. A product that reads one of them
// becomes NaN, and intact tells whether one was written.
type guarded[T Float] struct {
	Matrix[T]
	buf  []T
	want []T // of buf where no element lies
}

const canary = 0x7fc0dead // a quiet NaN

func newGuarded[T Float](rows, cols, rowStride, colStride int, fill func() T) *guarded[T] {
	n := 0
	if rows > 0 && cols > 0 {
		n = (rows-1)*rowStride + (cols-1)*colStride + 1
	}
	g := &guarded[T]{buf: make([]T, n+2*guard+1)}
	for i := range g.buf {
		g.buf[i] = T(math.Float32frombits(canary))
	}
	// An odd start, so that no operand is aligned to a vector.
	g.Matrix = Matrix[T]{Data: g.buf[guard+1:][:n:n], Rows: rows, Cols: cols, RowStride: rowStride, ColStride: colStride}
	for i := range rows {
		for j := range cols {
			g.Data[g.at(i, j)] = fill()
		}
	}
	return g
}

// requireIntact fails if anything but an element is no longer NaN.
func (g *guarded[T]) requireIntact(t testing.TB, msg string) {
	element := make([]bool, len(g.buf))
	for i := range g.Rows {
		for j := range g.Cols {
			element[guard+1+g.at(i, j)] = true
		}
	}
	for i, x := range g.buf {
		if !element[i] && x == x {
			require.FailNow(t, "written outside of the matrix", "%s: index %d of %d is %v", msg, i-guard-1, len(g.Data), x)
		}
	}
}

func (g *guarded[T]) clone() *guarded[T] {
	c := *g
	c.buf = append([]T(nil), g.buf...)
	c.Data = c.buf[guard+1:][:len(g.Data):len(g.Data)]
	return &c
}

// normal returns a source of N(0, 1).
func normal[T Float](seed uint64) func() T {
	r := rand.New(rand.NewPCG(seed, 59))
	return func() T { return T(r.NormFloat64()) }
}

// reference is a product in float64 and the naive one in T.
type reference[T Float] struct {
	exact, sumAbs []float64
	naive         []T
}

// multiply computes scale(i)·C + A·B + bias(j); nil scale leaves C out.
func multiply[T Float](c, a, b Matrix[T], scale []T, bias []T) reference[T] {
	m, n, k := c.Rows, c.Cols, a.Cols
	ref := reference[T]{make([]float64, m*n), make([]float64, m*n), make([]T, m*n)}
	for i := range m {
		exact, sumAbs, naive := ref.exact[i*n:][:n], ref.sumAbs[i*n:][:n], ref.naive[i*n:][:n]
		if scale != nil {
			for j := range n {
				x := c.Data[c.at(i, j)]
				exact[j], sumAbs[j], naive[j] = float64(scale[i])*float64(x), math.Abs(float64(scale[i])*float64(x)), scale[i]*x
			}
		}
		for p := range k {
			x := a.Data[a.at(i, p)]
			for j := range n {
				y := b.Data[b.at(p, j)]
				exact[j] += float64(x) * float64(y)
				sumAbs[j] += math.Abs(float64(x) * float64(y))
				naive[j] += x * y
			}
		}
		if bias != nil {
			for j := range n {
				exact[j] += float64(bias[j])
				sumAbs[j] += math.Abs(float64(bias[j]))
				naive[j] += bias[j]
			}
		}
	}
	return ref
}

// requireClose holds got to two bars. Every element is within the bound that holds for any order of summation, with or
// without fused multiply-adds: |error| ≤ (k+3)·u·(Σ|a·b| + |c| + |bias|), u = 2⁻²⁴ (2⁻⁵³). And for float32 the largest error
// of the matrix is at most twice that of the naive sum, plus four roundings of the largest value for sums of a few terms,
// where the naive one can happen to be exact. NaN fails.
func (ref reference[T]) requireClose(t testing.TB, got Matrix[T], k int, msg string) {
	u := 0x1p-24
	_, double := any(T(0)).(float64)
	if double {
		u = 0x1p-52 // the reference rounds too
	}
	var worst, naive, largest float64
	for i := range got.Rows {
		for j := range got.Cols {
			at := i*got.Cols + j
			e := math.Abs(float64(got.Data[got.at(i, j)]) - ref.exact[at])
			if !(e <= float64(k+3)*u*ref.sumAbs[at]) {
				require.FailNow(t, "wrong element", "%s: (%d, %d): got %v, want %v, error %g", msg, i, j, got.Data[got.at(i, j)], ref.exact[at], e)
			}
			worst, largest = max(worst, e), max(largest, ref.sumAbs[at])
			naive = max(naive, math.Abs(float64(ref.naive[at])-ref.exact[at]))
		}
	}
	if bar := 2*naive + 4*u*largest; !double && !(worst <= bar) {
		require.FailNow(t, "less accurate than the naive sum", "%s: largest error %g, naive %g, bar %g", msg, worst, naive, bar)
	}
}

// skipCase thins the cube of sizes: a part of the large products is enough, and of those in float64, which have no assembly.
// 7 is prime to the periods in which the other properties of a case change. Under -short, which an emulated machine needs,
// small products stand for all.
func skipCase[T Float](work, count int) bool {
	_, double := any(T(0)).(float64)
	if testing.Short() {
		return double || work > 1<<14 && (work > 1<<18 || count%49 != 0)
	}
	return (double || work > 1<<18) && count%7 != 0
}

func TestTile(t *testing.T) {
	t.Run("float32", testTile[float32])
	t.Run("float64", testTile[float64])
}

func testTile[T Float](t *testing.T) {
	x := normal[T](1)
	count := 0
	for _, m := range awkward {
		for _, n := range awkward {
			for _, k := range awkward {
				if count++; skipCase[T](m*n*k, count) {
					continue
				}
				// The mode and the strides change from case to case, with periods prime to each other.
				mode, layout, gap := TileMode(count%3), count%4, count%5
				var a *guarded[T]
				switch layout {
				case 0:
					a = newGuarded(m, k, k+gap, 1, x)
				case 1:
					a = newGuarded(m, k, 1, m+gap, x)
				case 2:
					a = newGuarded(m, k, 2*k+gap, 2, x)
				case 3:
					a = newGuarded(m, k, 3, 3*m+gap, x)
				}
				b := newGuarded(k, n, n+gap, 1, x)
				c := newGuarded(m, n, n+3*gap, 1, x)
				alpha := newGuarded(m, 1, 1, 1, x)
				scale := []T(nil)
				switch mode {
				case TileSet:
					for i := range c.Data { // what it held must not matter
						c.Data[i] = T(math.NaN())
					}
				case TileAdd:
					for range m {
						scale = append(scale, 1)
					}
				case TileScaleAdd:
					scale = alpha.Data
				}
				ref := multiply(c.Matrix, a.Matrix, b.Matrix, scale, nil)
				for _, isa := range tested() {
					restore, err := Use(isa)
					require.NoError(t, err)
					got := c.clone()
					Tile(m, n, k, a.Data, a.RowStride, a.ColStride, b.Data, b.RowStride, got.Data, got.RowStride, mode, alpha.Data)
					restore()
					msg := fmt.Sprintf("%s m=%d n=%d k=%d mode=%d layout=%d gap=%d", isa, m, n, k, mode, layout, gap)
					got.requireIntact(t, msg)
					ref.requireClose(t, got.Matrix, k, msg)
				}
			}
		}
	}
}

// TileWide is held to what Tile is held to, at every width of a wide tile and around it.
func TestTileWide(t *testing.T) {
	t.Run("float32", testTileWide[float32])
	t.Run("float64", testTileWide[float64])
}

func testTileWide[T Float](t *testing.T) {
	x := normal[T](3)
	count := 0
	for _, m := range []int{0, 1, 2, 3, 4, 5, 6, 9, 10, 33} {
		for _, n := range []int{0, 1, 16, 63, 64, 65, 66, 77, 79, 80} {
			for _, k := range []int{0, 1, 2, 5, 31, 97} {
				count++
				mode, gap := TileMode(count%2), count%5
				a := newGuarded(m, k, k+gap, 1, x)
				if count%3 == 0 {
					a = newGuarded(m, k, 1, m+gap, x)
				}
				b, c := newGuarded(k, n, n+gap, 1, x), newGuarded(m, n, n+3*gap, 1, x)
				var scale []T
				for i := range c.Data {
					if mode == TileSet { // what it held must not matter
						c.Data[i] = T(math.NaN())
					}
				}
				for range m {
					if mode == TileAdd {
						scale = append(scale, 1)
					}
				}
				ref := multiply(c.Matrix, a.Matrix, b.Matrix, scale, nil)
				for _, isa := range tested() {
					restore, err := Use(isa)
					require.NoError(t, err)
					got := c.clone()
					TileWide(m, n, k, a.Data, a.RowStride, a.ColStride, b.Data, b.RowStride, got.Data, got.RowStride, mode)
					restore()
					msg := fmt.Sprintf("%s m=%d n=%d k=%d mode=%d gap=%d", isa, m, n, k, mode, gap)
					got.requireIntact(t, msg)
					ref.requireClose(t, got.Matrix, k, msg)
				}
			}
		}
	}
	require.Panics(t, func() { TileWide(1, 81, 0, nil, 0, 0, nil, 0, make([]T, 81), 81, TileSet) })
	require.Panics(t, func() { TileWide(1, 1, 0, nil, 0, 0, nil, 0, make([]T, 1), 1, TileScaleAdd) })
}

// A long k, or many rows, are cut into several calls of assembly.
func TestTileWideIsCut(t *testing.T) {
	for _, s := range [][3]int{{7, 77, 1<<14 + 13}, {211, 80, 97}} {
		m, n, k := s[0], s[1], s[2]
		x := normal[float32](4)
		a, b, c := newGuarded(m, k, k, 1, x), newGuarded(k, n, n, 1, x), newGuarded(m, n, n, 1, x)
		ref := multiply(c.Matrix, a.Matrix, b.Matrix, nil, nil)
		forEachISA(t, func(t *testing.T) {
			got := c.clone()
			TileWide(m, n, k, a.Data, k, 1, b.Data, n, got.Data, n, TileSet)
			got.requireIntact(t, "")
			ref.requireClose(t, got.Matrix, k, "")
		})
	}
}

// A packed B gives the very same sums, whatever its layout was.
func TestTilePacked(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		for _, s := range [][3]int{{1, 1, 1}, {6, 16, 64}, {7, 59, 59}, {96, 97, 33}, {13, 130, 6}, {5, 64, 0}, {3, 0, 4}, {0, 3, 4}, {20, 257, 130}} {
			m, n, k := s[0], s[1], s[2]
			for _, layout := range layouts {
				g := gemmCase{gap: 3}
				x := normal[float32](11)
				rs, cs := g.operand(k, n, layout)
				b := newGuarded(k, n, rs, cs, x)
				a, c := newGuarded(m, k, k, 1, x), newGuarded(m, n, n+1, 1, x)
				packed := newGuarded(1, PackedLen[float32](k, n), PackedLen[float32](k, n), 1, func() float32 { return float32(math.NaN()) })
				Pack(packed.Data, b.Matrix)
				packed.requireIntact(t, layout)
				dense := newGuarded(k, n, n, 1, x)
				for p := range k {
					for j := range n {
						dense.Data[dense.at(p, j)] = b.Data[b.at(p, j)]
					}
				}
				alpha := newGuarded(1, m, m, 1, x).Data
				want, got := c.clone(), c.clone()
				Tile(m, n, k, a.Data, k, 1, dense.Data, n, want.Data, n+1, TileScaleAdd, alpha)
				TilePacked(m, n, k, a.Data, k, 1, packed.Data, got.Data, n+1, TileScaleAdd, alpha)
				got.requireIntact(t, layout)
				for i := range m {
					for j := range n {
						require.Equal(t, want.Data[want.at(i, j)], got.Data[got.at(i, j)], "%v %s (%d, %d)", s, layout, i, j)
					}
				}
			}
		}
	})
}

// A long k is cut into several calls of assembly.
func TestTileLongK(t *testing.T) {
	const m, n, k = 7, 19, 1<<14 + 13
	x := normal[float32](2)
	a, b, c := newGuarded(m, k, k, 1, x), newGuarded(k, n, n, 1, x), newGuarded(m, n, n, 1, x)
	alpha := newGuarded(m, 1, 1, 1, x)
	ref := multiply(c.Matrix, a.Matrix, b.Matrix, alpha.Data, nil)
	forEachISA(t, func(t *testing.T) {
		got := c.clone()
		Tile(m, n, k, a.Data, k, 1, b.Data, n, got.Data, n, TileScaleAdd, alpha.Data)
		got.requireIntact(t, "")
		ref.requireClose(t, got.Matrix, k, "")
	})
}

// What is not finite stays in its row of A and its column of B.
func TestTileNotFinite(t *testing.T) {
	const m, n, k = 13, 37, 9
	forEachISA(t, func(t *testing.T) {
		x := normal[float32](3)
		a, b, c := newGuarded(m, k, k, 1, x), newGuarded(k, n, n, 1, x), newGuarded(m, n, n, 1, x)
		a.Data[a.at(4, 3)] = float32(math.NaN())
		b.Data[b.at(2, 35)] = float32(math.Inf(1))
		Tile(m, n, k, a.Data, k, 1, b.Data, n, c.Data, n, TileSet, nil)
		for i := range m {
			for j := range n {
				y := float64(c.Data[c.at(i, j)])
				require.Equal(t, i == 4, math.IsNaN(y), "NaN at (%d, %d): %v", i, j, y)
				require.Equal(t, i != 4 && j == 35, math.IsInf(y, 0), "Inf at (%d, %d): %v", i, j, y)
			}
		}
	})
}

func TestTileChecksLengths(t *testing.T) {
	s := make([]float32, 6)
	for name, call := range map[string]func(){
		"A":     func() { Tile(2, 2, 3, s[:5], 3, 1, s, 2, s, 2, TileSet, nil) },
		"B":     func() { Tile(2, 2, 3, s, 3, 1, s[:5], 2, s, 2, TileSet, nil) },
		"C":     func() { Tile(2, 2, 3, s, 3, 1, s, 2, s[:3], 2, TileSet, nil) },
		"alpha": func() { Tile(2, 2, 3, s, 3, 1, s, 2, s, 2, TileScaleAdd, s[:1]) },
	} {
		require.Panics(t, call, name)
	}
}

func TestTileAllocatesNothing(t *testing.T) {
	x := normal[float32](4)
	a, b, c := newGuarded(33, 40, 40, 1, x), newGuarded(40, 59, 59, 1, x), newGuarded(33, 59, 59, 1, x)
	forEachISA(t, func(t *testing.T) {
		require.Zero(t, testing.AllocsPerRun(10, func() {
			Tile(33, 59, 40, a.Data, 40, 1, b.Data, 59, c.Data, 59, TileScaleAdd, b.Data)
		}))
	})
}
