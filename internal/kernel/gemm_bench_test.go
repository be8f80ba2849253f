package kernel

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/parallel"
)

// peaks are measured once for each number of threads and instruction set.
var peaks struct {
	sync.Mutex
	gflops map[string]float64
}

func peak(threads int) float64 {
	peaks.Lock()
	defer peaks.Unlock()
	if peaks.gflops == nil {
		peaks.gflops = map[string]float64{}
	}
	key := fmt.Sprint(Active(), threads)
	if peaks.gflops[key] == 0 {
		peaks.gflops[key] = MeasurePeak(threads)
	}
	return peaks.gflops[key]
}

// reportRate reports the useful operations of one iteration as GFLOP/s and as a share of the peak.
func reportRate(b *testing.B, flops float64, threads int) {
	rate := flops * float64(b.N) / b.Elapsed().Seconds() / 1e9
	b.ReportMetric(rate, "GFLOP/s")
	b.ReportMetric(100*rate/peak(threads), "%peak")
}

func benchThreads(b *testing.B, threads int) {
	old, err := parallel.SetThreads(threads)
	require.NoError(b, err)
	b.Cleanup(func() { _, _ = parallel.SetThreads(old) })
	peak(threads)
}

// filled returns memory that has been written: what was not is one page of zeros in many places, and times as such.
func filled(n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(i%17)*0.125 - 1
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
					for b.Loop() {
						Gemm(C, A, B, false, Epilogue[float32]{})
					}
					reportRate(b, 2*float64(m)*float64(k)*float64(n), threads)
				})
			}
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
			peak(1)
			for b.Loop() {
				Tile(m, n, k, A, k, 1, B, n, C, n, TileSet, nil)
			}
			reportRate(b, 2*float64(m)*float64(k)*float64(n), 1)
		})
	}
}
