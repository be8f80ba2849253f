package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// normReference is a layer norm (centred) or RMS norm of one row and its gradients, in float64.
type normReference struct {
	mean, rstd         float64
	y, dx, dgamma, hat []float64
}

func referenceNorm(x, gamma, beta, dy []float32, eps float64, centred bool) normReference {
	n := len(x)
	ref := normReference{y: make([]float64, n), dx: make([]float64, n), dgamma: make([]float64, n), hat: make([]float64, n)}
	if centred {
		for _, v := range x {
			ref.mean += float64(v) / float64(n)
		}
	}
	var square float64
	for _, v := range x {
		d := float64(v) - ref.mean
		square += d * d
	}
	ref.rstd = 1 / math.Sqrt(square/float64(n)+eps)
	g := make([]float64, n)
	var sum, sumHat float64
	for i, v := range x {
		ref.hat[i] = (float64(v) - ref.mean) * ref.rstd
		ref.y[i], g[i] = ref.hat[i], float64(dy[i])
		if gamma != nil {
			ref.y[i] *= float64(gamma[i])
			g[i] *= float64(gamma[i])
		}
		if beta != nil {
			ref.y[i] += float64(beta[i])
		}
		ref.dgamma[i] = float64(dy[i]) * ref.hat[i]
		sum += g[i]
		sumHat += g[i] * ref.hat[i]
	}
	if !centred {
		sum = 0
	}
	for i := range x {
		ref.dx[i] = ref.rstd * (g[i] - sum/float64(n) - ref.hat[i]*sumHat/float64(n))
	}
	return ref
}

func TestNormRows(t *testing.T) {
	const eps = 1e-5
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(31, 32))
		for _, n := range vecSizes() {
			if n == 0 {
				continue
			}
			x, dy := randoms(rng, n, 2), randoms(rng, n, 1)
			for i := range x {
				x[i] += 3
			}
			for affine := range 4 {
				if n > 2000 && affine != 3 {
					continue // long rows need one case: they differ by being cut only
				}
				for _, centred := range []bool{true, false} {
					var gamma, beta, dgamma, dbeta []float32
					if affine&1 != 0 {
						gamma, dgamma = fencedCopy(randoms(rng, n, 1), 3).data, fencedCopy(randoms(rng, n, 1), 1).data
					}
					if affine&2 != 0 && centred {
						beta, dbeta = fencedCopy(randoms(rng, n, 1), 2).data, fencedCopy(randoms(rng, n, 1), 1).data
					}
					ref := referenceNorm(x, gamma, beta, dy, eps, centred)
					gx, dst, dx, gdy := fencedCopy(x, 1), newFenced(n, 2), newFenced(n, 1), fencedCopy(dy, 3)
					oldGamma, oldBeta := append([]float32{}, dgamma...), append([]float32{}, dbeta...)
					var mean, rstd float32
					if centred {
						mean, rstd = LayerNormRow(dst.data, gx.data, gamma, beta, eps)
						LayerNormGradRow(dx.data, dgamma, dbeta, gx.data, gdy.data, gamma, mean, rstd)
					} else {
						rstd = RMSNormRow(dst.data, gx.data, gamma, eps)
						RMSNormGradRow(dx.data, dgamma, gx.data, gdy.data, gamma, rstd)
					}
					for _, g := range []*fenced{gx, dst, dx, gdy} {
						g.intact(t)
					}
					// The mean rounds to 2⁻²⁴ of itself and its sum to a little more; divided by the deviation that is the error of
					// x̂. A row of one element has x̂ = 0 and a deviation of √eps alone.
					hatTol := 2e-6 + 8*half*math.Abs(ref.mean)*ref.rstd
					near(t, ref.mean, mean, 8*half*math.Abs(ref.mean), "mean n=%d", n)
					near(t, ref.rstd, rstd, ref.rstd*hatTol, "rstd n=%d", n)
					for i := range n {
						g, b := 1.0, 0.0
						if gamma != nil {
							g = float64(gamma[i])
						}
						if beta != nil {
							b = float64(beta[i])
						}
						tol := hatTol * (1 + math.Abs(ref.hat[i]))
						near(t, ref.y[i], dst.data[i], tol*math.Abs(g)+2*half*math.Abs(b)+1e-12, "y n=%d affine=%d i=%d", n, affine, i)
						near(t, ref.dx[i], dx.data[i], ref.rstd*(tol*4+4e-6), "dx n=%d affine=%d i=%d", n, affine, i)
						if dgamma != nil {
							near(t, float64(oldGamma[i])+ref.dgamma[i], dgamma[i], tol*math.Abs(float64(dy[i]))+2*half*math.Abs(float64(oldGamma[i]))+1e-12, "dgamma n=%d i=%d", n, i)
						}
						if dbeta != nil {
							near(t, float64(oldBeta[i])+float64(dy[i]), dbeta[i], ulp(float64(oldBeta[i])+float64(dy[i])), "dbeta n=%d i=%d", n, i)
						}
					}
					// In place: forward over x, backward over dy.
					if centred {
						LayerNormGradRow(gdy.data, nil, nil, gx.data, gdy.data, gamma, mean, rstd)
						LayerNormRow(gx.data, gx.data, gamma, beta, eps)
					} else {
						RMSNormGradRow(gdy.data, nil, gx.data, gdy.data, gamma, rstd)
						RMSNormRow(gx.data, gx.data, gamma, eps)
					}
					require.Equal(t, dst.data, gx.data)
					require.Equal(t, dx.data, gdy.data)
				}
			}
		}
	})
}

func TestNormOfAnEmptyRow(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		mean, rstd := LayerNormRow[float32](nil, nil, nil, nil, 1e-5)
		require.Zero(t, mean)
		require.Zero(t, rstd)
		require.Zero(t, RMSNormRow[float32](nil, nil, nil, 1e-5))
		LayerNormGradRow[float32](nil, nil, nil, nil, nil, nil, 0, 0)
	})
}
