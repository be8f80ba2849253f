//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/ops/quantize"
)

// stopwatch times launches on a card: the median of events around single launches, warm, with the second-level cache swept between.
type stopwatch struct {
	s          *emulator.Session
	start, end *cudamodules.Event
	cold       cudamodules.Ptr
	runs       int
}

const sweep = 256 << 20

func newStopwatch(s *emulator.Session, runs int) (w *stopwatch, err error) {
	w = &stopwatch{s: s, runs: runs}
	if w.start, err = s.Event(); err != nil {
		return nil, err
	}
	if w.end, err = s.Event(); err != nil {
		return nil, err
	}
	w.cold, err = s.Alloc(sweep)
	return w, err
}

// times are those of a launch, in order of length.
func (w *stopwatch) times(launch func() error) (times []time.Duration, err error) {
	for i := range w.runs + 3 {
		if err := w.s.Set(w.cold, byte(i), sweep, nil); err != nil {
			return nil, err
		}
		if err := w.start.Record(nil); err != nil {
			return nil, err
		}
		if err := launch(); err != nil {
			return nil, err
		}
		if err := w.end.Record(nil); err != nil {
			return nil, err
		}
		if err := w.end.Synchronize(); err != nil {
			return nil, err
		}
		d, err := w.end.Since(w.start)
		if err != nil {
			return nil, err
		}
		if i >= 3 {
			times = append(times, d)
		}
	}
	slices.Sort(times)
	return times, nil
}

// figure is one line of the table: what kernels do together, in 10⁹ bytes or 10¹² operations, and a run with fresh numbers.
type figure struct {
	what, kernels, unit string
	work                float64
	run                 func() error
	ninety              bool // only of cards of compute capability 9.0
}

// figures are what is measured, in sizes that are divided by `by`.
func figures(s *emulator.Session, by int) (all []figure) {
	add := func(f figure) { all = append(all, f) }
	g256 := func(blocks int) cudamodules.Geometry {
		return cudamodules.Geometry{Grid: [3]int{blocks}, Block: [3]int{256}}
	}

	rows, dim := 16384/by, 4096/by
	add(figure{fmt.Sprintf("RMSNorm, %d × %d", rows, dim), "rmsnorm_f32", "GB/s", 8 * float64(rows*dim) / 1e9, func() error {
		return s.Run("norm", "rmsnorm_f32", g256(rows), emulator.Out{make([]float32, rows*dim)}, emulator.In{random[float32](1, rows*dim)},
			emulator.In{random[float32](2, dim)}, int64(rows), int64(dim), 1e-6)
	}, false})

	n := 4096 / by
	cube := 2 * math.Pow(float64(n), 3) / 1e12
	add(figure{fmt.Sprintf("product in float32, %d³", n), "gemm_f32", "TFLOP/s", cube, func() error {
		m := int64(n)
		return s.Run("matmul", "gemm_f32", cudamodules.ProductGeometry(4, n, n, 1), emulator.Out{make([]float32, n*n)}, emulator.In{random[float32](1, n*n)},
			emulator.In{random[float32](2, n*n)}, m, m, m, m, int64(1), m, int64(1), m, int64(1), int64(0), int64(0), int64(0), 1.0, 0.0)
	}, false})

	packed := func(cfg quantize.Config, k, n int) (packedCase, error) {
		p, err := quantize.Quantize(tensor.New(tensor.WithShape(k, n), tensor.WithBacking(random[float32](1, k*n))), cfg)
		return packedCase{p: p}, err
	}
	for _, scheme := range []quantize.Scheme{quantize.INT8, quantize.INT4} {
		k, n := 4096/by, 16384/by
		bits := map[quantize.Scheme]float64{quantize.INT8: 8, quantize.INT4: 4}[scheme]
		kernel := "quantized_row_" + scheme.String() + "_f32"
		add(figure{fmt.Sprintf("one row by %v weights, %d × %d", scheme, k, n), kernel, "GB/s", float64(k*n) * bits / 8 / 1e9, func() error {
			p, err := packed(quantize.Config{Scheme: scheme}, k, n)
			if err != nil {
				return err
			}
			matrix, sizes := p.params()
			return s.Run("quantized", kernel, g256((n+15)/16), join([]any{emulator.Out{make([]float32, n)}, emulator.In{random[float32](2, k)}}, matrix,
				[]any{int64(1)}, sizes)...)
		}, false})
	}
	add(figure{fmt.Sprintf("INT8 × INT8, %d³", n), "rounded_int8_f32", "TOP/s", cube, func() error {
		p, err := packed(quantize.Config{Scheme: quantize.INT8}, n, n)
		if err != nil {
			return err
		}
		matrix, sizes := p.params()
		pitch := (n + 63) / 64 * 64
		q, sx := make([]int8, n*pitch), make([]float32, n)
		if err := s.Run("quantized", "round_rows_f32", g256(n), emulator.Out{q}, emulator.Out{sx}, emulator.In{random[float32](2, n*n)},
			int64(n), int64(n), int64(pitch), 0.0); err != nil {
			return err
		}
		g := cudamodules.Geometry{Grid: [3]int{(n + 127) / 128, (n + 127) / 128}, Block: [3]int{256}}
		return s.Run("quantized", "rounded_int8_f32", g, join([]any{emulator.Out{make([]float32, n*n)}, emulator.In{q}, emulator.In{sx}}, matrix,
			[]any{int64(n)}, sizes, []any{int64(pitch)})...)
	}, false})

	for _, seq := range []int{2048 / by, 16384 / by} {
		for _, d := range []int{64, 128} {
			heads := max(1, 16/by)
			c := attention{1, seq, seq, heads, heads, d, d, -1, 0, 0, false, false, false, false, 0}
			size := fmt.Sprintf("causal, %d × %d heads of %d", seq, heads, d)
			// Half of the products are seen.
			work := 2 * float64(seq) * float64(seq) * float64(d) * float64(heads) / 1e12
			add(figure{"attention in float32, " + size, fmt.Sprintf("attention_%d_f32", d), "TFLOP/s", work, func() error {
				_, _, _, err := c.run(s, c.data())
				return err
			}, false})
			add(figure{"attention in BF16, " + size, fmt.Sprintf("attention_bf16_%d_f32", d), "TFLOP/s", work, func() error {
				n, err := c.prepare(s, false)
				if err == nil {
					_, _, _, err = n.run(s)
				}
				return err
			}, false})
			kernel := fmt.Sprintf("attention_warpgroups_%d_f32", d)
			for _, f := range [][2]string{{"the same by warpgroups", kernel}, {"with the rounding of q, k and v", "attention_pack_f32 " + kernel}} {
				add(figure{f[0], f[1], "TFLOP/s", work, func() error {
					_, _, _, err := c.runWarpgroups(s, c.data())
					return err
				}, true})
			}
			backward := func() error {
				n, err := c.prepare(s, false)
				if err != nil {
					return err
				}
				_, _, stats, err := n.run(s)
				if err != nil {
					return err
				}
				_, _, _, err = n.gradient(s, stats, random[float32](5, seq*heads), random[float32](4, seq*heads*d))
				return err
			}
			// A gradient is five products, of which the kernels compute two twice.
			add(figure{"gradient in BF16, " + size, fmt.Sprintf("attention_grad_rows_bf16_%d_f32 attention_grad_keys_bf16_%d_f32", d, d), "TFLOP/s",
				2.5 * work, backward, false})
		}
	}
	return all
}

// TestCardSpeed writes a table of what a card does, to standard output and to $STHENO_CARD_TABLE. A figure that fails is a line of the
// table, and the others go on, unless the card itself is lost. With the emulated card in the place of a real one, sizes are small and times
// are none.
func TestCardSpeed(t *testing.T) {
	if os.Getenv(cudamodules.LibraryVar) == "" {
		t.Skip("a real card is wanted: STHENO_LIBCUDA=libcuda.so.1")
	}
	s := emulator.Open(t, emulator.Config{})
	by, runs := 1, 20
	if s.Device().Name() == "emulated device" {
		by, runs = 64, 1
	}
	capability, err := s.Device().Capability()
	require.NoError(t, err)
	var table strings.Builder
	line := func(format string, a ...any) {
		fmt.Printf(format+"\n", a...)
		fmt.Fprintf(&table, format+"\n", a...)
		if file := os.Getenv("STHENO_CARD_TABLE"); file != "" {
			require.NoError(t, os.WriteFile(file, []byte(table.String()), 0o644))
		}
	}
	_, why := s.Device().Warpgroups()
	line("%s, compute capability %d.%d, %d SMs; medians of %d launches, warm, with the second-level cache swept between.", s.Device().Name(), capability/10,
		capability%10, must(t, s, cudamodules.MultiprocessorCount), runs)
	line("Attention by warpgroups: %s.", why)
	line("")
	line("| what | median | fastest to slowest | rate |")
	line("|---|---|---|---|")
	w, err := newStopwatch(s, runs)
	require.NoError(t, err)
	var copied float64 // GB/s
	write := func(what, unit string, work float64, times []time.Duration) {
		median := times[len(times)/2]
		rate := "none: the clock stands"
		if median > 0 {
			rate = fmt.Sprintf("%.4g %s", work/median.Seconds(), unit)
			if unit == "GB/s" && copied > 0 {
				rate += fmt.Sprintf(", %.0f %% of the copy", 100*work/median.Seconds()/copied)
			}
		}
		line("| %s | %v | %v to %v | %s |", what, median, times[0], times[len(times)-1], rate)
	}
	half := int64(1<<30) / int64(by)
	x, err := s.Alloc(half)
	require.NoError(t, err)
	y, err := s.Alloc(half)
	require.NoError(t, err)
	require.NoError(t, s.Set(x, 0x5a, half, nil))
	times, err := w.times(func() error { return s.Copy(y, x, half, nil) })
	require.NoError(t, err)
	write(fmt.Sprintf("copy, %d MiB", half>>20), "GB/s", 2*float64(half)/1e9, times)
	if m := times[len(times)/2]; m > 0 {
		copied = 2 * float64(half) / 1e9 / m.Seconds()
	}
	require.NoError(t, s.Free(x))
	require.NoError(t, s.Free(y))
	for _, f := range figures(s, by) {
		if f.ninety && capability != 90 {
			continue
		}
		times, seen := make([]time.Duration, runs), map[string]bool{}
		s.Again = func(kernel string, launch func() error) error {
			if !slices.Contains(strings.Fields(f.kernels), kernel) {
				return nil
			}
			seen[kernel] = true
			more, err := w.times(launch)
			for i, d := range more {
				times[i] += d
			}
			return err
		}
		err := f.run()
		if err == nil && len(seen) != len(strings.Fields(f.kernels)) {
			err = fmt.Errorf("of the kernels %s, these were launched: %v", f.kernels, seen)
		}
		if err != nil {
			line("| %s | FAILED: %v | | |", f.what, err)
			t.Errorf("%s: %v", f.what, err)
		} else {
			write(f.what, f.unit, f.work, times)
		}
		if err := s.Synchronize(); err != nil {
			line("| all others | FAILED: the card is lost: %v | | |", err)
			t.Fatal(err)
		}
	}
	s.Again = nil
}

func must(t *testing.T, s *emulator.Session, a cudamodules.Attribute) int {
	t.Helper()
	v, err := s.Device().Attribute(a)
	require.NoError(t, err)
	return v
}
