//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

// Kernels whose results the tests of their nodes hold to those of the CPU give the same bits in every schedule.
func TestSameBitsInEverySchedule(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	eight, four := cudamodules.Geometry{Grid: [3]int{2}, Block: [3]int{256}}, cudamodules.Geometry{Grid: [3]int{3}, Block: [3]int{128}}
	t.Run("maps", func(t *testing.T) {
		const batch, seq, heads, kvHeads, n, d = 2, 5, 4, 2, 40, 37
		tokens := []int64{4, 0, 4}
		dMaps := random[float32](4, batch*len(tokens)*n)
		params := []any{emulator.In{random[float32](1, batch*seq*heads*d)}, emulator.In{random[float32](2, batch*n*kvHeads*d)},
			emulator.In{random[float32](3, batch*heads*seq)}, emulator.In{tokens}, int64(batch), int64(seq), int64(heads), int64(kvHeads), int64(n),
			int64(len(tokens)), int64(d), 0.2}
		every(t, s, func() any {
			maps, dq := make([]float32, len(dMaps)), make([]float32, batch*seq*heads*d)
			dlse, dk := make([]float32, batch*heads*seq), make([]float32, batch*n*kvHeads*d)
			g := eight
			require.NoError(t, s.Run("maps", "maps_f32", g, append([]any{emulator.Out{maps}}, params...)...))
			g.Shared = 4 * 8 * d
			require.NoError(t, s.Run("maps", "maps_rows_f32", g, append([]any{emulator.Out{dq}, emulator.Out{dlse}, emulator.In{dMaps}}, params...)...))
			require.NoError(t, s.Run("maps", "maps_keys_f32", g, append([]any{emulator.Out{dk}, emulator.In{dMaps}}, params...)...))
			return []any{maps, dq, dlse, dk}
		})
	})
	t.Run("kvfake", func(t *testing.T) {
		const batch, seq, heads, d, sinks, coded, group, rotate = 2, 70, 2, 48, 3, 49, 16, 16
		const count, span = coded - sinks, (coded - sinks + group - 1) / group * group
		x := random[float32](1, batch*seq*heads*d)
		for _, kind := range []string{"keys_4", "keys_8", "keys_16", "values_4", "values_8", "values_16"} {
			every(t, s, func() any {
				rows, y, g := make([]float32, batch*heads*span*d), make([]float32, len(x)), four
				g.Shared = 4 * 4 * d
				require.NoError(t, s.Run("kvfake", "kv_fake_rows_f32", g, emulator.Out{rows}, emulator.In{x},
					int64(batch), int64(seq), int64(heads), int64(d), int64(sinks), int64(span), int64(1), int64(rotate)))
				require.NoError(t, s.Run("kvfake", "kv_fake_"+kind, four, emulator.InOut{rows}, int64(batch*heads), int64(d), int64(group), int64(count), int64(span)))
				require.NoError(t, s.Run("kvfake", "kv_fake_put_f32", g, emulator.Out{y}, emulator.In{x}, emulator.In{rows},
					int64(batch), int64(seq), int64(heads), int64(d), int64(sinks), int64(coded), int64(span), int64(1), int64(rotate), 65504.0))
				return fmt.Sprint(kind, y)
			})
		}
	})
	t.Run("fake", func(t *testing.T) {
		const in, out, steps, least = 40, 33, 64, 20
		const tries = steps - least + 1
		x := random[float32](1, in*out)
		every(t, s, func() any {
			ranges, grids := make([]float64, 2*out), make([]float64, 2*tries)
			sums, best := make([]float64, tries*out), make([]float64, 2)
			warp := cudamodules.Geometry{Block: [3]int{32}}
			require.NoError(t, s.Run("fake", "fake_range_f32", four, emulator.Out{ranges}, emulator.In{x}, int64(in), int64(out), int64(out), int64(1)))
			require.NoError(t, s.Run("fake", "fake_tries_f64", warp, emulator.Out{grids}, emulator.In{ranges}, int64(out), int64(16), int64(1), int64(steps), int64(least)))
			require.NoError(t, s.Run("fake", "fake_squares_f32", four, emulator.Out{sums}, emulator.In{x}, emulator.In{grids}, int64(tries),
				int64(in), int64(out), int64(out), int64(1), int64(16), int64(1)))
			require.NoError(t, s.Run("fake", "fake_best_f64", warp, emulator.Out{best}, emulator.In{grids}, emulator.In{sums}, int64(tries), int64(out)))
			return best
		})
	})
}
