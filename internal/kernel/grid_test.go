package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// gridCase is a matrix with rows ld apart between numbers that nothing may touch, and the grids of its columns.
type gridCase struct {
	ld, rows, cols int
	x, dy          []float32
	g              Grids
}

// newGridCase fills a matrix with numbers of which many lie on the border between two codes, as near as float32 comes to it, or
// beyond the codes.
func newGridCase(r *rand.Rand, rows, cols int, symmetric bool) gridCase {
	c := gridCase{ld: cols + r.IntN(3), rows: rows, cols: cols}
	c.x, c.dy = make([]float32, rows*c.ld+3), make([]float32, rows*c.ld+3)
	c.g = MakeGrids(cols, make([]float32, GridFloats(cols)), make([]float64, cols))
	for j := range cols {
		scale := float32(math.Exp(3 * r.NormFloat64()))
		switch r.IntN(6) {
		case 0:
			scale = float32(math.Ldexp(1, r.IntN(40)-20))
		case 1:
			scale = float32(r.IntN(100)+1) / 16 // so that ties are exact
		case 2:
			scale = 0x1p-126
		}
		most := []int{7, 127}[r.IntN(2)]
		low := -most
		if !symmetric {
			low = -r.IntN(2*most + 1)
		}
		c.g.Set(j, scale, low, low+2*most)
	}
	for i := range c.x {
		j := i % c.ld
		if j >= cols {
			c.x[i], c.dy[i] = float32(math.NaN()), float32(math.NaN())
			continue
		}
		s := c.g.Scale[j]
		switch r.IntN(4) {
		case 0:
			c.x[i] = s * float32(r.NormFloat64()*float64(c.g.High[j]))
		case 1:
			c.x[i] = float32(float64(s) * (float64(r.IntN(600)-300) + 0.5))
		case 2:
			c.x[i] = math.Nextafter32(float32(float64(s)*(float64(r.IntN(40)-20)+0.5)), float32(r.IntN(3)-1)*math.MaxFloat32)
		case 3:
			c.x[i] = float32(math.Copysign(0, r.Float64()-0.5))
		}
		c.dy[i] = float32(r.NormFloat64())
	}
	return c
}

// Every instruction set gives the bits of plain loops: float64 division, rounding and sums in the order of rows.
func TestGridsAgainstPlainLoops(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		for _, size := range [][2]int{{1, 1}, {3, 15}, {32, 16}, {5, 17}, {33, 64}, {7, 100}, {1, 1024}, {70, 48}, {3000, 16}} {
			for _, symmetric := range []bool{true, false} {
				c := newGridCase(r, size[0], size[1], symmetric)
				want, dx := append([]float32(nil), c.dy...), append([]float32(nil), c.dy...)
				lo, hi, sums, learned := make([]float32, c.cols), make([]float32, c.cols), make([]float64, c.cols), make([]float64, c.cols)
				learnedX := append([]float32(nil), c.dy...)
				for i := range c.rows {
					for j := range c.cols {
						at := i*c.ld + j
						s, x := float64(c.g.Scale[j]), float64(c.x[at])
						lo[j], hi[j] = min(lo[j], c.x[at]), max(hi[j], c.x[at])
						q := max(float64(c.g.Low[j]), min(float64(c.g.High[j]), math.RoundToEven(x/s)))
						want[at] = c.g.Scale[j] * float32(int(q))
						d := float64(want[at]) - x
						sums[j] += float64(d * d)
						if v := x / s; v < float64(c.g.Low[j])-0.5 || v > float64(c.g.High[j])+0.5 {
							dx[at] = 0
						}
						dy, most := float64(c.dy[at]), float64(c.g.High[j])
						ds := math.RoundToEven(x/s) - x/s
						switch v := x / s; {
						case v >= most:
							ds, learnedX[at] = most, 0
						case v <= -most:
							ds, learnedX[at] = -most, 0
						}
						learned[j] += float64(ds * dy)
					}
				}
				y := append([]float32(nil), c.dy...)
				RoundColumns(y, c.x, c.ld, c.rows, c.g)
				requireBits(t, want, y)
				y = append(y[:0], c.dy...)
				PassColumns(y, c.dy, c.x, c.ld, c.rows, c.g)
				requireBits(t, dx, y)
				gotLo, gotHi, gotSums := make([]float32, c.cols), make([]float32, c.cols), make([]float64, c.cols)
				ColumnRange(gotLo, gotHi, c.x, c.ld, c.rows)
				require.Equal(t, lo, gotLo)
				require.Equal(t, hi, gotHi)
				ColumnErrors(gotSums, c.x, c.ld, c.rows, c.g)
				require.Equal(t, sums, gotSums)
				if symmetric {
					clear(gotSums)
					y = append(y[:0], c.dy...)
					LearnColumns(y, gotSums, c.dy, c.x, c.ld, c.rows, c.g)
					requireBits(t, learnedX, y)
					require.Equal(t, learned, gotSums)
				}
				row := c.x[:c.cols]
				gotLow, gotHigh := RowRange(row)
				low, high := row[0], row[0]
				for _, v := range row {
					low, high = min(low, v), max(high, v)
				}
				require.True(t, low == gotLow && high == gotHigh, "range of a row: got %v to %v, want %v to %v", gotLow, gotHigh, low, high)
			}
		}
	})
}

// requireBits compares numbers, NaN among them, by their bits.
func requireBits(t *testing.T, want, got []float32) {
	t.Helper()
	require.Equal(t, len(want), len(got))
	for i, w := range want {
		if math.Float32bits(w) != math.Float32bits(got[i]) {
			t.Fatalf("element %d: got %v, want %v", i, got[i], w)
		}
	}
}

func TestRoundToScale(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(7, 8))
		for _, n := range []int{0, 1, 15, 16, 33, 100, maxCall + 7} {
			x, y, want := make([]float32, n), make([]float32, n), make([]float32, n)
			for i := range x {
				x[i] = float32(r.NormFloat64())
				switch r.IntN(20) {
				case 0:
					x[i] = float32(math.NaN())
				case 1:
					x[i] = float32(math.Inf(1 - 2*r.IntN(2)))
				case 2:
					x[i] = float32(r.IntN(20)-10) / 8
				}
			}
			for _, end := range []float32{1, float32(math.Inf(1))} {
				for i, v := range x {
					want[i] = 0.25 * float32(math.RoundToEven(float64(min(max(v, -end), end)*4)))
				}
				RoundToScale(y, x, 0.25, 4, end)
				for i := range y {
					require.True(t, want[i] != want[i] && y[i] != y[i] || math.Float32bits(want[i]) == math.Float32bits(y[i]), "got %v, want %v", y[i], want[i])
				}
			}
		}
	})
}
