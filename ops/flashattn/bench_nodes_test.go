package flashattn

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/internal/parallel"
)

// BenchmarkNodes runs attention of 12 heads of 64, without a mask, as a graph on a TapeMachine: one Attend, or Gorgonia's own
// nodes (two batched products and a softmax, on inputs that already lie head by head). train adds the gradients.
func BenchmarkNodes(b *testing.B) {
	const heads, d = 12, 64
	for _, seq := range []int{16, 64, 256, 512, 1024} {
		for _, train := range []bool{false, true} {
			for _, nodes := range []string{"plain", "stheno"} {
				b.Run(fmt.Sprintf("nodes=%s/seq=%d/train=%t/threads=2", nodes, seq, train), func(b *testing.B) {
					old, err := parallel.SetThreads(2)
					require.NoError(b, err)
					defer parallel.SetThreads(old)
					g := G.NewGraph()
					shape := []int{1, seq, heads, d}
					if nodes == "plain" {
						shape = []int{heads, seq, d}
					}
					var in G.Nodes
					for i, name := range []string{"q", "k", "v"} {
						v := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(optest.Normal[float32](uint64(i), heads*seq*d, 1)))
						in = append(in, G.NewTensor(g, tensor.Float32, len(shape), G.WithName(name), G.WithShape(shape...), G.WithValue(v)))
					}
					out := attendBy(b, nodes, in)
					if train {
						_, err := G.Grad(G.Must(G.Sum(out)), in...)
						require.NoError(b, err)
					}
					vm := G.NewTapeMachine(g)
					defer vm.Close()
					for b.Loop() {
						require.NoError(b, vm.RunAll())
						vm.Reset()
					}
				})
			}
		}
	}
}

func attendBy(b *testing.B, nodes string, in G.Nodes) *G.Node {
	if nodes == "stheno" {
		out, err := Attend(in[0], in[1], in[2], Config{})
		require.NoError(b, err)
		return out
	}
	d := in[0].Shape()[2]
	scale := G.NewConstant(float32(1 / math.Sqrt(float64(d))))
	scores := G.Must(G.BatchedMatMul(in[0], in[1], false, true))
	return G.Must(G.BatchedMatMul(G.Must(G.SoftMax(G.Must(G.HadamardProd(scores, scale)))), in[2]))
}

// BenchmarkLong is one causal head over 65,536 tokens, forward and backward.
func BenchmarkLong(b *testing.B) {
	c := instance{batch: 1, seqQ: 65536, seqKV: 65536, heads: 1, kvHeads: 1, d: 64, dv: 64, cfg: Config{Causal: true}}
	p, g := build(c, generate(c).narrow())
	optest.FLOPs(3.5*c.useful(), parallel.Threads()).Run(b, func() {
		p.forward()
		p.backward(g)
	})
	b.ReportMetric(float64(parallel.ScratchBytes())/(1<<20), "scratch-MiB")
}
