package kernel

import (
	"fmt"
	"math"
)

// Grids are the numbers that codes of each column of a matrix stand for: scale·q for whole numbers q from low to high. All slices
// have an element for each column.
//
// Quotients x/scale are taken in float64 and rounded to nearest, ties to even, so that the nearest q of two float32 is exact.
type Grids struct {
	Scale     []float32 // normal numbers, positive
	Inverse   []float64 // 1/Scale, rounded
	Low, High []float32 // whole numbers
}

// MakeGrids returns room for n columns in memory of GridFloats(n) float32 and n float64 numbers.
func MakeGrids(n int, floats []float32, inverse []float64) Grids {
	return Grids{Scale: floats[:n:n], Low: floats[n : 2*n : 2*n], High: floats[2*n : 3*n : 3*n], Inverse: inverse[:n:n]}
}

// GridFloats is the number of float32 numbers that MakeGrids wants.
func GridFloats(n int) int { return 3 * n }

// Set stores the grid of column j.
func (g *Grids) Set(j int, scale float32, low, high int) {
	g.Scale[j], g.Inverse[j], g.Low[j], g.High[j] = scale, 1/float64(scale), float32(low), float32(high)
}

// Value is the number of column j nearest to x, never −0.
func (g *Grids) Value(j int, x float32) float32 {
	q := math.RoundToEven(float64(x) / float64(g.Scale[j]))
	return g.Scale[j] * float32(int(min(max(q, float64(g.Low[j])), float64(g.High[j]))))
}

func (g *Grids) check(fn string, cols int) {
	for _, n := range []int{len(g.Inverse), len(g.Low), len(g.High)} {
		if n != len(g.Scale) || n < cols {
			panic(fmt.Sprintf("kernel: %s: got grids of %d, %d, %d and %d columns, want %d", fn, len(g.Scale), len(g.Inverse), len(g.Low), len(g.High), cols))
		}
	}
}

// checkColumns checks matrices of rows×cols numbers, rows ld apart.
func checkColumns(fn string, ld, rows, cols int, matrices ...[]float32) {
	if ld < cols || cols < 1 {
		panic(fmt.Sprintf("kernel: %s: got %d columns with stride %d, want at least 1 and at most the stride", fn, cols, ld))
	}
	for _, x := range matrices {
		checkLen(fn, len(x), (rows-1)*ld+cols)
	}
}

// gridPieces calls simd for whole vectors of columns, in pieces of rows that one assembly call may take, and returns the number of
// columns that are done.
func gridPieces(ld, rows, cols int, simd func(row, rows, cols int) bool) int {
	whole := cols &^ 15
	if whole == 0 || active == Generic {
		return 0
	}
	step := max(1, maxCall/whole)
	for i := 0; i < rows; i += step {
		if !simd(i, min(step, rows-i), whole) {
			return 0
		}
		if i+step < rows {
			breathe()
		}
	}
	return whole
}

// RowRange returns the smallest and the largest of x, which has an element and no NaN.
func RowRange(x []float32) (lo, hi float32) {
	lo, hi = x[0], x[0]
	if n := len(x) &^ 15; n > 0 && n <= maxCall {
		if l, h, ok := rowRangeSIMD(x[:n]); ok {
			lo, hi, x = l, h, x[n:]
		}
	}
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}

// ColumnRange computes lo[j] = min(lo[j], x[i·ld+j]) and hi[j] = max(hi[j], x[i·ld+j]) for i < rows and j < len(lo). x has no NaN.
func ColumnRange(lo, hi, x []float32, ld, rows int) {
	if rows == 0 {
		return
	}
	sameLen("ColumnRange", len(lo), len(hi))
	checkColumns("ColumnRange", ld, rows, len(lo), x)
	done := gridPieces(ld, rows, len(lo), func(i, n, cols int) bool { return columnRangeSIMD(lo, hi, x[i*ld:], ld, n, cols) })
	if done == len(lo) {
		return
	}
	for i := range rows {
		for j, v := range x[i*ld+done : i*ld+len(lo)] {
			lo[done+j], hi[done+j] = min(lo[done+j], v), max(hi[done+j], v)
		}
	}
}

// RoundColumns computes y[i·ld+j] = the value of column j nearest to x[i·ld+j], for i < rows and all columns of g. x is finite; y
// may be x.
func RoundColumns(y, x []float32, ld, rows int, g Grids) {
	if rows == 0 {
		return
	}
	cols := len(g.Scale)
	g.check("RoundColumns", cols)
	checkColumns("RoundColumns", ld, rows, cols, x, y)
	done := gridPieces(ld, rows, cols, func(i, n, cols int) bool { return roundColumnsSIMD(y[i*ld:], x[i*ld:], ld, n, cols, g) })
	if done == cols {
		return
	}
	for i := range rows {
		for j := done; j < cols; j++ {
			y[i*ld+j] = g.Value(j, x[i*ld+j])
		}
	}
}

// ColumnErrors adds (y − x)² to sum[j], with y of RoundColumns, in float64 and in the order of the rows.
func ColumnErrors(sum []float64, x []float32, ld, rows int, g Grids) {
	if rows == 0 {
		return
	}
	cols := len(g.Scale)
	g.check("ColumnErrors", cols)
	checkColumns("ColumnErrors", ld, rows, cols, x)
	sameLen("ColumnErrors", len(sum), cols)
	done := gridPieces(ld, rows, cols, func(i, n, cols int) bool { return columnErrorsSIMD(sum, x[i*ld:], ld, n, cols, g) })
	for i := 0; i < rows && done < cols; i++ {
		for j := done; j < cols; j++ {
			d := float64(g.Value(j, x[i*ld+j])) - float64(x[i*ld+j])
			sum[j] += float64(d * d) // rounded: no processor makes one multiply-add of it
		}
	}
}

// PassColumns is the gradient of RoundColumns straight through the rounding: dx = dy where Low − ½ ≤ x/Scale ≤ High + ½, 0 elsewhere.
func PassColumns(dx, dy, x []float32, ld, rows int, g Grids) {
	if rows == 0 {
		return
	}
	cols := len(g.Scale)
	g.check("PassColumns", cols)
	checkColumns("PassColumns", ld, rows, cols, x, dx, dy)
	done := gridPieces(ld, rows, cols, func(i, n, cols int) bool {
		return passColumnsSIMD(dx[i*ld:], dy[i*ld:], x[i*ld:], ld, n, cols, g)
	})
	for i := 0; i < rows && done < cols; i++ {
		for j := done; j < cols; j++ {
			at := i*ld + j
			dx[at] = 0
			if v := float64(x[at]) / float64(g.Scale[j]); v >= float64(g.Low[j])-0.5 && v <= float64(g.High[j])+0.5 {
				dx[at] = dy[at]
			}
		}
	}
}

// LearnColumns is the gradient of RoundColumns and of its scales, for grids with Low = −High: with v = x/Scale
//
//	dx = dy where Low < v < High, 0 elsewhere
//	sum[j] += dy·(round(v) − v  where Low < v < High,  Low where v ≤ Low,  High where v ≥ High)
//
// in float64 and in the order of the rows.
func LearnColumns(dx []float32, sum []float64, dy, x []float32, ld, rows int, g Grids) {
	if rows == 0 {
		return
	}
	cols := len(g.Scale)
	g.check("LearnColumns", cols)
	checkColumns("LearnColumns", ld, rows, cols, x, dx, dy)
	sameLen("LearnColumns", len(sum), cols)
	done := gridPieces(ld, rows, cols, func(i, n, cols int) bool {
		return learnColumnsSIMD(dx[i*ld:], sum, dy[i*ld:], x[i*ld:], ld, n, cols, g)
	})
	for i := 0; i < rows && done < cols; i++ {
		for j := done; j < cols; j++ {
			at := i*ld + j
			var ds float64
			dx[at], ds = Learn(float64(x[at])/float64(g.Scale[j]), float64(g.High[j]), dy[at])
			sum[j] += ds
		}
	}
}

// Learn is dx and the term of a scale's gradient for one number v in units of its scale, codes from −most to most.
func Learn[T Float](v, most float64, dy T) (dx T, ds float64) {
	switch {
	case v >= most:
		return 0, float64(most * float64(dy)) // rounded, as in ColumnErrors
	case v <= -most:
		return 0, float64(-most * float64(dy))
	}
	ds = math.RoundToEven(v) - v
	ds = float64(ds * float64(dy))
	return dy, ds
}

// RoundToScale computes y[i] = scale·round(clamp(x[i], −end, end)·inverse), in the arithmetic of T, ties to even. A NaN stays one.
func RoundToScale[T Float](y, x []T, scale, inverse, end T) {
	sameLen("RoundToScale", len(y), len(x))
	if is32[T]() && roundToScaleSIMD(as32(y), as32(x), float32(scale), float32(inverse), float32(end)) {
		return
	}
	for i, v := range x {
		y[i] = scale * T(math.RoundToEven(float64(min(max(v, -end), end)*inverse)))
	}
}
