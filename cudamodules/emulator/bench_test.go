//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
)

// onCard times a kernel on a real card: the median of events around single launches, warm, with the second-level cache swept between.
// work is what one launch does, in units of the figure.
func onCard(b *testing.B, s *emulator.Session, unit string, work float64, launch func() error) {
	start, err := s.Event()
	require.NoError(b, err)
	end, err := s.Event()
	require.NoError(b, err)
	const sweep = 256 << 20
	cold, err := s.Alloc(sweep)
	require.NoError(b, err)
	var times []time.Duration
	for i := 0; i < 3 || b.Loop(); i++ {
		require.NoError(b, s.Set(cold, byte(i), sweep, nil))
		require.NoError(b, start.Record(nil))
		require.NoError(b, launch())
		require.NoError(b, end.Record(nil))
		require.NoError(b, end.Synchronize())
		d, err := end.Since(start)
		require.NoError(b, err)
		if i >= 3 {
			times = append(times, d)
		}
	}
	slices.Sort(times)
	median := times[len(times)/2].Seconds()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median*1e6, "µs")
	b.ReportMetric(work/median, unit)
	require.NoError(b, s.Free(cold))
}

// BenchmarkCard measures what a real card does: STHENO_LIBCUDA=libcuda.so.1, as scripts/gpu.sh sets it.
func BenchmarkCard(b *testing.B) {
	s := emulator.Open(b, emulator.Config{})
	if s.Emulated() {
		b.Skip("a real card is wanted: STHENO_LIBCUDA=libcuda.so.1")
	}
	random32 := func(n int) cudamodules.Ptr {
		p, err := s.Alloc(4 * int64(n))
		require.NoError(b, err)
		require.NoError(b, cudamodules.Upload(s.Context, p, random[float32](uint64(n), n)))
		return p
	}
	b.Run("copy/bytes=1GiB", func(b *testing.B) {
		x, err := s.Alloc(1 << 30)
		require.NoError(b, err)
		y, err := s.Alloc(1 << 30)
		require.NoError(b, err)
		require.NoError(b, s.Set(x, 1, 1<<30, nil))
		onCard(b, s, "GB/s", 2*float64(1<<30)/1e9, func() error { return s.Copy(y, x, 1<<30, nil) })
		require.NoError(b, s.Free(x))
		require.NoError(b, s.Free(y))
	})
	b.Run("rmsnorm/rows=16384/dim=4096", func(b *testing.B) {
		const rows, dim = 16384, 4096
		x, y, gamma := random32(rows*dim), random32(rows*dim), random32(dim)
		f, err := s.Kernel("norm", "rmsnorm_f32")
		require.NoError(b, err)
		onCard(b, s, "GB/s", 8*float64(rows*dim)/1e9, func() error {
			return f.Launch(cudamodules.Geometry{Grid: [3]int{rows}, Block: [3]int{256}}, y, x, gamma, int64(rows), int64(dim), 1e-6)
		})
		for _, p := range []cudamodules.Ptr{x, y, gamma} {
			require.NoError(b, s.Free(p))
		}
	})
	for _, n := range []int{1024, 4096} {
		b.Run(fmt.Sprintf("gemm_f32/n=%d", n), func(b *testing.B) {
			x, y, z := random32(n*n), random32(n*n), random32(n*n)
			f, err := s.Kernel("matmul", "gemm_f32")
			require.NoError(b, err)
			m := int64(n)
			g := cudamodules.ProductGeometry(4, n, n, 1)
			onCard(b, s, "TFLOP/s", 2*math.Pow(float64(n), 3)/1e12, func() error {
				return f.Launch(g, z, x, y, m, m, m, m, int64(1), m, int64(1), m, int64(1), int64(0), int64(0), int64(0), 1.0, 0.0)
			})
			for _, p := range []cudamodules.Ptr{x, y, z} {
				require.NoError(b, s.Free(p))
			}
		})
	}
	for _, seq := range []int{1024, 16384} {
		for _, d := range []int{64, 128} {
			b.Run(fmt.Sprintf("attention_f32/seq=%d/d=%d/heads=16/causal", seq, d), func(b *testing.B) {
				const heads = 16
				n := seq * heads * d
				q, k, v, out := random32(n), random32(n), random32(n), random32(n)
				f, err := s.Kernel("attention", fmt.Sprintf("attention_%d_f32", d))
				require.NoError(b, err)
				g := cudamodules.Geometry{Grid: [3]int{(seq + 63) / 64, heads, 1}, Block: [3]int{128}, Shared: 4 * 128 * pitch(d)}
				var null cudamodules.Ptr
				// Half of the products are seen.
				onCard(b, s, "TFLOP/s", 2*float64(seq)*float64(seq)*float64(d)*heads/1e12, func() error {
					return f.Launch(g, out, null, null, q, k, v, null, null, null, int64(0), int64(0), int64(seq), int64(seq), int64(heads),
						int64(heads), int64(d), int64(d), int64(1)<<40, int64(0), 1/math.Sqrt(float64(d)), 0.0)
				})
				for _, p := range []cudamodules.Ptr{q, k, v, out} {
					require.NoError(b, s.Free(p))
				}
			})
		}
	}
}
