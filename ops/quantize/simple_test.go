package quantize_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops/quantize"
)

func newQuantizer(t testing.TB, bits int) *quantize.DynamicQuantizer {
	t.Helper()
	d, err := quantize.NewDynamicQuantizer(bits)
	require.NoError(t, err)
	return d
}

func TestDynamicQuantizer(t *testing.T) {
	layers := map[string]*tensor.Dense{
		"block0.mlp": dense(optest.Normal[float32](1, 64*20, 1), 64, 20),
		"block1.mlp": dense(optest.Normal[float32](2, 64*20, 1), 64, 20),
		"output":     dense(optest.Normal[float32](3, 64*20, 1), 64, 20),
	}
	for bits, size := range map[int]int{8: 64*32 + 4*20, 4: 64*32/2 + 4*2*20} {
		d := newQuantizer(t, bits)
		require.NoError(t, d.AddFP32Layer("out*"))
		require.NoError(t, d.CalibrateAll(layers))
		_, ok := d.Calibrated("output")
		require.False(t, ok)
		for name, w := range layers {
			p, err := d.QuantizeWeights(name, w)
			require.NoError(t, err)
			require.Equal(t, name == "output", d.IsFP32(name))
			if name == "output" {
				require.Nil(t, p)
				continue
			}
			require.Equal(t, size, p.Bytes())
			requireHalfStep(t, optest.Float64s(w.Data().([]float32)), p)
			back, err := d.Dequantize(p)
			require.NoError(t, err)
			require.Equal(t, unpack(t, p), back.Data())
		}
		other := dense(shifted(optest.Normal[float64](4, 64*20, 1), 9), 64, 20)
		_, err := d.QuantizeWeights("block0.mlp", other)
		require.ErrorContains(t, err, `quantize.QuantizeWeights: layer "block0.mlp": got weights from`)
		require.NoError(t, d.Calibrate("block0.mlp", other))
		_, err = d.QuantizeWeights("block0.mlp", other)
		require.NoError(t, err, "the ranges of several calibrations add up")
	}
}

// The output projection and the final norm stay in full precision unless one says otherwise, and the report says so.
func TestCriticalLayers(t *testing.T) {
	d := newQuantizer(t, 4)
	for _, name := range []string{"lm_head", "lm_head.weight", "output", "output.weight", "ln_f", "ln_f.weight", "transformer.ln_f.bias", "model.norm.weight", "norm_f"} {
		require.True(t, d.IsFP32(name), name)
	}
	for _, name := range []string{"h.0.mlp.c_fc.weight", "h.0.ln_1", "model.layers.0.mlp.down_proj", "attn.output_proj", "wte.weight"} {
		require.False(t, d.IsFP32(name), name)
	}
	require.NoError(t, d.AddFP32Layer("h.0.*"))
	w := dense(optest.Normal[float32](1, 64*16, 1), 64, 16)
	for _, name := range []string{"lm_head", "h.1.mlp", "h.0.mlp"} {
		_, err := d.QuantizeWeights(name, w)
		require.NoError(t, err)
	}
	require.Equal(t, []quantize.LayerReport{
		{Layer: "h.0.mlp", Precision: "fp32", Why: `kept by "h.0.*"`, Weights: 1024, Bytes: 4096},
		{Layer: "h.1.mlp", Precision: "int4 per-group 32", Why: "kept by no name", Weights: 1024, Bytes: 512 + 4*2*16},
		{Layer: "lm_head", Precision: "fp32", Why: `kept by "lm_head*"`, Weights: 1024, Bytes: 4096},
	}, d.Report())
	require.NoError(t, d.SetFP32Layers("h.1.mlp"))
	require.False(t, d.IsFP32("lm_head"))
	require.True(t, d.IsFP32("h.1.mlp"))
	require.NoError(t, d.SetFP32Layers())
	require.False(t, d.IsFP32("h.1.mlp"))
	require.ErrorContains(t, d.SetFP32Layers("a", "["), `quantize.SetFP32Layers: got "["`)
}

func TestDynamicQuantizerErrors(t *testing.T) {
	for _, bits := range []int{0, 2, 16} {
		_, err := quantize.NewDynamicQuantizer(bits)
		require.ErrorContains(t, err, fmt.Sprintf("quantize.NewDynamicQuantizer: got %d bits, want 8 or 4", bits))
	}
	d := newQuantizer(t, 8)
	w := dense([]float32{1, 2, 3, float32(math.NaN())}, 2, 2)
	require.ErrorContains(t, d.Calibrate("a", w), `quantize.Calibrate: layer "a": w[1, 1]: got NaN, want a finite number`)
	require.ErrorContains(t, d.Calibrate("a", nil), "got nil, want a matrix")
	require.ErrorContains(t, d.Calibrate("a", dense([]float32{1}, 1)), "got shape (1), want a matrix")
	require.ErrorContains(t, d.CalibrateAll(map[string]*tensor.Dense{"a": w}), "got NaN")
	require.NoError(t, d.Calibrate("b", dense([]float64{1, 2}, 1, 2)))
	require.ErrorContains(t, d.Calibrate("b", dense([]float64{1, 2}, 2, 1)), "got shape (2, 1), want (1, 2) as before")
	_, err := d.QuantizeWeights("b", dense([]float64{1, 2}, 2, 1))
	require.ErrorContains(t, err, "got shape (2, 1), want (1, 2) as calibrated")
	_, err = d.QuantizeWeights("c", w)
	require.ErrorContains(t, err, `quantize.QuantizeWeights: layer "c": quantize.Quantize: w[1, 1]: got NaN`)
	require.ErrorContains(t, d.AddFP32Layer("["), `quantize.AddFP32Layer: got "["`)
	require.ErrorContains(t, d.AddFP32Layer(""), "want a name")
}

func ExampleDynamicQuantizer() {
	layers := map[string]*tensor.Dense{
		"mlp":    dense([]float32{0.1, -0.2, 0.3, 0.4}, 2, 2),
		"output": dense([]float32{1, 2, 3, 4}, 2, 2),
	}
	q, err := quantize.NewDynamicQuantizer(8)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"mlp", "output"} {
		if _, err := q.QuantizeWeights(name, layers[name]); err != nil {
			fmt.Println(err)
			return
		}
	}
	for _, r := range q.Report() {
		fmt.Printf("%s: %s, %s\n", r.Layer, r.Precision, r.Why)
	}
	// Output:
	// mlp: int8 per-channel, kept by no name
	// output: fp32, kept by "output"
}
