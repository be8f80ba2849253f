package kernel

import "math"

// Exp computes dst = e^x. dst may be x. Results within 1 ulp, 0 below x = −104, +Inf above 88.73.
func Exp[T Float](dst, x []T) {
	sameLen("Exp", len(dst), len(x))
	if is32[T]() && simdExp(as32(dst), as32(x)) {
		return
	}
	for i, v := range x {
		dst[i] = T(math.Exp(float64(v)))
	}
}

// Tanh computes dst = tanh x. dst may be x. Results within 1.5 ulp.
func Tanh[T Float](dst, x []T) {
	sameLen("Tanh", len(dst), len(x))
	if is32[T]() && simdTanh(as32(dst), as32(x)) {
		return
	}
	for i, v := range x {
		dst[i] = T(math.Tanh(float64(v)))
	}
}

// Sigmoid computes dst = 1/(1+e^−x). dst may be x. Results within 2.5 ulp, or 0 where the value is below 2^−126.
func Sigmoid[T Float](dst, x []T) {
	sameLen("Sigmoid", len(dst), len(x))
	if is32[T]() && simdSigmoid(as32(dst), as32(x)) {
		return
	}
	for i, v := range x {
		dst[i] = T(sigmoid(float64(v)))
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
