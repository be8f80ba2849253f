package kernel

import "math"

// The reductions add in a fixed order that depends on the instruction set and the length only: the same input gives the same
// bits. A NaN in the input makes every one of them NaN. The portable versions add in float64.

// pieces calls f on [i, j) for consecutive pieces of n elements that one assembly call may take.
func pieces(n int, f func(i, j int)) {
	for i := 0; i < n; i += maxCall {
		f(i, min(i+maxCall, n))
		breathe()
	}
}

// Sum returns Σ xᵢ.
func Sum[T Float](x []T) T {
	var s float64
	if is32[T]() && active != Generic {
		x := as32(x)
		pieces(len(x), func(i, j int) {
			p, _ := simdSum(x[i:j], j-i)
			s += float64(p)
		})
		return T(s)
	}
	for _, v := range x {
		s += float64(v)
	}
	return T(s)
}

// Dot returns Σ xᵢ·yᵢ.
func Dot[T Float](x, y []T) T {
	sameLen("Dot", len(x), len(y))
	var s float64
	if is32[T]() && active != Generic {
		x, y := as32(x), as32(y)
		pieces(len(x), func(i, j int) {
			p, _ := simdDot(x[i:j], y[i:j], j-i)
			s += float64(p)
		})
		return T(s)
	}
	for i, v := range x {
		s += float64(v) * float64(y[i])
	}
	return T(s)
}

// SumSquares returns Σ xᵢ².
func SumSquares[T Float](x []T) T { return sumSquaresAbout(x, 0) }

// sumSquaresAbout returns Σ (xᵢ−mean)².
func sumSquaresAbout[T Float](x []T, mean T) T {
	var s float64
	if is32[T]() && active != Generic {
		x, mean := as32(x), float32(mean)
		pieces(len(x), func(i, j int) {
			p, _ := simdSumSquaresAbout(x[i:j], j-i, mean)
			s += float64(p)
		})
		return T(s)
	}
	for _, v := range x {
		d := float64(v) - float64(mean)
		s += d * d
	}
	return T(s)
}

// Max returns the largest element, −Inf of an empty slice, NaN when an element is NaN.
func Max[T Float](x []T) T {
	m := T(math.Inf(-1))
	if is32[T]() && active != Generic {
		x := as32(x)
		pieces(len(x), func(i, j int) {
			p, _ := simdMax(x[i:j], j-i)
			m = max(m, T(p))
		})
		return m
	}
	for _, v := range x {
		m = max(m, v)
	}
	return m
}

// AbsMax returns the largest |xᵢ|, 0 of an empty slice, NaN when an element is NaN.
func AbsMax[T Float](x []T) T {
	var m T
	if is32[T]() && active != Generic {
		x := as32(x)
		pieces(len(x), func(i, j int) {
			p, _ := simdAbsMax(x[i:j], j-i)
			m = max(m, T(p))
		})
		return m
	}
	for _, v := range x {
		m = max(m, T(math.Abs(float64(v))))
	}
	return m
}
