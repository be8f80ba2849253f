package kernel

import "math"

// shift is the value that a row with maximum m is shifted by: m, but 0 for −Inf, so that a row of −Inf gives zeros and not NaN.
func shift[T Float](m T) T {
	if math.IsInf(float64(m), -1) {
		return 0
	}
	return m
}

// SumExp returns Σ e^(xᵢ−max), max being that of the row or any other number; −Inf counts as 0.
func SumExp[T Float](x []T, max T) T {
	sub := shift(max)
	var s float64
	if is32[T]() && active != Generic {
		x, sub := as32(x), float32(sub)
		pieces(len(x), func(i, j int) {
			p, _ := simdSumExp(x[i:j], j-i, sub)
			s += float64(p)
		})
		return T(s)
	}
	for _, v := range x {
		s += math.Exp(float64(v - sub))
	}
	return T(s)
}

// ExpSub computes dst = e^(x−sub) and returns its sum; a sub of −Inf counts as 0. dst may be x.
func ExpSub[T Float](dst, x []T, sub T) T {
	sameLen("ExpSub", len(dst), len(x))
	sub = shift(sub)
	var s float64
	if is32[T]() && active != Generic {
		dst, x, sub := as32(dst), as32(x), float32(sub)
		pieces(len(x), func(i, j int) {
			p, _ := simdExpSub(dst[i:j], x[i:j], j-i, sub)
			s += float64(p)
		})
		return T(s)
	}
	for i, v := range x {
		e := math.Exp(float64(v - sub))
		dst[i] = T(e)
		s += e
	}
	return T(s)
}

// SoftmaxRow replaces x by e^(x−max)/sum, with the max and sum of Max and SumExp. A max of −Inf counts as 0, a sum of 0 gives a
// row of zeros: nothing was visible.
func SoftmaxRow[T Float](x []T, max, sum T) {
	sub, scale := shift(max), 1/sum
	if sum == 0 {
		scale = 0
	}
	if is32[T]() && simdExpSubScale(as32(x), as32(x), float32(sub), float32(scale)) {
		return
	}
	for i, v := range x {
		x[i] = T(math.Exp(float64(v-sub))) * scale
	}
}
