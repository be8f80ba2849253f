package kernel

import (
	"fmt"
	"math"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// pageEnd returns n zeros of any type that end where memory may not be touched.
func pageEnd[T uint8 | uint16 | uint32 | float32 | float64](t *testing.T, n int) []T {
	var zero T
	size := int(unsafe.Sizeof(zero))
	words := (n*size + 3) / 4
	all := atPageEnd(t, words, false)
	return unsafe.Slice((*T)(unsafe.Add(unsafe.Pointer(&all[0]), 4*words-n*size)), n)
}

// numbersAtPageEnd are n numbers at the end of a page.
func numbersAtPageEnd(t *testing.T, n int, next func() float32) []float32 {
	x := pageEnd[float32](t, n)
	for i := range x {
		x[i] = next()
	}
	return x
}

// What cuts numbers into pieces reads no number that it was not given, whichever way lines and steps lie, and writes nothing either.
func TestPiecesReadNothingBeyond(t *testing.T) {
	if !PiecesVectorized() {
		t.Skip("no AMX")
	}
	next := normal[float32](31)
	for _, lines := range []int{1, 15, 16, 17, 33, 64, 67} {
		for _, k := range []int{1, 16, 31, 32, 33, 40, 48, 64, 65, 80, 97} {
			x := numbersAtPageEnd(t, lines*k, next)
			bounds := make([]PieceBounds, tasks(lines, PieceLines))
			whole, rounded := pageEnd[uint16](t, PiecesLen(lines, k)), pageEnd[uint16](t, RoundedLen(lines, k))
			for _, m := range []Matrix[float32]{RowMajor(x, lines, k), RowMajor(x, k, lines).T()} {
				PackPiecesA(whole, m, bounds)
				PackPiecesB(whole, m.T(), bounds)
				PackRoundedA(rounded, m, bounds)
				PackRoundedB(rounded, m.T(), bounds)
				if HalfStep(k) {
					PackHalfA(whole, m, bounds)
					PackHalfB(whole, m.T(), bounds)
				}
			}
			if RowsVectorized(k) && lines <= RowsTogether {
				cut, squares := pageEnd[uint16](t, CutRowsLen(k)), pageEnd[float32](t, lines)
				CutRows(cut, x, k, lines, k, squares)
				for _, n := range []int{1, 16, 17, 33, 80} {
					b, ldc := pageEnd[uint16](t, PiecesLen(n, k)), ceilTo(n, 16)
					TileCut(lines, n, k, cut, b, pageEnd[float32](t, RowsTogether*ldc), ldc, x)
				}
			}
		}
	}
}

// Products in pieces stay within their operands, streamed or not.
func TestPieceProductsStayWithin(t *testing.T) {
	if !PiecesVectorized() {
		t.Skip("no AMX")
	}
	next := normal[float32](32)
	for _, s := range [][3]int{{129, 131, 129}, {97, 257, 65}, {257, 97, 65}, {1056, 1024, 64}} {
		m, n, k := s[0], s[1], s[2]
		a, b, c := numbersAtPageEnd(t, m*k, next), numbersAtPageEnd(t, k*n, next), pageEnd[float32](t, m*n)
		bias := numbersAtPageEnd(t, n, next)
		for _, tiny := range []float32{1, 0x1p-120, 0x1p-140} {
			a[m/2*k] *= tiny
			b[n/2] *= tiny
			msg := fmt.Sprint(s, tiny)
			for _, x := range []Matrix[float32]{RowMajor(a, m, k), RowMajor(a, k, m).T()} {
				for _, y := range []Matrix[float32]{RowMajor(b, k, n), RowMajor(b, n, k).T()} {
					Gemm(RowMajor(c, m, n), x, y, false, Epilogue[float32]{Bias: bias})
					Gemm(RowMajor(c, m, n), x, y, true, Epilogue[float32]{})
					for _, at := range []int{0, m*n/2 + 3, m*n - 1} {
						i, j := at/n, at%n
						want, size := float64(bias[j]), math.Abs(float64(bias[j]))
						for p := range k {
							v := float64(x.Data[x.at(i, p)]) * float64(y.Data[y.at(p, j)])
							want, size = want+2*v, size+2*math.Abs(v)
						}
						require.InDelta(t, want, float64(c[at]), 0x1p-24*float64(2*k+3)*size, msg)
					}
				}
			}
		}
	}
}

// Grids, codes of caches and transforms stay within what they are given.
func TestColumnsStayWithin(t *testing.T) {
	next := normal[float32](33)
	forEachISA(t, func(t *testing.T) {
		for _, cols := range []int{1, 15, 16, 17, 40, 64} {
			for _, rows := range []int{1, 2, 7} {
				n := rows * cols
				x, y, dy := numbersAtPageEnd(t, n, next), pageEnd[float32](t, n), numbersAtPageEnd(t, n, next)
				g := Grids{Scale: pageEnd[float32](t, cols), Inverse: pageEnd[float64](t, cols), Low: pageEnd[float32](t, cols), High: pageEnd[float32](t, cols)}
				for j := range cols {
					g.Set(j, 0.25, -7, 7)
				}
				sum, lo, hi := pageEnd[float64](t, cols), pageEnd[float32](t, cols), pageEnd[float32](t, cols)
				RowRange(x)
				ColumnRange(lo, hi, x, cols, rows)
				RoundColumns(y, x, cols, rows, g)
				ColumnErrors(sum, x, cols, rows, g)
				PassColumns(y, dy, x, cols, rows, g)
				LearnColumns(y, sum, dy, x, cols, rows, g)
				RoundToScale(y, x, 0.25, 4, 7)
			}
		}
		for _, block := range []int{1, 2, 8, 16, 32, 64, 128, 256} {
			Hadamard(numbersAtPageEnd(t, 3*block, next), block)
		}
		for _, bits := range []int{4, 8} {
			for _, s := range [][2]int{{16, 16}, {32, 48}, {48, 80}, {64, 144}} {
				rows, cols := s[0], s[1]
				m := KVCodes{Bits: bits, Rows: rows, Cols: cols, Codes: pageEnd[uint8](t, KVCodeLen(bits, rows, cols)),
					Scales: pageEnd[uint16](t, rows), Mins: pageEnd[uint16](t, rows)}
				for r := range rows {
					m.Scales[r], m.Mins[r] = 0x2c00, 0xc000
				}
				for _, of := range []int{1, rows - 1, rows} {
					x := numbersAtPageEnd(t, of*(cols-1), next)
					m.QuantizeCols(x, of, of, 1, cols)
					m.DequantizeCols(x, of, of, 1, cols)
				}
				for _, of := range []int{1, cols - 1, cols} {
					x := numbersAtPageEnd(t, of*rows, next)
					for r := range rows {
						m.QuantizeRow(r, x[r*of:][:of])
					}
					m.DequantizeRows(x, of, of, 0, rows)
				}
			}
		}
	})
}

// Words of pairs too.
func TestPairsStayWithin(t *testing.T) {
	restore, err := UsePairs(true)
	if err != nil {
		t.Skip(err)
	}
	defer restore()
	next := normal[float32](34)
	for _, n := range []int{1, 15, 16, 17, 64, 80} {
		PairRows(pageEnd[uint32](t, n), numbersAtPageEnd(t, n, next), numbersAtPageEnd(t, n, next))
	}
}
