package quantize_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/ops/quantize"
)

// benchSchemes are the names that benchmarks use: weights, and the precision of inputs where it is not full.
var benchSchemes = []struct {
	name  string
	cfg   quantize.Config
	input quantize.Input
}{
	{"fp16", quantize.Config{Scheme: quantize.FP16}, quantize.InputFull},
	{"bf16", quantize.Config{Scheme: quantize.BF16}, quantize.InputFull},
	{"int8", quantize.Config{Scheme: quantize.INT8}, quantize.InputFull},
	{"int4", quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerGroup}, quantize.InputFull},
	{"int8-dynamic", quantize.Config{Scheme: quantize.INT8}, quantize.InputINT8},
	{"int4-dynamic", quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerGroup}, quantize.InputINT8},
}

var benchPeaks = map[int]float64{}

// BenchmarkMatMul times the op alone. GOP/s counts a multiply-add as two operations; %f32peak compares with the float32
// multiply-adds of this machine, measured in this process. For one row the weights rotate through more memory than caches hold,
// and GB/s is that of the packed weights.
func BenchmarkMatMul(b *testing.B) {
	for _, s := range benchSchemes {
		for _, size := range [][3]int{{512, 768, 3072}, {512, 3072, 768}, {1, 768, 3072}} {
			for _, threads := range []int{1, 2} {
				m, k, n := size[0], size[1], size[2]
				b.Run(fmt.Sprintf("scheme=%s/m=%d/k=%d/n=%d/threads=%d", s.name, m, k, n, threads), func(b *testing.B) {
					old, err := parallel.SetThreads(threads)
					require.NoError(b, err)
					defer parallel.SetThreads(old)
					if benchPeaks[threads] == 0 {
						benchPeaks[threads] = kernel.MeasurePeak(threads)
					}
					packed := pack(b, dense(optest.Normal[float32](2, k*n, 0.02), k, n), s.cfg)
					copies := 1
					if m == 1 {
						copies = 128 << 20 / packed.Bytes()
					}
					g := G.NewGraph()
					w, err := packed.Nodes(g, "w")
					require.NoError(b, err)
					x := G.NewMatrix(g, tensor.Float32, G.WithName("x"), G.WithShape(m, k))
					y, err := quantize.MatMul(x, w, quantize.MatMulConfig{Input: s.input, NoGrad: true})
					require.NoError(b, err)
					in := benchInputs(packed, dense(optest.Normal[float32](1, m*k, 1), m, k), copies)
					i := 0
					for b.Loop() {
						if _, err := y.Op().Do(in[i%copies]...); err != nil {
							b.Fatal(err)
						}
						i++
					}
					seconds := b.Elapsed().Seconds() / float64(b.N)
					rate := 2 * float64(m) * float64(k) * float64(n) / seconds / 1e9
					b.ReportMetric(rate, "GOP/s")
					b.ReportMetric(100*rate/benchPeaks[threads], "%f32peak")
					if m == 1 {
						b.ReportMetric(float64(packed.Bytes())/seconds/1e9, "GB/s")
					}
				})
			}
		}
	}
}

// benchInputs are an op's inputs, with as many copies of the codes.
func benchInputs(p *quantize.Packed, x *tensor.Dense, copies int) [][]G.Value {
	all := make([][]G.Value, copies)
	for i := range all {
		all[i] = []G.Value{x, p.Codes}
		if i > 0 {
			all[i][1] = p.Codes.Clone().(*tensor.Dense)
		}
		if p.Scales != nil {
			all[i] = append(all[i], p.Scales)
		}
	}
	return all
}
