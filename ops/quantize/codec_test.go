package quantize_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/ops/quantize"
)

// configs are the formats, each with every granularity that it has.
func configs() []quantize.Config {
	all := []quantize.Config{{Scheme: quantize.FP16}, {Scheme: quantize.BF16}}
	for _, s := range []quantize.Scheme{quantize.INT8, quantize.INT4} {
		for _, asymmetric := range []bool{false, true} {
			for _, c := range []quantize.Config{{}, {Granularity: quantize.PerTensor}, {Granularity: quantize.PerGroup},
				{Granularity: quantize.PerGroup, GroupSize: 64}, {Granularity: quantize.PerGroup, GroupSize: 128}} {
				c.Scheme, c.Asymmetric = s, asymmetric
				all = append(all, c)
			}
		}
	}
	return all
}

func dense[T kernel.Float](data []T, shape ...int) *tensor.Dense {
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
}

func pack(t testing.TB, w *tensor.Dense, cfg quantize.Config) *quantize.Packed {
	t.Helper()
	p, err := quantize.Quantize(w, cfg)
	require.NoError(t, err)
	return p
}

func unpack(t testing.TB, p *quantize.Packed) []float32 {
	t.Helper()
	d, err := p.Dequantize()
	require.NoError(t, err)
	return d.Data().([]float32)
}

// step is the distance between neighbouring codes of element (p, j): the scale.
func step(p *quantize.Packed, i, j int) float64 {
	s := p.Scales.Data().([]float32)
	switch p.Config.Granularity {
	case quantize.PerTensor:
		return float64(s[0])
	case quantize.PerChannel:
		return float64(s[j])
	}
	return float64(s[i/p.Config.GroupSize*p.Out+j])
}

// requireHalfStep demands |ŵ − w| ≤ s/2, and for the halves half a unit in the last place. The roundings of s and of ŵ add a
// few parts in 2²⁴ of the largest weight of the group, at most 255 steps.
func requireHalfStep(t *testing.T, w []float64, p *quantize.Packed) {
	t.Helper()
	got := unpack(t, p)
	require.Len(t, got, p.In*p.Out)
	for i, x := range got {
		row, col := i/p.Out, i%p.Out
		var bar float64
		switch p.Config.Scheme {
		case quantize.FP16:
			bar = math.Max(math.Abs(w[i])*0x1p-11, 0x1p-25)
		case quantize.BF16:
			bar = math.Max(math.Abs(w[i])*0x1p-8, 0x1p-134)
		default:
			bar = step(p, row, col) * (0.5 + 255*0x1p-22)
		}
		require.LessOrEqual(t, math.Abs(float64(x)-w[i]), bar, "%v (%d, %d): got %v, want %v", p.Config, row, col, x, w[i])
	}
}

// distributions of weights, each n numbers.
var distributions = map[string]func(n int) []float64{
	"normal":   func(n int) []float64 { return optest.Normal[float64](1, n, 0.02) },
	"positive": func(n int) []float64 { return shifted(optest.Normal[float64](2, n, 1), 7) },
	"negative": func(n int) []float64 { return shifted(optest.Normal[float64](3, n, 1), -7) },
	"outliers": func(n int) []float64 {
		x := optest.Normal[float64](4, n, 0.01)
		for i := 0; i < n; i += 17 {
			x[i] *= 300
		}
		return x
	},
	"zeros":    func(n int) []float64 { return make([]float64, n) },
	"constant": func(n int) []float64 { return shifted(make([]float64, n), -0.3) },
	"tiny":     func(n int) []float64 { return optest.Normal[float64](5, n, 1e-40) },
}

func shifted(x []float64, by float64) []float64 {
	for i := range x {
		x[i] += by
	}
	return x
}

func TestQuantizeErrsHalfAStep(t *testing.T) {
	for name, weights := range distributions {
		t.Run(name, func(t *testing.T) {
			for _, s := range [][2]int{{1, 1}, {7, 3}, {33, 17}, {64, 16}, {129, 31}, {200, 5}} {
				for _, cfg := range configs() {
					w := weights(s[0] * s[1])
					requireHalfStep(t, w, pack(t, dense(w, s[0], s[1]), cfg))
				}
			}
		})
	}
}

// Zero stays zero in every format.
func TestQuantizeKeepsZero(t *testing.T) {
	w := shifted(optest.Normal[float64](1, 40*5, 1), 3)
	for i := 0; i < len(w); i += 3 {
		w[i] = 0
	}
	for _, cfg := range configs() {
		got := unpack(t, pack(t, dense(w, 40, 5), cfg))
		for i := 0; i < len(w); i += 3 {
			require.Zero(t, got[i], "%v", cfg)
		}
	}
}

// What has been through the codec once stays as it is.
func TestQuantizeTwice(t *testing.T) {
	for _, cfg := range configs() {
		p := pack(t, dense(optest.Normal[float32](1, 70*9, 1), 70, 9), cfg)
		once := unpack(t, p)
		again := unpack(t, pack(t, dense(once, 70, 9), cfg))
		if !cfg.Scheme.HasScales() {
			require.Equal(t, once, again)
			continue
		}
		for i := range once {
			require.InDelta(t, once[i], again[i], 1e-5*step(p, i/9, i%9)*256, "%v", cfg)
		}
	}
}

// Transposed matrices, views and float64 make the same codes.
func TestQuantizeReadsAnyMatrix(t *testing.T) {
	const in, out = 45, 19
	w := optest.Normal[float32](1, in*out, 1)
	turned, doubled, wide := make([]float32, in*out), make([]float32, 2*in*out), make([]float64, in*out)
	for i, x := range w {
		turned[i%out*in+i/out], doubled[2*i], wide[i] = x, x, float64(x)
	}
	view, err := dense(doubled, in, out, 2).Slice(nil, nil, tensor.S(0))
	require.NoError(t, err)
	for _, cfg := range configs() {
		want := pack(t, dense(w, in, out), cfg)
		transposed := cfg
		transposed.Transposed = true
		for name, got := range map[string]*quantize.Packed{
			"view":       pack(t, view.(*tensor.Dense), cfg),
			"float64":    pack(t, dense(wide, in, out), cfg),
			"transposed": pack(t, dense(turned, out, in), transposed),
		} {
			require.Equal(t, want.Codes.Data(), got.Codes.Data(), "%v %s", cfg, name)
			if want.Scales != nil {
				require.Equal(t, want.Scales.Data(), got.Scales.Data(), "%v %s", cfg, name)
			}
			if want.Zeros != nil {
				require.Equal(t, want.Zeros.Data(), got.Zeros.Data(), "%v %s", cfg, name)
			}
		}
		back, err := pack(t, dense(turned, out, in), transposed).Dequantize()
		require.NoError(t, err)
		require.Equal(t, tensor.Shape{out, in}, back.Shape())
		for i, x := range unpack(t, want) {
			require.Equal(t, x, back.Data().([]float32)[i%out*in+i/out])
		}
	}
}

func TestQuantizeOnAnyNumberOfThreads(t *testing.T) {
	old := parallel.Threads()
	defer parallel.SetThreads(old)
	w := dense(optest.Normal[float32](1, 300*200, 1), 300, 200)
	for _, cfg := range configs() {
		var want *quantize.Packed
		for _, threads := range []int{1, 2, 7} {
			_, err := parallel.SetThreads(threads)
			require.NoError(t, err)
			got := pack(t, w, cfg)
			if want == nil {
				want = got
			}
			require.Equal(t, want.Codes.Data(), got.Codes.Data())
		}
	}
}

// Two bytes, one, or half a byte a weight, and the scales; nothing else is kept.
func TestPackedBytes(t *testing.T) {
	const in, out = 256, 64
	w := dense(optest.Normal[float32](1, in*out, 1), in, out)
	for _, cfg := range configs() {
		p := pack(t, w, cfg)
		codes := map[quantize.Scheme]int{quantize.FP16: 2 * in * out, quantize.BF16: 2 * in * out, quantize.INT8: in * out, quantize.INT4: in * out / 2}[cfg.Scheme]
		scales := 0
		if cfg.Scheme.HasScales() {
			switch cfg.Granularity {
			case quantize.PerTensor:
				scales = 1
			case quantize.PerChannel:
				scales = out
			default:
				scales = in / p.Config.GroupSize * out
			}
		}
		want := codes + 4*scales
		if cfg.Asymmetric {
			want += scales
		}
		require.Equal(t, want, p.Bytes(), "%v", cfg)
		require.Equal(t, want, held(p), "%v", cfg)
	}
}

// held counts the bytes of the slices that a Packed points to.
func held(p *quantize.Packed) int {
	n := 0
	for _, d := range []*tensor.Dense{p.Codes, p.Scales, p.Zeros} {
		if d == nil {
			continue
		}
		switch x := d.Data().(type) {
		case []uint8:
			n += cap(x)
		case []uint16:
			n += 2 * cap(x)
		case []float32:
			n += 4 * cap(x)
		}
	}
	return n
}

func TestQuantizeNamesWhatItCannotStore(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		cfg  quantize.Config
		bad  []float64
		want string
	}{
		{quantize.Config{Scheme: quantize.INT8}, []float64{nan}, "w[2, 1]: got NaN, want a finite number"},
		{quantize.Config{Scheme: quantize.INT4}, []float64{inf, nan}, "w[2, 1]: got +Inf, and 1 more like it"},
		{quantize.Config{Scheme: quantize.INT4, Transposed: true}, []float64{-inf}, "w[2, 1]: got -Inf, want a finite number"},
		{quantize.Config{}, []float64{65505, -7e4, 1e9}, "w[2, 1]: got 65505, and 2 more like it, want at most 65504"},
		{quantize.Config{}, []float64{nan}, "w[2, 1]: got NaN"},
		{quantize.Config{Scheme: quantize.BF16}, []float64{math.MaxFloat32}, "want at most 3.3895e38"},
		{quantize.Config{Scheme: quantize.INT8}, []float64{1e39}, "want a finite number of at most 2^126"},
	} {
		w := make([]float64, 4*3)
		copy(w[7:], c.bad)
		p, err := quantize.Quantize(dense(w, 4, 3), c.cfg)
		require.Nil(t, p)
		require.ErrorContains(t, err, "quantize.Quantize: ")
		require.ErrorContains(t, err, c.want)
	}
	_, err := quantize.Quantize(dense([]float32{65504, -65504}, 1, 2), quantize.Config{})
	require.NoError(t, err)
}

func TestQuantizeErrors(t *testing.T) {
	w := dense(make([]float32, 6), 2, 3)
	for want, call := range map[string]func() error{
		"w: got nil":             func() error { _, err := quantize.Quantize(nil, quantize.Config{}); return err },
		"of rank 1, want rank 2": func() error { _, err := quantize.Quantize(dense(make([]float32, 6), 6), quantize.Config{}); return err },
		"w: got dtype int, want float32": func() error {
			_, err := quantize.Quantize(tensor.New(tensor.WithShape(1, 2), tensor.WithBacking([]int{1, 2})), quantize.Config{})
			return err
		},
		"Scheme: got 4, want 0 (fp16) to 3 (int4)": func() error { _, err := quantize.Quantize(w, quantize.Config{Scheme: 4}); return err },
		"Scheme: got -1": func() error { _, err := quantize.Quantize(w, quantize.Config{Scheme: -1}); return err },
		"Granularity: got 3": func() error {
			_, err := quantize.Quantize(w, quantize.Config{Scheme: quantize.INT8, Granularity: 3})
			return err
		},
		"fp16: got Asymmetric true": func() error { _, err := quantize.Quantize(w, quantize.Config{Asymmetric: true}); return err },
		"Granularity per-tensor, want neither": func() error {
			_, err := quantize.Quantize(w, quantize.Config{Granularity: quantize.PerTensor})
			return err
		},
		"GroupSize: got 48, want 32, 64 or 128": func() error {
			_, err := quantize.Quantize(w, quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerGroup, GroupSize: 48})
			return err
		},
		"GroupSize: got 32 with per-channel": func() error {
			_, err := quantize.Quantize(w, quantize.Config{Scheme: quantize.INT4, GroupSize: 32})
			return err
		},
		"got 65537 inputs, want at most 65536": func() error {
			_, err := quantize.Quantize(dense(make([]float32, 65537), 65537, 1), quantize.Config{Scheme: quantize.INT8})
			return err
		},
	} {
		require.ErrorContains(t, call(), want)
		require.ErrorContains(t, call(), "quantize.Quantize: ")
	}
	_, err := (&quantize.Packed{}).Dequantize()
	require.ErrorContains(t, err, "quantize.Dequantize: got no codes")
	broken := *pack(t, w, quantize.Config{Scheme: quantize.INT8})
	broken.Scales = dense(make([]float32, 2), 2)
	_, err = broken.Dequantize()
	require.ErrorContains(t, err, "scales: got 2 elements, want 3")
}

// FuzzQuantize packs matrices of any shape and content: it never panics, and what it accepts it keeps to half a step.
func FuzzQuantize(f *testing.F) {
	f.Add(uint8(3), uint8(5), uint8(2), uint8(0), false, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Add(uint8(70), uint8(1), uint8(3), uint8(2), true, []byte{0, 0, 128, 63, 0, 0, 128, 191})
	f.Add(uint8(33), uint8(17), uint8(0), uint8(0), false, []byte{255, 255, 127, 71})
	f.Add(uint8(33), uint8(17), uint8(3), uint8(1), true, []byte{255, 255, 127, 127, 255, 255, 127, 255})
	f.Fuzz(func(t *testing.T, in, out, scheme, granularity uint8, asymmetric bool, raw []byte) {
		n := int(in) * int(out)
		if len(raw) < 4 || n == 0 {
			return
		}
		w := make([]float32, n)
		for i := range w {
			var bits uint32
			for b := range 4 {
				bits |= uint32(raw[(4*i+b)%len(raw)]) << (8 * b)
			}
			w[i] = math.Float32frombits(bits)
		}
		cfg := quantize.Config{Scheme: quantize.Scheme(scheme), Granularity: quantize.Granularity(granularity), Asymmetric: asymmetric}
		p, err := quantize.Quantize(dense(w, int(in), int(out)), cfg)
		if err != nil {
			require.Nil(t, p)
			return
		}
		requireHalfStep(t, optest.Float64s(w), p)
	})
}

func ExampleQuantize() {
	w := dense([]float32{0.5, -1, 0.25, 2, 0, -0.5}, 3, 2)
	p, err := quantize.Quantize(w, quantize.Config{Scheme: quantize.INT8})
	if err != nil {
		fmt.Println(err)
		return
	}
	back, err := p.Dequantize()
	fmt.Printf("%v: %.3f %v\n", p.Config, back.Data(), err)
	// Output:
	// int8 per-channel: [0.500 -1.008 0.252 2.000 0.000 -0.504] <nil>
}
