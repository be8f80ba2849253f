package kernel

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/parallel"
	"stheno/internal/throughput"
)

// flops is work of so many operations, compared with multiply-adds that stay in registers.
func flops(ops float64, threads int) throughput.Work {
	return throughput.Work{Ops: ops, Ceiling: func() float64 { return SamplePeak(threads, throughput.CeilingTime) }}
}

func benchThreads(b *testing.B, threads int) {
	old, err := parallel.SetThreads(threads)
	require.NoError(b, err)
	b.Cleanup(func() { _, _ = parallel.SetThreads(old) })
}

// filled returns random numbers. Memory that was not written is one page of zeros in many places, and times as such; and matrix
// tiles slow down by a quarter, for want of power, when the bits of their operands change as those of real data do.
func filled(n int) []float32 {
	s, x := make([]float32, n), normal[float32](uint64(n))
	for i := range s {
		s[i] = x()
	}
	return s
}

func BenchmarkGemm(b *testing.B) {
	for _, s := range [][3]int{{512, 768, 3072}, {512, 3072, 768}, {512, 64, 512}, {64, 64, 64}, {128, 128, 128}, {1024, 1024, 1024}, {500, 777, 1001}, {2, 768, 3072}, {4, 768, 3072}, {8, 768, 3072}, {32, 768, 3072}} {
		for _, layout := range []string{"nn", "nt", "tn", "tt"} {
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("m=%d/k=%d/n=%d/%s/threads=%d", s[0], s[1], s[2], layout, threads), func(b *testing.B) {
					benchThreads(b, threads)
					m, k, n := s[0], s[1], s[2]
					A, B := RowMajor(filled(m*k), m, k), RowMajor(filled(k*n), k, n)
					if layout[0] == 't' {
						A = RowMajor(A.Data, k, m).T()
					}
					if layout[1] == 't' {
						B = RowMajor(B.Data, n, k).T()
					}
					C := RowMajor(filled(m*n), m, n)
					flops(2*float64(m)*float64(k)*float64(n), threads).Run(b, func() { Gemm(C, A, B, false, Epilogue[float32]{}) })
				})
			}
		}
	}
}

// BenchmarkGemmTraining goes through the products of training steps of small models, forward and back, each with operands of its own,
// which are out of the nearer caches when it comes round again. Activations have the small numbers in them that GELU leaves.
func BenchmarkGemmTraining(b *testing.B) {
	type layer struct{ rows, in, out int }
	for name, layers := range map[string][]layer{
		"small": {{2304, 700, 256}, {2304, 256, 256}, {2304, 256, 128}, {2304, 128, 128}, {2304, 128, 128}, {2304, 128, 256}, {2304, 256, 128},
			{896, 128, 128}, {896, 128, 128}, {896, 128, 128}, {896, 128, 256}, {896, 256, 128}},
		"text": {{1024, 128, 128}, {1024, 128, 64}, {1024, 128, 64}, {1024, 128, 128}, {1024, 128, 384}, {1024, 128, 384}, {1024, 384, 128}, {1024, 128, 256}},
	} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", name, threads), func(b *testing.B) {
				benchThreads(b, threads)
				var ops float64
				var steps []func()
				for _, l := range layers {
					x, w, y, bias := RowMajor(filled(l.rows*l.in), l.rows, l.in), RowMajor(filled(l.in*l.out), l.in, l.out), RowMajor(filled(l.rows*l.out), l.rows, l.out), filled(l.out)
					Scale(x.Data, x.Data, 4)
					GeluErf(x.Data, x.Data)
					dy, dx, dw := RowMajor(filled(l.rows*l.out), l.rows, l.out), RowMajor(filled(l.rows*l.in), l.rows, l.in), RowMajor(filled(l.in*l.out), l.in, l.out)
					steps = append(steps, func() { Gemm(y, x, w, false, Epilogue[float32]{Bias: bias}) })
					steps = append(steps, func() { Gemm(dx, dy, w.T(), false, Epilogue[float32]{}) })
					steps = append(steps, func() { Gemm(dw, x.T(), dy, false, Epilogue[float32]{}) })
					ops += 6 * float64(l.rows) * float64(l.in) * float64(l.out)
				}
				flops(ops, threads).Run(b, func() {
					for _, f := range steps {
						f()
					}
				})
			})
		}
	}
}

// BenchmarkGemv cycles through enough matrices that each comes from memory.
func BenchmarkGemv(b *testing.B) {
	const total = 256 << 20
	for _, m := range []int{1, 2, 4} {
		for _, s := range [][2]int{{768, 768}, {768, 3072}, {3072, 768}} {
			for _, layout := range []string{"nn", "nt"} {
				for _, threads := range []int{1, 2} {
					b.Run(fmt.Sprintf("m=%d/k=%d/n=%d/%s/cold/threads=%d", m, s[0], s[1], layout, threads), func(b *testing.B) {
						benchThreads(b, threads)
						k, n := s[0], s[1]
						data := filled(total / 4)
						A, C := RowMajor(filled(m*k), m, k), RowMajor(filled(m*n), m, n)
						at := 0
						for b.Loop() {
							B := RowMajor(data[at:at+k*n], k, n)
							if layout[1] == 't' {
								B = RowMajor(B.Data, n, k).T()
							}
							Gemm(C, A, B, false, Epilogue[float32]{})
							if at += k * n; at+k*n > len(data) {
								at = 0
							}
						}
						b.ReportMetric(4*float64(k)*float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
					})
				}
			}
		}
	}
}

// BenchmarkTile times the small product where attention uses it.
func BenchmarkTile(b *testing.B) {
	for _, s := range [][3]int{{96, 64, 64}, {96, 64, 256}, {96, 256, 64}, {16, 80, 80}, {7, 59, 59}, {1, 64, 64}} {
		b.Run(fmt.Sprintf("m=%d/k=%d/n=%d", s[0], s[1], s[2]), func(b *testing.B) {
			m, k, n := s[0], s[1], s[2]
			A, B, C := filled(m*k), filled(k*n), filled(m*n)
			flops(2*float64(m)*float64(k)*float64(n), 1).Run(b, func() { Tile(m, n, k, A, k, 1, B, n, C, n, TileSet, nil) })
		})
	}
}
