package quantize_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/ops/quantize"
)

// product is x·w in plain loops.
func product[T kernel.Float](x, w []T, rows, in, out int) []T {
	y := make([]T, rows*out)
	for r := range rows {
		for p := range in {
			for j := range out {
				y[r*out+j] += x[r*in+p] * w[p*out+j]
			}
		}
	}
	return y
}

// outliers are inputs in which some channels are much larger than others.
func outliers(rows, n int) []float64 {
	x := optest.Normal[float64](1, rows*n, 1)
	for i := range x {
		if i%n%11 == 3 {
			x[i] *= 60
		}
	}
	return x
}

func absMax(x []float64, n int) []float64 {
	m := make([]float64, n)
	for i, v := range x {
		m[i%n] = max(m[i%n], math.Abs(v))
	}
	return m
}

func values(t testing.TB) func(d *tensor.Dense, err error) []float64 {
	return func(d *tensor.Dense, err error) []float64 {
		t.Helper()
		require.NoError(t, err)
		return optest.Values(t, d)
	}
}

// dynamicError is how far MatMul with INT8 weights and inputs is from x·w.
func dynamicError(t testing.TB, x, w []float64, rows, in, out int, want []float64) float64 {
	g := G.NewGraph()
	nodes, err := pack(t, dense(w, in, out), quantize.Config{Scheme: quantize.INT8}).Nodes(g, "w")
	require.NoError(t, err)
	y, err := quantize.MatMul(optest.Input{Name: "x", Shape: []int{rows, in}, Data: x}.Node(g, tensor.Float64), nodes, quantize.MatMulConfig{Input: quantize.InputINT8})
	require.NoError(t, err)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	var sum float64
	for i, v := range optest.Values(t, y.Value()) {
		sum += (v - want[i]) * (v - want[i])
	}
	return math.Sqrt(sum)
}

// Smoothing leaves every product that reads the inputs as it is, and makes codes err less.
func TestSmoothing(t *testing.T) {
	const rows, in, out = 20, 66, 30
	x, a, b := outliers(rows, in), optest.Normal[float64](2, in*out, 0.1), optest.Normal[float64](3, in*7, 0.1)
	exact := product(x, a, rows, in, out)
	plain := dynamicError(t, x, a, rows, in, out, exact)
	for _, cfg := range []quantize.SmoothConfig{{}, {Alpha: 0.8}, {PowersOfTwo: true}} {
		s, err := quantize.SmoothScales(absMax(x, in), cfg, dense(a, in, out), dense(b, in, 7))
		require.NoError(t, err)
		if cfg == (quantize.SmoothConfig{}) {
			for j, v := range s {
				w := max(absMax(a[j*out:(j+1)*out], 1)[0], absMax(b[j*7:(j+1)*7], 1)[0])
				require.InEpsilon(t, math.Sqrt(absMax(x, in)[j]/w), v, 1e-12)
			}
		}
		smooth := values(t)(quantize.DivideOutputs(dense(x, rows, in), s))
		scaled := values(t)(quantize.ScaleInputs(dense(a, in, out), s))
		optest.Close(t, "product", product(smooth, scaled, rows, in, out), exact, 1e-12*largest(exact))
		scaledB := values(t)(quantize.ScaleInputs(dense(b, in, 7), s))
		optest.Close(t, "product", product(smooth, scaledB, rows, in, 7), product(x, b, rows, in, 7), 1e-12*largest(exact))
		require.Less(t, dynamicError(t, smooth, scaled, rows, in, out, exact), 0.7*plain, "%+v", cfg)
	}
	s, err := quantize.SmoothScales(absMax(x, in), quantize.SmoothConfig{PowersOfTwo: true}, dense(a, in, out))
	require.NoError(t, err)
	smooth, err := quantize.DivideOutputs(dense(narrow(x), rows, in), s)
	require.NoError(t, err)
	scaled, err := quantize.ScaleInputs(dense(narrow(a), in, out), s)
	require.NoError(t, err)
	require.Equal(t, product(narrow(x), narrow(a), rows, in, out),
		product(smooth.Data().([]float32), scaled.Data().([]float32), rows, in, out), "powers of two keep every bit in float32")
	gamma := values(t)(quantize.DivideOutputs(dense([]float64{2, 3}, 2), []float64{4, 0.5}))
	require.Equal(t, []float64{0.5, 6}, gamma)
	s, err = quantize.SmoothScales([]float64{0, 4}, quantize.SmoothConfig{}, dense([]float64{1, 0}, 2, 1))
	require.NoError(t, err)
	require.Equal(t, []float64{1, 1}, s, "channels of zeros")
}

// A rotation leaves products and lengths as they are, and spreads what is large.
func TestHadamard(t *testing.T) {
	const rows, out = 9, 12
	for _, n := range []int{1, 2, 3, 16, 59, 64, 97, 100, 257} {
		h, err := quantize.NewHadamard(n, 7)
		require.NoError(t, err)
		require.Equal(t, n, h.Channels())
		x, w := outliers(rows, n), optest.Normal[float64](2, n*out, 0.1)
		exact := product(x, w, rows, n, out)
		rotated := values(t)(h.RotateOutputs(dense(append([]float64(nil), x...), rows, n)))
		turned := values(t)(h.RotateInputs(dense(w, n, out)))
		optest.Close(t, "product", product(rotated, turned, rows, n, out), exact, 1e-13*float64(n)*(1+largest(x)))
		for r := range rows {
			var before, after float64
			for j := range n {
				before, after = before+x[r*n+j]*x[r*n+j], after+rotated[r*n+j]*rotated[r*n+j]
			}
			require.InEpsilon(t, before, after, 1e-12, "lengths, so that RMSNorm commutes")
		}
		if n >= 16 {
			require.NotEqual(t, x, rotated)
			require.Less(t, largest(rotated), 0.75*largest(x), "%d channels", n)
			require.Less(t, dynamicError(t, rotated, turned, rows, n, out, exact), 0.8*dynamicError(t, x, w, rows, n, out, exact), "%d channels", n)
			again, err := quantize.NewHadamard(n, 7)
			require.NoError(t, err)
			require.Equal(t, h, again)
			other, err := quantize.NewHadamard(n, 8)
			require.NoError(t, err)
			require.NotEqual(t, h, other)
		}
		// The weights of the layer before, y = a·b with b rotated, and its bias.
		b := values(t)(h.RotateOutputs(dense(optest.Normal[float64](3, 4*n, 1), 4, n)))
		a := optest.Normal[float64](4, 2*4, 1)
		y := product(a, optest.Normal[float64](3, 4*n, 1), 2, 4, n)
		optest.Close(t, "layer before", product(a, b, 2, 4, n), values(t)(h.RotateOutputs(dense(y, 2, n))), 1e-12*(1+largest(y)))
	}
}

func TestTransformErrors(t *testing.T) {
	w := dense(make([]float64, 6), 2, 3)
	h, err := quantize.NewHadamard(3, 1)
	require.NoError(t, err)
	scales := func(in []float64, cfg quantize.SmoothConfig, w ...*tensor.Dense) error {
		_, err := quantize.SmoothScales(in, cfg, w...)
		return err
	}
	second := func(_ *tensor.Dense, err error) error { return err }
	for want, err := range map[string]error{
		"quantize.SmoothScales: Alpha: got 1":                  scales([]float64{1, 1}, quantize.SmoothConfig{Alpha: 1}, w),
		"quantize.SmoothScales: got 0 inputs and 1 weights":    scales(nil, quantize.SmoothConfig{}, w),
		"quantize.SmoothScales: inputs: got NaN at channel 1":  scales([]float64{1, math.NaN()}, quantize.SmoothConfig{}, w),
		"weights 0: got shape (2, 3), want a matrix of 1 rows": scales([]float64{1}, quantize.SmoothConfig{}, w),
		"weights 1: got nil":                                   scales([]float64{1, 1}, quantize.SmoothConfig{}, w, nil),
		"not finite in row 1":                                  scales([]float64{1, 1}, quantize.SmoothConfig{}, dense([]float64{1, math.NaN()}, 2, 1)),
		"quantize.ScaleInputs: s: got no scales":               second(quantize.ScaleInputs(w, nil)),
		"quantize.ScaleInputs: s: got 0 at channel 1":          second(quantize.ScaleInputs(w, []float64{1, 0})),
		"quantize.ScaleInputs: w: got shape (2, 3)":            second(quantize.ScaleInputs(w, []float64{1})),
		"quantize.DivideOutputs: v: got shape (2, 3), want 2":  second(quantize.DivideOutputs(w, []float64{1, 1})),
		"quantize.DivideOutputs: s: got +Inf":                  second(quantize.DivideOutputs(w, []float64{math.Inf(1)})),
		"quantize.DivideOutputs: v: got dtype int":             second(quantize.DivideOutputs(ints(1), []float64{1})),
		"quantize.RotateInputs: w: got shape (2, 3)":           second(h.RotateInputs(w)),
		"quantize.RotateOutputs: v: got nil":                   second(h.RotateOutputs(nil)),
		"quantize.RotateOutputs: got a nil Hadamard":           second((*quantize.Hadamard)(nil).RotateOutputs(w)),
	} {
		require.ErrorContains(t, err, want)
	}
	_, err = quantize.NewHadamard(0, 1)
	require.ErrorContains(t, err, "quantize.NewHadamard: got 0 channels")
}

func ExampleSmoothScales() {
	w := dense([]float32{1, -0.5, 0.25, 0.5}, 2, 2)
	s, err := quantize.SmoothScales([]float64{64, 1}, quantize.SmoothConfig{PowersOfTwo: true}, w)
	if err != nil {
		fmt.Println(err)
		return
	}
	gamma, err := quantize.DivideOutputs(dense([]float32{1, 1}, 2), s)
	if err != nil {
		fmt.Println(err)
		return
	}
	scaled, err := quantize.ScaleInputs(w, s)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s, gamma.Data(), scaled.Data())
	// Output:
	// [8 1] [0.125 1] [8 -4 0.25 0.5]
}

func ExampleHadamard() {
	h, err := quantize.NewHadamard(4, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	x, err := h.RotateOutputs(dense([]float64{0, 8, 0, 0}, 1, 4))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range x.Data().([]float64) {
		fmt.Printf("%.0f ", math.Abs(v))
	}
	// Output:
	// 4 4 4 4
}
