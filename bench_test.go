package stheno

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/internal/parallel"
)

// benchModel is a model under benchmark with the sizes of its runs.
type benchModel struct {
	name       string
	cfg        Config
	batch, seq int // of a training step
	prefill    int // tokens of a prefill; also what Generate starts from
}

// benchModels are the model that examples/gotext trains by default, and GPT-2's shape with random weights.
var benchModels = []benchModel{
	{"gotext", Llama(256, 4, 128, 4, 2, 128), 4, 128, 128},
	{"gpt2-124m", GPT2Small(), 1, 512, 512},
}

var threadCounts = []int{1, 2}

func benchmarkModels(b *testing.B, suffix string, run func(b *testing.B, bm benchModel, m *Model, nodes Nodes)) {
	for _, bm := range benchModels {
		var m *Model
		for _, nodes := range []Nodes{Plain, Fused} {
			for _, threads := range threadCounts {
				b.Run(fmt.Sprintf("model=%s/nodes=%s%s/threads=%d", bm.name, nodes, suffix, threads), func(b *testing.B) {
					if m == nil {
						var err error
						m, err = NewModel(bm.cfg, 1)
						require.NoError(b, err)
					}
					old, err := parallel.SetThreads(threads)
					require.NoError(b, err)
					defer parallel.SetThreads(old)
					run(b, bm, m, nodes)
				})
			}
		}
	}
}

// flops counts the useful floating-point operations of a forward pass over one sequence, seq tokens after past: products
// with weights, and the half of the attention scores that the causal mask leaves. logits is how many positions get them.
func flops(c Config, seq, past, logits int) float64 {
	inner := float64(c.Heads * c.HeadDim)
	kv := float64(c.KVHeads * c.HeadDim)
	up := 1.0
	if c.Activation == SwiGLU {
		up = 2
	}
	perToken := 2 * float64(c.Dim) * (2*inner + 2*kv + (up+1)*float64(c.Hidden))
	keys := float64(seq)*float64(past) + float64(seq)*float64(seq+1)/2
	attention := 4 * keys * inner
	return float64(c.Layers)*(float64(seq)*perToken+attention) + 2*float64(logits)*float64(c.Dim)*float64(c.Vocab)
}

func report(b *testing.B, tokens int, work float64) {
	seconds := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(float64(tokens)/seconds, "tok/s")
	if work > 0 {
		gflops := work / seconds / 1e9
		b.ReportMetric(gflops, "GFLOP/s")
		b.ReportMetric(100*gflops/kernel.MeasurePeak(parallel.Threads()), "%peak")
	}
}

// BenchmarkTrainStep is forward and backward, without the optimizer. Backward is counted as twice forward.
func BenchmarkTrainStep(b *testing.B) {
	benchmarkModels(b, "", func(b *testing.B, bm benchModel, m *Model, nodes Nodes) {
		g, err := m.TrainingGraph(bm.batch, bm.seq, nodes)
		require.NoError(b, err)
		defer g.Close()
		n := bm.batch * bm.seq
		tokens, targets := optest.Ints(1, n, bm.cfg.Vocab), optest.Ints(2, n, bm.cfg.Vocab)
		step := func() {
			_, err := g.Run(tokens, targets)
			require.NoError(b, err)
		}
		step()
		for b.Loop() {
			step()
		}
		report(b, n, 3*float64(bm.batch)*flops(bm.cfg, bm.seq, 0, bm.seq))
	})
}

// BenchmarkPrefill takes a prompt into an empty session, its graph built anew each time.
func BenchmarkPrefill(b *testing.B) {
	benchmarkModels(b, "/weights=f32/kv=f32/depth=0", func(b *testing.B, bm benchModel, m *Model, nodes Nodes) {
		prompt := optest.Ints(1, bm.prefill, bm.cfg.Vocab)
		s, err := m.NewSession(SessionConfig{Capacity: bm.prefill, Nodes: nodes})
		require.NoError(b, err)
		defer s.Close()
		for b.Loop() {
			require.NoError(b, s.Truncate(0))
			_, err := s.Feed(prompt)
			require.NoError(b, err)
		}
		report(b, bm.prefill, flops(bm.cfg, bm.prefill, 0, 1))
	})
}

// BenchmarkGenerate decodes 32 tokens one after the other, from an empty session.
func BenchmarkGenerate(b *testing.B) {
	const count = 32
	benchmarkModels(b, "/weights=f32/kv=f32/depth=0", func(b *testing.B, bm benchModel, m *Model, nodes Nodes) {
		ids := optest.Ints(1, count, bm.cfg.Vocab)
		s, err := m.NewSession(SessionConfig{Capacity: count, Nodes: nodes})
		require.NoError(b, err)
		defer s.Close()
		_, err = s.Feed(ids[:1])
		require.NoError(b, err)
		for b.Loop() {
			require.NoError(b, s.Truncate(0))
			for _, id := range ids {
				_, err := s.Feed([]int{id})
				require.NoError(b, err)
			}
		}
		report(b, count, 0)
	})
}
