//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/ops/quantize"
)

// Rounding in training gives the bits of the codec, however threads run.
func TestFakeIsTheCodec(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for _, cfg := range packings {
		for _, transposed := range []bool{false, true} {
			cfg.Transposed = transposed
			const in, out = 70, 37
			rows, cols := in, out
			row, col := int64(out), int64(1)
			if transposed {
				rows, cols = out, in
				row, col = 1, in
			}
			x := random[float32](7, in*out)
			p, err := quantize.Quantize(tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(append([]float32(nil), x...))), cfg)
			require.NoError(t, err)
			d, err := p.Dequantize()
			require.NoError(t, err)
			every(t, s, func() any {
				y := make([]float32, in*out)
				g := elements(in*out, 128)
				if !cfg.Scheme.HasScales() {
					mantissa, least, limit := int64(10), int64(-14), 65504.0
					if cfg.Scheme == quantize.BF16 {
						mantissa, least, limit = 7, -126, 0x1.fep127
					}
					require.NoError(t, s.Run("fake", "fake_half_f32", g, emulator.Out{y}, emulator.In{x}, int64(in*out), mantissa, least, limit))
					require.Equal(t, d.Data(), y, "%v", cfg)
					return y
				}
				group, many, levels, asymmetric := int64(in), int64(1), int64(256), int64(0)
				if cfg.Scheme == quantize.INT4 {
					levels = 16
				}
				if cfg.Asymmetric {
					asymmetric = 1
				}
				grids := make([]float64, 2*out*((in+31)/32))
				if cfg.Granularity == quantize.PerTensor {
					many = 0
					ranges := make([]float64, 2*out)
					grids = grids[:2]
					require.NoError(t, s.Run("fake", "fake_range_f32", g, emulator.Out{ranges}, emulator.In{x}, int64(in), int64(out), row, col))
					require.NoError(t, s.Run("fake", "fake_whole_f64", cudamodules.Geometry{Block: [3]int{32}}, emulator.Out{grids}, emulator.In{ranges},
						int64(out), levels, asymmetric))
				} else {
					if cfg.Granularity == quantize.PerGroup {
						group = int64(cfg.GroupSize)
					}
					grids = grids[:2*out*int((in+group-1)/group)]
					require.NoError(t, s.Run("fake", "fake_grid_f32", g, emulator.Out{grids}, emulator.In{x}, int64(in), int64(out), row, col, group,
						levels, asymmetric, int64(0), int64(0)))
				}
				require.NoError(t, s.Run("fake", "fake_codes_f32", g, emulator.Out{y}, emulator.In{x}, emulator.In{grids}, int64(in), int64(out), row, col,
					group, many, levels, asymmetric, int64(0)))
				require.Equal(t, d.Data(), y, "%v", cfg)
				return y
			})
		}
	}
}

// Rows in 8 bits; a row with an infinity is one of NaN.
func TestFakeRows(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	const rows, n = 3, 300
	x := random[float32](1, rows*n)
	x[n] = float32(math.Inf(1))
	want := make([]float32, rows*n)
	for r := range rows {
		var top float64
		for _, v := range x[r*n : (r+1)*n] {
			top = max(top, math.Abs(float64(v)))
		}
		for i := r * n; i < (r+1)*n; i++ {
			want[i] = float32(top/127) * float32(math.RoundToEven(float64(x[i]*float32(127/top))))
			if r == 1 {
				want[i] = float32(math.NaN())
			}
		}
	}
	every(t, s, func() any {
		y := make([]float32, rows*n)
		require.NoError(t, s.Run("fake", "fake_rows_f32", cudamodules.Geometry{Grid: [3]int{2}, Block: [3]int{256}}, emulator.Out{y}, emulator.In{x},
			int64(rows), int64(n)))
		require.Equal(t, fmt.Sprint(want), fmt.Sprint(y))
		return y
	})
}
