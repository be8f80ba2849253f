package quantize_test

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/memory"
	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/internal/throughput"
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

// benchCold is the memory that weights for one row rotate through: more than caches hold.
const benchCold = 512 << 20

// BenchmarkMatMul times the op alone. GOP/s counts a multiply-add as two operations. %peak compares with multiplications between
// registers: VPDPBUSD for inputs in INT8, where the machine has it, or else float32, and %f32peak always with float32. Products in
// tiles of AMX go beyond both. For one row the weights rotate through more memory than caches hold: GB/s is that of the packed weights,
// %bandwidth compares with as many threads that only read the same memory.
func BenchmarkMatMul(b *testing.B) {
	for _, s := range benchSchemes {
		for _, size := range [][3]int{{512, 768, 3072}, {512, 3072, 768}, {1, 768, 3072}, {1, 3072, 768}} {
			for _, threads := range []int{1, 2} {
				m, k, n := size[0], size[1], size[2]
				b.Run(fmt.Sprintf("scheme=%s/m=%d/k=%d/n=%d/threads=%d", s.name, m, k, n, threads), func(b *testing.B) {
					old, err := parallel.SetThreads(threads)
					require.NoError(b, err)
					defer parallel.SetThreads(old)
					packed := pack(b, dense(optest.Normal[float32](2, k*n, 0.02), k, n), s.cfg)
					copies := 1
					if m == 1 {
						copies = benchCold / packed.Bytes()
					}
					g := G.NewGraph()
					w, err := packed.Nodes(g, "w")
					require.NoError(b, err)
					x := G.NewMatrix(g, tensor.Float32, G.WithName("x"), G.WithShape(m, k))
					y, err := quantize.MatMul(x, w, quantize.MatMulConfig{Input: s.input, NoGrad: true})
					require.NoError(b, err)
					in := benchInputs(packed, dense(optest.Normal[float32](1, m*k, 1), m, k), copies)
					i := 0
					run := func() {
						if _, err := y.Op().Do(in[i%copies]...); err != nil {
							b.Fatal(err)
						}
						i++
					}
					ops := 2 * float64(m) * float64(k) * float64(n)
					if m == 1 {
						reader := kernel.NewReader(threads, benchBytes(in))
						read := func() float64 { return reader.Sample(throughput.CeilingTime) }
						each := throughput.Work{Ops: float64(packed.Bytes()), Unit: "GB/s", Ceiling: read, Share: "%bandwidth"}.Run(b, run)
						b.ReportMetric(ops/each, "GOP/s")
						return
					}
					each := throughput.Work{Ops: ops, Unit: "GOP/s", Ceiling: benchPeak(s.input, threads)}.Run(b, run)
					b.ReportMetric(100*ops/each/kernel.MeasurePeak(threads), "%f32peak")
				})
			}
		}
	}
}

// benchPeak measures the rate that products with inputs of a kind are compared with.
func benchPeak(input quantize.Input, threads int) func() float64 {
	sample := kernel.SamplePeak
	if input == quantize.InputINT8 && kernel.SampleBytePeak(1, time.Millisecond) > 0 {
		sample = kernel.SampleBytePeak
	}
	return func() float64 { return sample(threads, throughput.CeilingTime) }
}

// benchInputs are an op's inputs, with as many copies of the weights.
func benchInputs(p *quantize.Packed, x *tensor.Dense, copies int) [][]G.Value {
	all := make([][]G.Value, copies)
	for i := range all {
		all[i] = []G.Value{x}
		for _, part := range []*tensor.Dense{p.Codes, p.Scales} {
			if part != nil {
				all[i] = append(all[i], benchClone(part))
			}
		}
	}
	return all
}

// benchClone is a copy in memory like that of the original.
func benchClone(d *tensor.Dense) *tensor.Dense {
	switch x := d.Data().(type) {
	case []uint8:
		return benchCopy(x, d.Shape())
	case []uint16:
		return benchCopy(x, d.Shape())
	default:
		return benchCopy(d.Data().([]float32), d.Shape())
	}
}

func benchCopy[T uint8 | uint16 | float32](x []T, shape tensor.Shape) *tensor.Dense {
	c := memory.Make[T](len(x))
	copy(c, x)
	return tensor.New(tensor.WithShape(shape...), tensor.WithBacking(c))
}

// benchBytes is the memory of the codes.
func benchBytes(in [][]G.Value) [][]byte {
	all := make([][]byte, len(in))
	for i, v := range in {
		switch x := v[1].Data().(type) {
		case []uint8:
			all[i] = x
		case []uint16:
			all[i] = unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 2*len(x))
		}
	}
	return all
}

// BenchmarkFakeQuantize runs the node forward, or its gradient, on weights of 768×3072 or as many numbers of rows.
func BenchmarkFakeQuantize(b *testing.B) {
	const in, out = 768, 3072
	int4s := quantize.Config{Scheme: quantize.INT4, Granularity: quantize.PerGroup}
	for _, c := range []struct {
		name    string
		cfg     quantize.FakeQuantizeConfig
		learned bool
	}{
		{"bf16", quantize.FakeQuantizeConfig{Weights: quantize.Config{Scheme: quantize.BF16}}, false},
		{"int8", quantize.FakeQuantizeConfig{Weights: quantize.Config{Scheme: quantize.INT8}}, false},
		{"int8-tensor", quantize.FakeQuantizeConfig{Weights: quantize.Config{Scheme: quantize.INT8, Granularity: quantize.PerTensor}}, false},
		{"int4", quantize.FakeQuantizeConfig{Weights: int4s}, false},
		{"int4-clip", quantize.FakeQuantizeConfig{Weights: int4s, Clip: true}, false},
		{"int4-learned", quantize.FakeQuantizeConfig{Weights: int4s}, true},
		{"rows", quantize.FakeQuantizeConfig{Rows: true}, false},
	} {
		for _, gradient := range []bool{false, true} {
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("%s/gradient=%t/k=%d/n=%d/threads=%d", c.name, gradient, in, out, threads), func(b *testing.B) {
					old, err := parallel.SetThreads(threads)
					require.NoError(b, err)
					defer parallel.SetThreads(old)
					x := dense(optest.Normal[float32](1, in*out, 1), in, out)
					inputs, grads := []G.Value{x}, []*tensor.Dense{op.NewLike(x)}
					g := G.NewGraph()
					node := G.NewMatrix(g, tensor.Float32, G.WithName("x"), G.WithShape(in, out))
					cfg := c.cfg
					if c.learned {
						scales := optest.Normal[float32](2, in/32*out, 0.02)
						for i := range scales {
							scales[i] += 0.3
						}
						cfg.Scale = G.NewMatrix(g, tensor.Float32, G.WithName("s"), G.WithShape(in/32, out))
						inputs = append(inputs, dense(scales, in/32, out))
						grads = append(grads, op.NewLike(inputs[1].(*tensor.Dense)))
					}
					y, err := quantize.FakeQuantize(node, cfg)
					require.NoError(b, err)
					dOut := dense(optest.Normal[float32](3, in*out, 1), in, out)
					b.SetBytes(4 * in * out)
					for b.Loop() {
						if gradient {
							err = y.Op().(op.Backwarder).Backward(inputs, nil, dOut, grads)
						} else {
							_, err = y.Op().Do(inputs...)
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
