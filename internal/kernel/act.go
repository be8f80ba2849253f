package kernel

import "math"

// The activations and their derivatives. Each forward computes dst = f(x), dst may be x; each …Grad computes dx = dy·f'(x), dx
// may be x or dy. At ±Inf they take their limits, a NaN gives a NaN. The float32 versions are within 4 ulp or within
// 1.5e-7·max(1,|x|), derivatives within 4e-7·|dy|, whichever is wider.

const (
	sqrt2OverPi = 0.79788456080286535587989211986876
	geluCubic   = 0.044715
	// beyond geluEdge the normal distribution is 0 or 1 in float64.
	geluEdge = 40
	// beyond siluEdge the sigmoid is 0 or 1 in float64.
	siluEdge = 750
)

func apply[T Float](dst, x []T, f func(x float64) float64) {
	for i, v := range x {
		dst[i] = T(f(float64(v)))
	}
}

func applyGrad[T Float](dx, x, dy []T, derivative func(x float64) float64) {
	for i, v := range x {
		dx[i] = T(derivative(float64(v)) * float64(dy[i]))
	}
}

func clamp(x, edge float64) float64 { return max(-edge, min(edge, x)) }

func geluErf(x float64) float64 {
	return max(x, -geluEdge) * 0.5 * math.Erfc(-x/math.Sqrt2)
}

func geluErfSlope(x float64) float64 {
	x = clamp(x, geluEdge)
	return 0.5*math.Erfc(-x/math.Sqrt2) + x*math.Exp(-0.5*x*x)/math.Sqrt(2*math.Pi)
}

func geluTanh(x float64) float64 {
	x = max(x, -geluEdge)
	return x * sigmoid(2*sqrt2OverPi*(x+geluCubic*x*x*x))
}

func geluTanhSlope(x float64) float64 {
	x = clamp(x, geluEdge)
	s := sigmoid(2 * sqrt2OverPi * (x + geluCubic*x*x*x))
	return s + x*s*(1-s)*2*sqrt2OverPi*(1+3*geluCubic*x*x)
}

func silu(x float64) float64 {
	x = max(x, -siluEdge)
	return x * sigmoid(x)
}

func siluSlope(x float64) float64 {
	x = clamp(x, siluEdge)
	s := sigmoid(x)
	return s * (1 + x*(1-s))
}

// GeluErf computes dst = x·Φ(x) = x/2·(1+erf(x/√2)), the exact GELU (Hendrycks and Gimpel 2016).
func GeluErf[T Float](dst, x []T) {
	sameLen("GeluErf", len(dst), len(x))
	if is32[T]() && simdGeluErf(as32(dst), as32(x)) {
		return
	}
	apply(dst, x, geluErf)
}

// GeluErfGrad computes dx = dy·(Φ(x) + x·φ(x)).
func GeluErfGrad[T Float](dx, x, dy []T) {
	sameLen("GeluErfGrad", len(dx), len(x), len(dy))
	if is32[T]() && simdGeluErfGrad(as32(dx), as32(x), as32(dy)) {
		return
	}
	applyGrad(dx, x, dy, geluErfSlope)
}

// GeluTanh computes dst = x/2·(1+tanh(√(2/π)·(x+0.044715x³))), GELU as GPT-2 has it.
func GeluTanh[T Float](dst, x []T) {
	sameLen("GeluTanh", len(dst), len(x))
	if is32[T]() && simdGeluTanh(as32(dst), as32(x)) {
		return
	}
	apply(dst, x, geluTanh)
}

// GeluTanhGrad computes dx = dy·f'(x) for GeluTanh.
func GeluTanhGrad[T Float](dx, x, dy []T) {
	sameLen("GeluTanhGrad", len(dx), len(x), len(dy))
	if is32[T]() && simdGeluTanhGrad(as32(dx), as32(x), as32(dy)) {
		return
	}
	applyGrad(dx, x, dy, geluTanhSlope)
}

// Silu computes dst = x·σ(x).
func Silu[T Float](dst, x []T) {
	sameLen("Silu", len(dst), len(x))
	if is32[T]() && simdSilu(as32(dst), as32(x)) {
		return
	}
	apply(dst, x, silu)
}

// SiluGrad computes dx = dy·σ(x)·(1+x·(1−σ(x))).
func SiluGrad[T Float](dx, x, dy []T) {
	sameLen("SiluGrad", len(dx), len(x), len(dy))
	if is32[T]() && simdSiluGrad(as32(dx), as32(x), as32(dy)) {
		return
	}
	applyGrad(dx, x, dy, siluSlope)
}

// Relu computes dst = max(x, 0).
func Relu[T Float](dst, x []T) {
	sameLen("Relu", len(dst), len(x))
	if is32[T]() && simdRelu(as32(dst), as32(x)) {
		return
	}
	for i, v := range x {
		dst[i] = max(v, 0)
	}
}

// ReluGrad computes dx = dy where x > 0 or x is a NaN, and 0 elsewhere.
func ReluGrad[T Float](dx, x, dy []T) {
	sameLen("ReluGrad", len(dx), len(x), len(dy))
	if is32[T]() && simdReluGrad(as32(dx), as32(x), as32(dy)) {
		return
	}
	for i, v := range x {
		if v <= 0 {
			dx[i] = 0
		} else {
			dx[i] = dy[i]
		}
	}
}

// SwiGLU computes dst = silu(g)·u (Shazeer 2020). dst may be g or u.
func SwiGLU[T Float](dst, g, u []T) {
	sameLen("SwiGLU", len(dst), len(g), len(u))
	if is32[T]() && simdSwiglu(as32(dst), as32(g), as32(u)) {
		return
	}
	for i, v := range g {
		dst[i] = T(silu(float64(v)) * float64(u[i]))
	}
}

// SwiGLUGrad computes dg = dy·u·silu'(g) and du = dy·silu(g). dg may be g, du may be u, and either may be dy.
func SwiGLUGrad[T Float](dg, du, g, u, dy []T) {
	sameLen("SwiGLUGrad", len(dg), len(du), len(g), len(u), len(dy))
	if is32[T]() && simdSwigluGrad(as32(dg), as32(du), as32(g), as32(u), as32(dy)) {
		return
	}
	for i, v := range g {
		a, b, d := float64(v), float64(u[i]), float64(dy[i])
		dg[i] = T(d * b * siluSlope(a))
		du[i] = T(d * silu(a))
	}
}
