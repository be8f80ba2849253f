package quantize_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops"
	"stheno/ops/quantize"
)

// With an InputScale, MatMul is the product of what FakeQuantize with that scale makes of x, forward and for the gradients.
func TestMatMulWithInputScale(t *testing.T) {
	const rows, in, out, scale = 37, 70, 21, 0.015625
	for i, weights := range integerConfigs() {
		packed := pack(t, dense(optest.Normal[float32](2, in*out, 0.1), in, out), weights)
		inputs := []optest.Input{optest.Seeded("x", 1, rows, in), optest.Seeded("b", 3, out)}
		for j, v := range inputs[0].Data {
			inputs[0].Data[j] = float64(float32(v))
		}
		act := []ops.Activation{ops.ActNone, ops.ActSiLU}[i%2]
		run := func(dt tensor.Dtype, machine string, fake bool) [][]float64 {
			g := G.NewGraph()
			x, b := inputs[0].Node(g, dt), inputs[1].Node(g, dt)
			w, err := packed.Nodes(g, "w")
			require.NoError(t, err)
			cfg, in := quantize.MatMulConfig{Bias: b, Activation: act, Input: quantize.InputINT8, InputScale: scale}, x
			if fake {
				cfg.Input, cfg.InputScale = quantize.InputFull, 0
				in, err = quantize.FakeQuantize(x, quantize.FakeQuantizeConfig{Rows: true, Scale: optest.Input{Name: "s", Shape: []int{1}, Data: []float64{scale}}.Node(g, dt)})
				require.NoError(t, err)
			}
			y, err := quantize.MatMul(in, w, cfg)
			require.NoError(t, err)
			weights := optest.Input{Name: "weights", Shape: y.Shape(), Data: optest.Normal[float64](99, y.Shape().TotalSize(), 1)}
			loss := G.Must(G.Sum(G.Must(G.HadamardProd(y, weights.Node(g, dt)))))
			if machine == "lisp" {
				vm := G.NewLispMachine(g)
				defer vm.Close()
				require.NoError(t, vm.RunAll())
				dx, err := x.Grad()
				require.NoError(t, err)
				db, err := b.Grad()
				require.NoError(t, err)
				return [][]float64{optest.Values(t, y.Value()), optest.Values(t, dx), optest.Values(t, db)}
			}
			grads, err := G.Grad(loss, x, b)
			require.NoError(t, err)
			reads := make([]G.Value, 3)
			for i, n := range append(G.Nodes{y}, grads...) {
				G.Read(n, &reads[i])
			}
			vm := G.NewTapeMachine(g)
			defer vm.Close()
			require.NoError(t, vm.RunAll())
			return [][]float64{optest.Values(t, reads[0]), optest.Values(t, reads[1]), optest.Values(t, reads[2])}
		}
		for _, dt := range []tensor.Dtype{tensor.Float64, tensor.Float32} {
			// ŵ is rounded to float32 in one of them, and not in the other.
			tol := map[tensor.Dtype]float64{tensor.Float64: 5e-7, tensor.Float32: 3e-6}[dt]
			got, want := run(dt, "tape", false), run(dt, "tape", true)
			require.Equal(t, got, run(dt, "lisp", false))
			clamped := 0
			for i := range want {
				optest.Close(t, fmt.Sprint(weights, dt, i), got[i], want[i], tol*(1+largest(want[i])))
			}
			for j, x := range inputs[0].Data {
				if math.Abs(x) >= 127*scale {
					clamped++
					require.Zero(t, got[1][j])
				} else {
					require.NotZero(t, got[1][j])
				}
			}
			require.Positive(t, clamped)
		}
	}
}

func TestInputScaleChecks(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 2, 8).Node(g, tensor.Float32)
	w, err := pack(t, dense(make([]float32, 8*4), 8, 4), quantize.Config{Scheme: quantize.INT8}).Nodes(g, "w")
	require.NoError(t, err)
	seen := map[uint32]bool{}
	for _, s := range []float64{0, 0.1, 0.2} {
		n, err := quantize.MatMul(x, w, quantize.MatMulConfig{Input: quantize.InputINT8, InputScale: s})
		require.NoError(t, err)
		require.False(t, seen[n.Op().Hashcode()])
		seen[n.Op().Hashcode()] = true
	}
	for _, s := range []float64{-1, math.NaN(), math.Inf(1), 1e-40} {
		_, err := quantize.MatMul(x, w, quantize.MatMulConfig{Input: quantize.InputINT8, InputScale: s})
		require.ErrorContains(t, err, fmt.Sprintf("quantize.MatMul: InputScale: got %v, want 0, or 2^-100 to 2^100", s))
	}
	_, err = quantize.MatMul(x, w, quantize.MatMulConfig{InputScale: 1})
	require.ErrorContains(t, err, "quantize.MatMul: InputScale: got 1 with input full, want int8")
}

// Calibration of real activations, then products with the scale that was found: nearer to the exact product than the full range.
func TestStaticInputsFromCalibration(t *testing.T) {
	const rows, in, out = 300, 64, 16
	r := newRecorder(t, quantize.RecorderConfig{})
	x := optest.Input{Name: "x", Shape: []int{rows, in}, Data: optest.Normal[float64](1, rows*in, 1)}
	x.Data[77] = 40 // one outlier that clips away
	g, _, _ := tapped(t, r, tensor.Float64, x)
	vm := G.NewTapeMachine(g)
	require.NoError(t, vm.RunAll())
	require.NoError(t, vm.Close())
	stats, err := r.Stats("in")
	require.NoError(t, err)
	w := optest.Normal[float64](2, in*out, 0.1)
	packed := pack(t, dense(w, in, out), quantize.Config{Scheme: quantize.INT8})
	exact := product(x.Data, optest.Float64s(unpack(t, packed)), rows, in, out)
	errs := map[quantize.Observer]float64{}
	for _, o := range observers {
		scale, _, err := stats.Scale(quantize.ObserverConfig{Observer: o})
		require.NoError(t, err)
		g := G.NewGraph()
		nodes, err := packed.Nodes(g, "w")
		require.NoError(t, err)
		y, err := quantize.MatMul(x.Node(g, tensor.Float64), nodes, quantize.MatMulConfig{Input: quantize.InputINT8, InputScale: scale})
		require.NoError(t, err)
		vm := G.NewTapeMachine(g)
		require.NoError(t, vm.RunAll())
		for i, v := range optest.Values(t, y.Value()) {
			if i/out != 1 { // the row of the outlier pays for the others
				errs[o] += (v - exact[i]) * (v - exact[i])
			}
		}
		require.NoError(t, vm.Close())
	}
	for _, o := range []quantize.Observer{quantize.Percentile, quantize.Entropy} {
		require.Less(t, errs[o], 0.1*errs[quantize.MinMax], "%v", o)
	}
}
