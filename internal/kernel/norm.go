package kernel

import "math"

// LayerNormRow computes dst = (x−mean)·rstd·gamma + beta for one row, with mean = Σx/n and rstd = 1/√(Σ(x−mean)²/n + eps), in
// two passes over x, and returns both (Ba et al. 2016). gamma and beta may be nil; dst may be x. An empty row returns zeros.
func LayerNormRow[T Float](dst, x, gamma, beta []T, eps float64) (mean, rstd T) {
	n := len(x)
	sameLen("LayerNormRow", len(dst), n)
	if n == 0 {
		return 0, 0
	}
	mean = T(float64(Sum(x)) / float64(n))
	rstd = T(1 / math.Sqrt(float64(sumSquaresAbout(x, mean))/float64(n)+eps))
	normalize(dst, x, gamma, beta, mean, rstd)
	return mean, rstd
}

// RMSNormRow computes dst = x·rstd·gamma for one row, rstd = 1/√(Σx²/n + eps), and returns rstd (Zhang and Sennrich 2019).
// gamma may be nil; dst may be x. An empty row returns 0.
func RMSNormRow[T Float](dst, x, gamma []T, eps float64) (rstd T) {
	n := len(x)
	sameLen("RMSNormRow", len(dst), n)
	if n == 0 {
		return 0
	}
	rstd = T(1 / math.Sqrt(float64(SumSquares(x))/float64(n)+eps))
	normalize(dst, x, gamma, nil, 0, rstd)
	return rstd
}

// normalize computes dst = (x−mean)·rstd·gamma + beta; gamma and beta may be nil.
func normalize[T Float](dst, x, gamma, beta []T, mean, rstd T) {
	if gamma != nil {
		sameLen("normalize: gamma", len(x), len(gamma))
	}
	if beta != nil {
		sameLen("normalize: beta", len(x), len(beta))
	}
	if is32[T]() {
		d, v, g, b, m, r := as32(dst), as32(x), as32(gamma), as32(beta), float32(mean), float32(rstd)
		var done bool
		switch {
		case gamma != nil && beta != nil:
			done = simdNormalizeAffine(d, v, g, b, m, r)
		case gamma != nil:
			done = simdNormalizeScale(d, v, g, m, r)
		default:
			if done = simdNormalize(d, v, m, r); done && beta != nil {
				Add(dst, dst, beta)
			}
		}
		if done {
			return
		}
	}
	for i, v := range x {
		y := (v - mean) * rstd
		if gamma != nil {
			y *= gamma[i]
		}
		if beta != nil {
			y += beta[i]
		}
		dst[i] = y
	}
}

// LayerNormGradRow computes the gradients of LayerNormRow for one row from the mean and rstd it returned. With
// x̂ = (x−mean)·rstd and g = dy·gamma:
//
//	dx = rstd·(g − Σg/n − x̂·Σ(g·x̂)/n),  dgamma += dy·x̂,  dbeta += dy
//
// gamma, dgamma and dbeta may be nil; dx may be x or dy.
func LayerNormGradRow[T Float](dx, dgamma, dbeta, x, dy, gamma []T, mean, rstd T) {
	normGradRow(dx, dgamma, dbeta, x, dy, gamma, mean, rstd, true)
}

// RMSNormGradRow computes the gradients of RMSNormRow for one row: dx = rstd·(g − x̂·Σ(g·x̂)/n), dgamma += dy·x̂, with
// x̂ = x·rstd and g = dy·gamma. gamma and dgamma may be nil; dx may be x or dy.
func RMSNormGradRow[T Float](dx, dgamma, x, dy, gamma []T, rstd T) {
	normGradRow(dx, dgamma, nil, x, dy, gamma, 0, rstd, false)
}

func normGradRow[T Float](dx, dgamma, dbeta, x, dy, gamma []T, mean, rstd T, centred bool) {
	n := len(x)
	sameLen("norm gradient", len(dx), n, len(dy))
	for _, p := range [][]T{dgamma, dbeta, gamma} {
		if p != nil {
			sameLen("norm gradient", n, len(p))
		}
	}
	if n == 0 {
		return
	}
	sum, sumHat := normGradSums(x, dy, gamma, mean, rstd)
	c1, c2 := T(0), T(sumHat/float64(n))
	if centred {
		c1 = T(sum / float64(n))
	}
	if dgamma != nil {
		normGradGamma(dgamma, x, dy, mean, rstd)
	}
	if dbeta != nil {
		Add(dbeta, dbeta, dy)
	}
	if is32[T]() {
		a, b, c, m, r := as32(dx), as32(x), as32(dy), float32(mean), float32(rstd)
		if gamma == nil && simdNormGradX(a, b, c, m, r, float32(c1), float32(c2)) ||
			gamma != nil && simdNormGradXScale(a, b, c, as32(gamma), m, r, float32(c1), float32(c2)) {
			return
		}
	}
	for i, v := range x {
		g := dy[i]
		if gamma != nil {
			g *= gamma[i]
		}
		dx[i] = rstd * (g - c1 - (v-mean)*rstd*c2)
	}
}

// normGradSums returns Σg and Σg·x̂.
func normGradSums[T Float](x, dy, gamma []T, mean, rstd T) (sum, sumHat float64) {
	if is32[T]() && active != Generic {
		x, dy, gamma, m, r := as32(x), as32(dy), as32(gamma), float32(mean), float32(rstd)
		pieces(len(x), func(i, j int) {
			var s [2]float32
			if len(gamma) == 0 {
				simdNormGradSums(x[i:j], dy[i:j], j-i, m, r, s[:])
			} else {
				simdNormGradSumsScale(x[i:j], dy[i:j], gamma[i:j], j-i, m, r, s[:])
			}
			sum += float64(s[0])
			sumHat += float64(s[1])
		})
		return sum, sumHat
	}
	for i, v := range x {
		g := float64(dy[i])
		if gamma != nil {
			g *= float64(gamma[i])
		}
		sum += g
		sumHat += g * float64((v-mean)*rstd)
	}
	return sum, sumHat
}

func normGradGamma[T Float](dgamma, x, dy []T, mean, rstd T) {
	if is32[T]() && simdNormGradGamma(as32(dgamma), as32(x), as32(dy), float32(mean), float32(rstd)) {
		return
	}
	for i, v := range x {
		dgamma[i] += dy[i] * (v - mean) * rstd
	}
}
