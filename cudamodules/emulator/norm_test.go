//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

// refNorm is RMSNorm or, centred, LayerNorm of one row and its gradients, in T, sums in float64 as internal/kernel takes them.
func refNorm(x, gamma, beta, dy []float64, eps float64, centred bool) (y, dx, dgamma, dbeta []float64) {
	n := float64(len(x))
	var mean, ss float64
	if centred {
		for _, v := range x {
			mean += v / n
		}
	}
	for _, v := range x {
		ss += (v - mean) * (v - mean)
	}
	r := 1 / math.Sqrt(ss/n+eps)
	var su, suh float64
	for j, v := range x {
		h := (v - mean) * r
		y = append(y, h*gamma[j]+beta[j])
		dgamma, dbeta = append(dgamma, dy[j]*h), append(dbeta, dy[j])
		su += dy[j] * gamma[j] / n
		suh += dy[j] * gamma[j] * h / n
	}
	if !centred {
		su = 0
	}
	for j, v := range x {
		dx = append(dx, r*(dy[j]*gamma[j]-su-(v-mean)*r*suh))
	}
	return
}

func TestNorms(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for _, shape := range [][2]int{{1, 1}, {3, 2}, {2, 59}, {5, 256}, {2, 257}, {17, 97}, {3, 1025}} {
		for _, centred := range []bool{false, true} {
			for _, affine := range []bool{false, true} {
				testNorm[float32](t, s, shape[0], shape[1], centred, affine)
				testNorm[float64](t, s, shape[0], shape[1], centred, affine)
			}
		}
	}
}

func testNorm[T number](t *testing.T, s *emulator.Session, rows, dim int, centred, affine bool) {
	const eps = 1e-5
	x, dy := random[T](1, rows*dim), random[T](2, rows*dim)
	for i := range x {
		x[i] += 2 // a mean to take away
	}
	gamma, beta := random[T](3, dim), random[T](4, dim)
	var pg, pb any = emulator.In{gamma}, emulator.In{beta}
	if !affine {
		pg, pb = nil, nil
		for j := range gamma {
			gamma[j], beta[j] = 1, 0
		}
	}
	if !centred {
		clear(beta)
	}
	var want, wantX []float64
	wantG, wantB := make([]float64, dim), make([]float64, dim)
	for r := range rows {
		at, end := r*dim, (r+1)*dim
		y, dx, dg, db := refNorm(wide(x[at:end]), wide(gamma), wide(beta), wide(dy[at:end]), eps, centred)
		want, wantX = append(want, y...), append(wantX, dx...)
		for j := range dim {
			wantG[j] += dg[j]
			wantB[j] += db[j]
		}
	}
	name := fmt.Sprintf("rows=%d/dim=%d/centred=%v/affine=%v%s", rows, dim, centred, affine, suffix[T]())
	// A row of one number, and little more, is all cancellation: its gradient is a small difference of large terms.
	scale := 4.0
	if dim < 3 {
		scale = 1000
	}
	tol := 8 * epsilon[T]()
	if suffix[T]() == "_f64" {
		tol *= 2 // the reference errs as much
	}
	grid := cudamodules.Geometry{Grid: [3]int{min(rows, 3)}, Block: [3]int{256}}
	every(t, s, func() any {
		y := make([]T, rows*dim)
		if centred {
			require.NoError(t, s.Run("norm", "layernorm"+suffix[T](), grid, emulator.Out{y}, emulator.In{x}, pg, pb, int64(rows), int64(dim), eps))
		} else {
			require.NoError(t, s.Run("norm", "rmsnorm"+suffix[T](), grid, emulator.Out{y}, emulator.In{x}, pg, int64(rows), int64(dim), eps))
		}
		near(t, y, want, tol, scale, name)
		dx, stats := make([]T, rows*dim), make([]T, 2*rows)
		var c int64
		if centred {
			c = 1
		}
		require.NoError(t, s.Run("norm", "norm_grad"+suffix[T](), grid,
			emulator.Out{dx}, emulator.Out{stats}, emulator.In{x}, emulator.In{dy}, pg, int64(rows), int64(dim), eps, c))
		near(t, dx, wantX, tol, scale, name+"/dx")
		dgamma, dbeta := make([]T, dim), make([]T, dim)
		columns := cudamodules.Geometry{Grid: [3]int{(dim + 31) / 32}, Block: [3]int{256}}
		require.NoError(t, s.Run("norm", "norm_grad_gamma"+suffix[T](), columns,
			emulator.Out{dgamma}, emulator.Out{dbeta}, emulator.In{stats}, emulator.In{x}, emulator.In{dy}, int64(rows), int64(dim)))
		near(t, dgamma, wantG, tol, scale*float64(rows), name+"/dgamma")
		near(t, dbeta, wantB, tol, float64(rows), name+"/dbeta")
		return []any{y, dx, dgamma, dbeta}
	})
}
