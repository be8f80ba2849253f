package quantize_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/ops/quantize"
)

func BenchmarkHot(b *testing.B) {
	for _, s := range benchSchemes {
		for _, size := range [][3]int{{1, 768, 3072}, {1, 3072, 768}, {1, 768, 768}} {
			for _, threads := range []int{1, 2} {
				m, k, n := size[0], size[1], size[2]
				b.Run(fmt.Sprintf("scheme=%s/m=%d/k=%d/n=%d/threads=%d", s.name, m, k, n, threads), func(b *testing.B) {
					old, err := parallel.SetThreads(threads)
					require.NoError(b, err)
					defer parallel.SetThreads(old)
					packed := pack(b, dense(optest.Normal[float32](2, k*n, 0.02), k, n), s.cfg)
					g := G.NewGraph()
					w, err := packed.Nodes(g, "w")
					require.NoError(b, err)
					x := G.NewMatrix(g, tensor.Float32, G.WithName("x"), G.WithShape(m, k))
					y, err := quantize.MatMul(x, w, quantize.MatMulConfig{Input: s.input, NoGrad: true})
					require.NoError(b, err)
					in := benchInputs(packed, dense(optest.Normal[float32](1, m*k, 1), m, k), 1)
					for b.Loop() {
						if _, err := y.Op().Do(in[0]...); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(packed.Bytes())*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GB/s")
				})
			}
		}
	}
}
