package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// needPieces skips a test of what only matrix tiles have.
func needPieces(t testing.TB) {
	if !PiecesVectorized() {
		t.Skip("no AMX")
	}
}

// piece is piece l of line i, step p of packed pieces.
func piece(packed []uint16, k, i, p, l int, byStep bool) float64 {
	tile := packed[i/PieceLines*PiecePanel(k)+(p/PieceSteps*pieceParts+l)*pieceTile:]
	i, q, h := i%PieceLines, p%16, p%PieceSteps/16
	if byStep {
		i, q = q, i
	}
	return float64(math.Float32frombits(uint32(tile[32*i+2*q+h]) << 16))
}

// Pieces add up to the numbers, in both orders, from any strides, and bounds are theirs.
func TestPackPieces(t *testing.T) {
	needPieces(t)
	x := normal[float32](1)
	for count, lines := range []int{1, 5, 15, 16, 17, 33, 257, 272} {
		for _, k := range []int{1, 5, 15, 16, 17, 31, 32, 33, 64, 97} {
			for _, layout := range layouts {
				rs, cs := gemmCase{gap: count % 4}.operand(lines, k, layout)
				a := newGuarded(lines, k, rs, cs, x)
				a.Data[a.at(lines-1, k-1)] = 0
				for _, byStep := range []bool{false, true} {
					dst := make([]uint16, PiecesLen(lines, k)+1)
					for i := range dst {
						dst[i] = 0x7fff
					}
					bounds := make([]PieceBounds, tasks(lines, PieceLines))
					if byStep {
						PackPiecesB(dst, a.T(), bounds)
					} else {
						PackPiecesA(dst, a.Matrix, bounds)
					}
					require.EqualValues(t, 0x7fff, dst[len(dst)-1])
					want := make([]PieceBounds, len(bounds))
					for i := range want {
						want[i].least = math.MaxUint32
					}
					for i := range lines {
						for p := range k {
							v := a.Data[a.at(i, p)]
							h, m, l := piece(dst, k, i, p, 0, byStep), piece(dst, k, i, p, 1, byStep), piece(dst, k, i, p, 2, byStep)
							if h+m+l != float64(v) || math.Abs(m) > 0x1p-8*math.Abs(h) || math.Abs(l) > 0x1p-16*math.Abs(h) {
								require.FailNow(t, "pieces", "%d×%d %s byStep=%t (%d, %d): got %g + %g + %g, want %g", lines, k, layout, byStep, i, p, h, m, l, v)
							}
							u := math.Float32bits(v) &^ (1 << 31)
							b := &want[i/PieceLines]
							b.least, b.most = min(b.least, u-1), max(b.most, u)
						}
						for p := k; p < ceilTo(k, PieceSteps); p++ {
							for l := range pieceParts {
								require.Zero(t, piece(dst, k, i, p, l, byStep))
							}
						}
					}
					require.Equal(t, want, bounds)
				}
			}
		}
	}
}

func TestTilePieces(t *testing.T) {
	needPieces(t)
	x := normal[float32](2)
	for count, m := range []int{1, 16, 17, 32, 33, 48, 97} {
		for _, n := range []int{1, 16, 17, 32, 33, 80} {
			for _, k := range []int{0, 1, 31, 32, 64, 97} {
				a, b, c := newGuarded(m, k, k, 1, x), newGuarded(k, n, n, 1, x), newGuarded(m, n, n+count%3, 1, x)
				pa, pb := make([]uint16, PiecesLen(m, k)), make([]uint16, PiecesLen(n, k))
				PackPiecesA(pa, a.Matrix, make([]PieceBounds, tasks(m, PieceLines)))
				PackPiecesB(pb, b.Matrix, make([]PieceBounds, tasks(n, PieceLines)))
				for _, mode := range []TileMode{TileSet, TileAdd} {
					var scale []float32
					got := c.clone()
					if mode == TileAdd {
						for range m {
							scale = append(scale, 1)
						}
					} else {
						for i := range m {
							for j := range n {
								got.Data[got.at(i, j)] = float32(math.NaN())
							}
						}
					}
					TilePieces(m, n, k, pa, pb, got.Data, got.RowStride, mode)
					msg := fmt.Sprintf("m=%d n=%d k=%d mode=%d", m, n, k, mode)
					got.requireIntact(t, msg)
					multiply(c.Matrix, a.Matrix, b.Matrix, scale, nil).requireClose(t, got.Matrix, k, msg)
				}
			}
		}
	}
}

// Bounds tell apart what pieces hold from what they would lose.
func TestPieceBounds(t *testing.T) {
	of := func(x ...float64) PieceBounds {
		b := PieceBounds{least: math.MaxUint32}
		for _, v := range x {
			u := math.Float32bits(float32(v)) &^ (1 << 31)
			b.least, b.most = min(b.least, u-1), max(b.most, u)
		}
		return b
	}
	for _, c := range []struct {
		x    []float64
		want bool
	}{
		{nil, true}, {[]float64{0}, true}, {[]float64{0, 1, -3}, true}, {[]float64{0x1p-102}, true}, {[]float64{0x1.fffffep-103, 1}, false},
		{[]float64{0x1p-149}, false}, {[]float64{0x1.fffffep109}, true}, {[]float64{0x1p110}, false}, {[]float64{math.MaxFloat32}, false},
		{[]float64{math.Inf(-1), 0}, false}, {[]float64{1, math.NaN()}, false},
	} {
		require.Equal(t, c.want, of(c.x...).Exact(), "%v", c.x)
		other := of(1) // such that no product is beyond the range
		if of(c.x...).most > of(1).most {
			other = of(0x1p-20)
		}
		require.Equal(t, c.want, of(c.x...).Safe(other, 1), "%v", c.x)
		require.Equal(t, c.want, other.Safe(of(c.x...), 1), "%v", c.x)
	}
	require.False(t, of(0x1p-60).Safe(of(0x1p-50), 1), "a product of pieces below 2^-126")
	require.True(t, of(0x1p-60).Safe(of(0x1p-42), 1))
	require.True(t, of(0x1p60).Safe(of(0x1p60), 31))
	require.False(t, of(0x1p60).Safe(of(0x1p60), 32), "a sum beyond 2^127")
	require.False(t, of(0x1p80).Safe(of(0x1p80), 1))
}

// BenchmarkPieces times packing and products from the cache.
func BenchmarkPieces(b *testing.B) {
	needPieces(b)
	const m, n = 64, 256
	for _, k := range []int{64, 256, 768} {
		A, B, C := RowMajor(filled(m*k), m, k), RowMajor(filled(k*n), k, n), filled(m*n)
		pa, pb, bounds := make([]uint16, PiecesLen(m, k)), make([]uint16, PiecesLen(n, k)), make([]PieceBounds, n/PieceLines)
		PackPiecesA(pa, A, bounds)
		PackPiecesB(pb, B, bounds)
		b.Run(fmt.Sprintf("k=%d/product", k), func(b *testing.B) {
			flops(2*m*n*float64(k), 1).Run(b, func() { TilePieces(m, n, k, pa, pb, C, n, TileSet) })
		})
		for name, pack := range map[string]func(){
			"rows": func() { PackPiecesA(pa, A, bounds) }, "rowsT": func() { PackPiecesA(pa, RowMajor(A.Data, k, m).T(), bounds) },
			"columns": func() { PackPiecesB(pb, B, bounds) }, "columnsT": func() { PackPiecesB(pb, RowMajor(B.Data, n, k).T(), bounds) },
		} {
			b.Run(fmt.Sprintf("k=%d/pack=%s", k, name), func(b *testing.B) {
				for b.Loop() {
					pack()
				}
				lines := m
				if name[0] == 'c' {
					lines = n
				}
				b.ReportMetric(float64(lines*k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelements/s")
			})
		}
	}
}
