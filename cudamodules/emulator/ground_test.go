//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

// Unit vectors and their gradient; a row of padding may hold anything.
func TestUnitRows(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	const rows, dim = 11, 70
	x, d := random[float64](1, rows*dim), random[float64](2, rows*dim)
	mask := make([]int64, rows)
	for r := range rows {
		mask[r] = int64(r % 4)
	}
	x[0] = math.NaN()
	clear(x[dim : 2*dim])
	unit, inv := make([]float64, rows*dim), make([]float64, rows)
	grad := append([]float64(nil), d...)
	for r := range rows {
		row, g := x[r*dim:(r+1)*dim], grad[r*dim:(r+1)*dim]
		var sum, along float64
		for _, v := range row {
			sum += v * v
		}
		if mask[r] != 0 && sum > 0 {
			inv[r] = 1 / math.Sqrt(sum)
			for i, v := range row {
				unit[r*dim+i] = v * inv[r]
				along += v * inv[r] * g[i]
			}
		}
		for i := range g {
			g[i] = (g[i] - along*unit[r*dim+i]) * inv[r]
		}
	}
	every(t, s, func() any {
		u, i, got := make([]float64, rows*dim), make([]float64, rows), append([]float64(nil), d...)
		g := cudamodules.Geometry{Grid: [3]int{2}, Block: [3]int{128}}
		require.NoError(t, s.Run("ground", "unit_rows_f64", g, emulator.Out{Data: u}, emulator.Out{Data: i}, emulator.In{Data: x}, emulator.In{Data: mask}, int64(8),
			int64(rows), int64(dim)))
		require.NoError(t, s.Run("ground", "unit_grad_f64", g, emulator.InOut{Data: got}, emulator.In{Data: u}, emulator.In{Data: i}, int64(rows), int64(dim)))
		near(t, u, unit, 1e-15, 1, "unit vectors")
		near(t, i, inv, 1e-15, 1, "inverse norms")
		near(t, got, grad, 1e-14, 1, "gradient")
		return []any{u, i, got}
	})
}

// runAlignment is the loss of n scores and its gradient.
func runAlignment(s *emulator.Session, z, targets, weights []float32) (loss, dz []float32, err error) {
	sums, n := make([]float64, 128), int64(len(z))
	loss, dz = make([]float32, 1), make([]float32, len(z))
	in := []any{emulator.In{Data: z}, emulator.In{Data: targets}, emulator.In{Data: weights}}
	err = s.Run("ground", "align_f32", cudamodules.Geometry{Grid: [3]int{64}, Block: [3]int{256}}, join([]any{emulator.Out{Data: sums}}, in, []any{n, 2.0})...)
	if err == nil {
		err = s.Run("ground", "align_total_f32", cudamodules.Geometry{Block: [3]int{1}}, emulator.Out{Data: loss}, emulator.In{Data: sums})
	}
	if err == nil {
		err = s.Run("ground", "align_grad_f32", elements(len(z), 128), join([]any{emulator.Out{Data: dz}}, in,
			[]any{emulator.In{Data: sums}, emulator.In{Data: []float32{1.5}}, n, 2.0})...)
	}
	return loss, dz, err
}

// A loss is a sum in a fixed order, however threads run.
func TestAlignment(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	const n = 20000 // some blocks take more than one number a thread
	z, y, w := random[float32](1, n), random[float32](2, n), random[float32](3, n)
	var loss, total float64
	dz := make([]float64, n)
	for i := range z {
		y[i], w[i] = float32(math.Mod(math.Abs(float64(y[i])), 1)), max(0, w[i])
		a, b, c := float64(z[i]), float64(y[i]), float64(w[i])
		loss += c * (2*b*math.Log1p(math.Exp(-a)) + (1-b)*math.Log1p(math.Exp(a)))
		total += c
		p := 1 / (1 + math.Exp(-a))
		dz[i] = 1.5 * c * ((1-b)*p - 2*b*(1-p))
	}
	for i := range dz {
		dz[i] /= total
	}
	every(t, s, func() any {
		l, d, err := runAlignment(s, z, y, w)
		require.NoError(t, err)
		near(t, l, []float64{loss / total}, 1e-7, 0, "loss")
		near(t, d, dz, 1e-7, 1e-6, "gradient")
		return []any{l, d}
	})
}
