package kernel

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/parallel"
)

func needRows(t testing.TB) {
	if !RowsVectorized(PieceSteps) {
		t.Skip("no AMX")
	}
}

// Pieces of rows add up to the numbers, and squares are theirs but for the roundings of the longest way through their sum: k/32 steps of a
// lane, and five to bring the lanes together. Nothing beside them is written.
func TestCutRows(t *testing.T) {
	needRows(t)
	x := normal[float32](1)
	for _, rows := range []int{1, 2, 15, 33, 64} {
		for _, k := range []int{32, 64, 96, 512} {
			a := newGuarded(rows, k, k+5, 1, x)
			a.Data[a.at(rows-1, k-1)] = 0
			dst, squares := make([]uint16, CutRowsLen(k)+1), make([]float32, rows+1)
			dst[len(dst)-1], squares[rows] = 0x7fff, 7
			CutRows(dst, a.Data, k+5, rows, k, squares)
			require.EqualValues(t, 0x7fff, dst[len(dst)-1])
			require.EqualValues(t, 7, squares[rows])
			for i := range rows {
				var want float64
				for p := range k {
					v, sum := float64(a.Data[a.at(i, p)]), 0.0
					want += v * v
					for l := range pieceParts {
						sum += float64(math.Float32frombits(uint32(dst[i*cutStride(k)+32*(p/32*3+l)+2*(p%16)+p%32/16]) << 16))
					}
					require.Equal(t, v, sum, "%d×%d (%d, %d)", rows, k, i, p)
				}
				require.InEpsilon(t, want, squares[i], min(1e-6, float64(k/32+5)*0x1p-24), "%d×%d row %d", rows, k, i)
			}
		}
	}
}

// The product errs no more than twice as much as a plain float32 sum does, and four roundings of a number between 4 and 8: of one element,
// the plain sum may be exact by chance.
func TestTileCut(t *testing.T) {
	needRows(t)
	x := normal[float32](2)
	for _, rows := range []int{1, 17, 32, 33, 64} {
		for _, n := range []int{1, 16, 17, 33, 77, 80} {
			for _, k := range []int{32, 96, 512} {
				a, b := make([]float32, rows*k), make([]float32, k*n)
				for i := range a {
					a[i] = x()
				}
				for i := range b {
					b[i] = x()
				}
				ldc := ceilTo(n, 16) + 16
				cutA, cutB := make([]uint16, CutRowsLen(k)), make([]uint16, PiecesLen(n, k))
				squares := make([]float32, rows)
				c := make([]float32, RowsTogether*ldc)
				for i := range c {
					c[i] = 7
				}
				CutRows(cutA, a, k, rows, k, squares)
				PackPiecesB(cutB, RowMajor(b, k, n), make([]PieceBounds, tasks(n, PieceLines)))
				TileCut(rows, n, k, cutA, cutB, c, ldc, a)
				var worst, naive float64
				for i := range rows {
					for j := range n {
						var want float64
						var plain float32
						for p := range k {
							want += float64(a[i*k+p]) * float64(b[p*n+j])
							plain += a[i*k+p] * b[p*n+j]
						}
						worst = max(worst, math.Abs(float64(c[i*ldc+j])-want))
						naive = max(naive, math.Abs(float64(plain)-want))
					}
					for _, v := range c[i*ldc+ldc-16 : i*ldc+ldc] {
						require.EqualValues(t, 7, v)
					}
				}
				require.LessOrEqual(t, worst, 2*naive+4*0x1p-22, "%d×%d×%d", rows, n, k)
			}
		}
	}
}

// More rows than the assembly takes, and rows that are no whole steps, are reported: it would leave some of the former out.
func TestRowsTogetherAreChecked(t *testing.T) {
	const k = 2 * PieceSteps
	cut, b, c, x := make([]uint16, 2*CutRowsLen(k)), make([]uint16, PiecesLen(16, k)), make([]float32, 2*RowsTogether*16), make([]float32, 2*RowsTogether*k)
	for _, s := range [][2]int{{RowsTogether + 1, k}, {1, k - 1}, {1, 0}} {
		want := fmt.Sprintf("got %d rows of %d numbers, want at most 64 of a multiple of 32", s[0], s[1])
		require.PanicsWithValue(t, "kernel: CutRows: "+want, func() { CutRows(cut, x, k, s[0], s[1], c) })
		require.PanicsWithValue(t, "kernel: TileCut: "+want, func() { TileCut(s[0], 16, s[1], cut, b, c, 16, nil) })
	}
}

// BenchmarkTileCut is 77 columns times 64 rows of 512, in GFLOP/s: cut, multiplied, and both over rows that do not fit in the cache.
func BenchmarkTileCut(b *testing.B) {
	needRows(b)
	const n, k, all = 77, 512, 2304
	x := normal[float32](2)
	rows := make([]float32, all*k)
	for i := range rows {
		rows[i] = x()
	}
	cutA, cutB := parallel.Scratch[uint16](new(parallel.Worker), 0, CutRowsLen(k)), parallel.Scratch[uint16](new(parallel.Worker), 0, PiecesLen(n, k))
	squares, c := make([]float32, RowsTogether), parallel.Scratch[float32](new(parallel.Worker), 0, RowsTogether*80)
	PackPiecesB(cutB, RowMajor(rows, n, k).T(), make([]PieceBounds, 5))
	report := func(b *testing.B, rows int) {
		b.ReportMetric(2*n*k*float64(rows)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	}
	b.Run("cut", func(b *testing.B) {
		for b.Loop() {
			CutRows(cutA, rows, k, RowsTogether, k, squares)
		}
		report(b, RowsTogether)
	})
	b.Run("multiply", func(b *testing.B) {
		for b.Loop() {
			TileCut(RowsTogether, n, k, cutA, cutB, c, 80, nil)
		}
		report(b, RowsTogether)
	})
	for _, ahead := range []int{0, 1, 2} {
		b.Run(fmt.Sprintf("both/ahead=%d", ahead), func(b *testing.B) {
			for b.Loop() {
				for i := 0; i < all; i += RowsTogether {
					CutRows(cutA, rows[i*k:], k, RowsTogether, k, squares)
					var next []float32
					if ahead > 0 {
						next = rows[min(i+ahead*RowsTogether, all-RowsTogether)*k:]
					}
					TileCut(RowsTogether, n, k, cutA, cutB, c, 80, next)
				}
			}
			report(b, all)
		})
	}
}
