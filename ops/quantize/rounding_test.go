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

func packWith(t testing.TB, w *tensor.Dense, cfg quantize.Config, r quantize.Rounding) *quantize.Packed {
	t.Helper()
	p, err := quantize.QuantizeWith(w, cfg, r)
	require.NoError(t, err)
	return p
}

// correlated are the moments of rows whose channels are mixtures of a few sources, with some channels much larger than others.
func correlated(t testing.TB, n, rows int) *quantize.Moments {
	sources := max(2, n/4)
	s, mix, x := optest.Normal[float64](11, rows*sources, 1), optest.Normal[float64](12, sources*n, 1), optest.Normal[float64](13, rows*n, 0.1)
	for i := range mix {
		if i%n%7 == 0 {
			mix[i] *= 5
		}
	}
	kernel.Gemm(kernel.RowMajor(x, rows, n), kernel.RowMajor(s, rows, sources), kernel.RowMajor(mix, sources, n), true, kernel.Epilogue[float64]{})
	m, err := quantize.NewMoments(n)
	require.NoError(t, err)
	require.NoError(t, m.Add(dense(x, rows, n)))
	return m
}

func outputError(t testing.TB, w *tensor.Dense, p *quantize.Packed, m *quantize.Moments) float64 {
	t.Helper()
	e, err := quantize.OutputError(w, p, m)
	require.NoError(t, err)
	return e
}

func integerConfigs() (all []quantize.Config) {
	for _, c := range configs() {
		if c.Scheme.HasScales() {
			all = append(all, c)
		}
	}
	return all
}

// On correlated inputs GPTQ's outputs err clearly less than those of rounding to nearest, in every format; each method is
// no worse with the finer choices.
func TestGPTQErrsLessThanNearest(t *testing.T) {
	const in, out = 200, 37
	m := correlated(t, in, 500)
	w := dense(optest.Normal[float64](1, in*out, 0.05), in, out)
	for _, cfg := range integerConfigs() {
		nearest := outputError(t, w, pack(t, w, cfg), m)
		for _, r := range []quantize.Rounding{{}, {ActOrder: true}, {Clip: true}, {ActOrder: true, Clip: true, Damping: 0.05}} {
			r.Method, r.Moments = quantize.GPTQ, m
			got := outputError(t, w, packWith(t, w, cfg, r), m)
			require.Less(t, got, 0.6*nearest, "%v %+v", cfg, r)
		}
	}
}

// Uncorrelated inputs leave nothing to make good for.
func TestGPTQWithIdentityIsNearest(t *testing.T) {
	const in, out = 150, 19
	eye := make([]float64, in*in)
	for i := range in {
		eye[i*in+i] = 1
	}
	m, err := quantize.NewMoments(in)
	require.NoError(t, err)
	unseen := *m
	require.NoError(t, m.Add(dense(eye, in, in)))
	for _, cfg := range integerConfigs() {
		w := dense(optest.Normal[float32](1, in*out, 1), in, out)
		for _, moments := range []*quantize.Moments{m, &unseen} {
			got := packWith(t, w, cfg, quantize.Rounding{Method: quantize.GPTQ, Moments: moments})
			require.Equal(t, pack(t, w, cfg).Codes.Data(), got.Codes.Data(), "%v", cfg)
		}
		clipped := packWith(t, w, cfg, quantize.Rounding{Method: quantize.Clipped})
		got := packWith(t, w, cfg, quantize.Rounding{Method: quantize.GPTQ, Moments: m, Clip: true})
		require.Equal(t, clipped.Codes.Data(), got.Codes.Data(), "%v", cfg)
	}
}

// Two inputs by hand: with H = ((a, b), (b, c)) and e = w₀ − ŵ₀, the second weight that errs least is w₁ + e·b/c.
func TestGPTQByHand(t *testing.T) {
	x := []float64{1, 0.9, 1, 1.1, -1, -0.7} // a = 3, b = 2.7, c = 2.51
	m, err := quantize.NewMoments(2)
	require.NoError(t, err)
	require.NoError(t, m.Add(dense(x, 3, 2)))
	const damping = 0.05
	lambda := damping * (3 + 2.51) / 2
	require.InDelta(t, 2.7, m.At(0, 1), 1e-12)
	for _, w := range [][]float64{{1.4, 7}, {3.45, -7}, {7, 2.3}, {-2.45, 7}} {
		p := packWith(t, dense([]float64{w[0], w[1]}, 2, 1), quantize.Config{Scheme: quantize.INT4}, quantize.Rounding{Method: quantize.GPTQ, Moments: m, Damping: damping})
		require.Equal(t, []float32{1}, p.Scales.Data())
		first := math.RoundToEven(w[0])
		second := min(max(math.RoundToEven(w[1]+(w[0]-first)*2.7/(2.51+lambda)), -7), 7)
		require.Equal(t, []float32{float32(first), float32(second)}, unpack(t, p), "%v", w)
	}
}

// With the same bits on any number of threads, and whichever way the matrix is stored.
func TestMethodsOnAnyNumberOfThreads(t *testing.T) {
	old := parallel.Threads()
	defer parallel.SetThreads(old)
	const in, out = 140, 50
	m := correlated(t, in, 300)
	w := optest.Normal[float32](1, in*out, 1)
	turned := make([]float32, in*out)
	for i, x := range w {
		turned[i%out*in+i/out] = x
	}
	cfg := quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerGroup, Asymmetric: true}
	for _, r := range []quantize.Rounding{{Method: quantize.GPTQ, Moments: m}, {Method: quantize.GPTQ, Moments: m, ActOrder: true}, {Method: quantize.Clipped, Moments: m}} {
		var want *quantize.Packed
		for _, threads := range []int{1, 2, 7} {
			_, err := parallel.SetThreads(threads)
			require.NoError(t, err)
			got := packWith(t, dense(w, in, out), cfg, r)
			if want == nil {
				want = got
			}
			require.Equal(t, want, got)
		}
		transposed := cfg
		transposed.Transposed = true
		got := packWith(t, dense(turned, out, in), transposed, r)
		require.Equal(t, want.Codes.Data(), got.Codes.Data())
		require.Equal(t, want.Scales.Data(), got.Scales.Data())
		require.Equal(t, outputError(t, dense(w, in, out), want, m), outputError(t, dense(turned, out, in), got, m))
	}
}

// Clipped never errs more than nearest, and less where it matters; moments weigh what it errs on.
func TestClipped(t *testing.T) {
	const in, out = 256, 24
	w := optest.Normal[float64](1, in*out, 1)
	m := correlated(t, in, 400)
	for _, cfg := range integerConfigs() {
		sum := func(p *quantize.Packed, weight func(i int) float64) (s float64) {
			for i, x := range unpack(t, p) {
				d := float64(x) - w[i]
				s += d * d * weight(i/out)
			}
			return s
		}
		even := func(int) float64 { return 1 }
		square := func(i int) float64 { return m.At(i, i) }
		nearest, clipped := pack(t, dense(w, in, out), cfg), packWith(t, dense(w, in, out), cfg, quantize.Rounding{Method: quantize.Clipped})
		weighted := packWith(t, dense(w, in, out), cfg, quantize.Rounding{Method: quantize.Clipped, Moments: m})
		require.LessOrEqual(t, sum(clipped, even), sum(nearest, even), "%v", cfg)
		require.LessOrEqual(t, sum(weighted, square), sum(clipped, square), "%v", cfg)
		if cfg.Scheme == quantize.INT4 && cfg.Granularity != quantize.PerGroup {
			require.Less(t, sum(clipped, even), 0.9*sum(nearest, even), "%v", cfg)
		}
	}
}

// Fixed scales are kept as they are; those of Nearest give its codes.
func TestFixedScales(t *testing.T) {
	w := dense(optest.Normal[float32](1, 70*9, 1), 70, 9)
	for _, cfg := range integerConfigs() {
		if cfg.Asymmetric {
			continue
		}
		want := pack(t, w, cfg)
		got := packWith(t, w, cfg, quantize.Rounding{Method: quantize.Fixed, Scales: want.Scales})
		require.Equal(t, want, got)
	}
	one := quantize.Rounding{Method: quantize.Fixed, Scales: dense([]float64{0.5}, 1, 1)}
	got := unpack(t, packWith(t, dense([]float64{0.7, 1e30, -1e30}, 3, 1), quantize.Config{Scheme: quantize.INT4}, one))
	require.Equal(t, []float32{0.5, 3.5, -3.5}, got, "what lies beyond is clipped")
}

func TestQuantizeWithErrors(t *testing.T) {
	w := dense(make([]float32, 6), 2, 3)
	m, err := quantize.NewMoments(3)
	require.NoError(t, err)
	int8s := quantize.Config{Scheme: quantize.INT8}
	for _, c := range []struct {
		cfg  quantize.Config
		r    quantize.Rounding
		want string
	}{
		{int8s, quantize.Rounding{Method: 4}, "Method: got 4, want 0 (nearest) to 3 (fixed)"},
		{quantize.Config{}, quantize.Rounding{Method: quantize.Clipped}, "Method: got clipped with fp16, want nearest"},
		{int8s, quantize.Rounding{Method: quantize.GPTQ}, "Moments: got nil with gptq"},
		{int8s, quantize.Rounding{Method: quantize.GPTQ, Moments: m}, "Moments: got 3 channels, want 2"},
		{int8s, quantize.Rounding{Moments: m}, "Moments: got some with nearest"},
		{int8s, quantize.Rounding{ActOrder: true}, "ActOrder true"},
		{int8s, quantize.Rounding{Method: quantize.Fixed}, "Scales: got nil with fixed"},
		{int8s, quantize.Rounding{Scales: w}, "Scales: got shape (2, 3) with nearest"},
		{int8s, quantize.Rounding{Method: quantize.Fixed, Scales: w}, "Scales: got shape (2, 3), want (1, 3)"},
		{int8s, quantize.Rounding{Method: quantize.Fixed, Scales: dense([]float64{1, 0, 1}, 1, 3)}, "Scales: got 0 at element 1"},
		{int8s, quantize.Rounding{Method: quantize.Fixed, Scales: dense([]float64{1, math.NaN(), 1}, 1, 3)}, "Scales: got NaN at element 1"},
		{quantize.Config{Scheme: quantize.INT8, Asymmetric: true}, quantize.Rounding{Method: quantize.Fixed, Scales: w}, "fixed with Asymmetric"},
	} {
		p, err := quantize.QuantizeWith(w, c.cfg, c.r)
		require.Nil(t, p)
		require.ErrorContains(t, err, "quantize.QuantizeWith: ")
		require.ErrorContains(t, err, c.want)
	}
	two, err := quantize.NewMoments(2)
	require.NoError(t, err)
	_, err = quantize.QuantizeWith(w, int8s, quantize.Rounding{Method: quantize.GPTQ, Moments: two, Damping: -1})
	require.ErrorContains(t, err, "Damping: got -1")
	large, err := quantize.NewMoments(2)
	require.NoError(t, err)
	require.NoError(t, large.Add(dense([]float32{1e20, 0, 0, 1e20}, 2, 2)), "finite numbers, whose squares are not")
	for _, method := range []quantize.Method{quantize.Clipped, quantize.GPTQ} {
		_, err = quantize.QuantizeWith(w, int8s, quantize.Rounding{Method: method, Moments: large})
		require.ErrorContains(t, err, "quantize.QuantizeWith: Moments: got +Inf at element 0")
	}
	require.NoError(t, two.Add(dense([]float32{1, 2}, 1, 2)))
	_, err = quantize.QuantizeWith(w, int8s, quantize.Rounding{Method: quantize.GPTQ, Moments: two, Damping: math.MaxFloat64})
	require.ErrorContains(t, err, "want a smaller Damping")
	p := pack(t, w, int8s)
	for want, call := range map[string]func() error{
		"m: got +Inf at element 0":         func() error { _, err := quantize.OutputError(w, p, large); return err },
		"w: got nil":                       func() error { _, err := quantize.OutputError(nil, p, two); return err },
		"m: got nil":                       func() error { _, err := quantize.OutputError(w, p, nil); return err },
		"m: got 3 channels, want 2":        func() error { _, err := quantize.OutputError(w, p, m); return err },
		"w: got shape (3, 2), want (2, 3)": func() error { _, err := quantize.OutputError(dense(make([]float32, 6), 3, 2), p, two); return err },
		"got no codes":                     func() error { _, err := quantize.OutputError(w, nil, two); return err },
	} {
		require.ErrorContains(t, call(), "quantize.OutputError: ")
		require.ErrorContains(t, call(), want)
	}
}

func ExampleQuantizeWith() {
	w := dense([]float32{1.4, 2.4, 7}, 3, 1)
	moments, err := quantize.NewMoments(3)
	if err == nil { // the first two inputs are nearly the same
		err = moments.Add(dense([]float32{1, 1, 0, 0.9, 1.1, 0, 1, 0.9, 0, 0, 0, 0.1}, 4, 3))
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range []quantize.Rounding{{}, {Method: quantize.GPTQ, Moments: moments}} {
		p, err := quantize.QuantizeWith(w, quantize.Config{Scheme: quantize.INT4}, r)
		if err != nil {
			fmt.Println(err)
			return
		}
		back, err := p.Dequantize()
		if err != nil {
			fmt.Println(err)
			return
		}
		e, err := quantize.OutputError(w, p, moments)
		fmt.Printf("%v: %v, outputs err by %.1f %% %v\n", r.Method, back.Data(), 100*e, err)
	}
	// Output:
	// nearest: [1 2 7], outputs err by 20.8 % <nil>
	// gptq: [1 3 7], outputs err by 5.9 % <nil>
}
