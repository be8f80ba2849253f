package stheno

import (
	"fmt"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/internal/procmem"
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

// BenchmarkBlock is forward and backward of one block of GPT-2's shape over 1,024 tokens, with a small vocabulary so that little
// else counts. peak-MiB is the memory that the process needs beyond what it had before.
func BenchmarkBlock(b *testing.B) {
	cfg := GPT2Small()
	cfg.Layers, cfg.Vocab = 1, 256
	const seq = 1024
	for _, nodes := range []Nodes{Plain, Fused} {
		for _, threads := range threadCounts {
			b.Run(fmt.Sprintf("nodes=%s/seq=%d/threads=%d", nodes, seq, threads), func(b *testing.B) {
				old, err := parallel.SetThreads(threads)
				require.NoError(b, err)
				defer parallel.SetThreads(old)
				parallel.ReleaseScratch()
				for range 3 { // two free what the graph before has handed back
					debug.FreeOSMemory()
				}
				procmem.ResetPeak()
				before := procmem.Peak()
				m, err := NewModel(cfg, 1)
				require.NoError(b, err)
				g, err := m.TrainingGraph(1, seq, nodes)
				require.NoError(b, err)
				defer g.Close()
				tokens, targets := optest.Ints(1, seq, cfg.Vocab), optest.Ints(2, seq, cfg.Vocab)
				for b.Loop() {
					_, err := g.Run(tokens, targets)
					require.NoError(b, err)
				}
				report(b, seq, 3*flops(m.Config(), seq, 0, seq))
				b.ReportMetric(float64(procmem.Peak()-before)/(1<<20), "peak-MiB")
			})
		}
	}
}

// benchCase is what an inference is measured with. Plain nodes have float32 alone.
type benchCase struct {
	weights, kv Precision
	depth       int // tokens that the session holds before
}

// benchCases: every precision of weights from an empty session, and some far into a text.
var benchCases = []benchCase{
	{F32, F32, 0}, {F16, F32, 0}, {BF16, F32, 0}, {INT8, F32, 0}, {INT8Dynamic, F32, 0}, {INT4, F32, 0}, {INT4Dynamic, F32, 0},
	{INT8Dynamic, F32, 1024}, {INT8Dynamic, F16, 1024}, {INT8Dynamic, INT8, 1024}, {INT8Dynamic, INT4, 1024},
	{F32, F32, 4096}, {INT8Dynamic, F32, 4096}, {INT8Dynamic, F16, 4096}, {INT8Dynamic, INT8, 4096}, {INT8Dynamic, INT4, 4096},
	{INT4Dynamic, INT4, 4096},
}

// benchInference runs run for all cases, the output projection quantized like the rest. Far into a text the model is one of
// the same shape with as many positions.
func benchInference(b *testing.B, run func(b *testing.B, bm benchModel, m *Model, sc SessionConfig, depth int)) {
	for _, bm := range benchModels {
		for _, nodes := range []Nodes{Plain, Fused} {
			for _, c := range benchCases {
				if nodes == Plain && c != (benchCase{}) || c.depth > 0 && bm.name != "gpt2-124m" {
					continue
				}
				var m *Model
				for _, threads := range threadCounts {
					b.Run(fmt.Sprintf("model=%s/nodes=%s/weights=%s/kv=%s/depth=%d/threads=%d", bm.name, nodes, c.weights, c.kv, c.depth, threads), func(b *testing.B) {
						if m == nil {
							cfg := bm.cfg
							cfg.MaxSeq = max(cfg.MaxSeq, c.depth+bm.prefill)
							var err error
							m, err = NewModel(cfg, 1)
							require.NoError(b, err)
							if c.weights != F32 {
								m, err = m.Quantize(QuantizeConfig{Weights: c.weights, Output: true})
								require.NoError(b, err)
							}
						}
						old, err := parallel.SetThreads(threads)
						require.NoError(b, err)
						defer parallel.SetThreads(old)
						kv, err := KVConfig(c.kv, 128)
						require.NoError(b, err)
						run(b, bm, m, SessionConfig{Nodes: nodes, KV: kv}, c.depth)
					})
				}
			}
		}
	}
}

// benchSession is a session that holds depth tokens.
func benchSession(b *testing.B, m *Model, sc SessionConfig, depth, more int) *Session {
	sc.Capacity = depth + more
	s, err := m.NewSession(sc)
	require.NoError(b, err)
	ids := optest.Ints(3, depth, m.cfg.Vocab)
	for at := 0; at < depth; at += 512 {
		_, err := s.Feed(ids[at:min(at+512, depth)])
		require.NoError(b, err)
	}
	return s
}

// BenchmarkPrefill takes a prompt into a session that holds depth tokens, its graph built anew each time.
func BenchmarkPrefill(b *testing.B) {
	benchInference(b, func(b *testing.B, bm benchModel, m *Model, sc SessionConfig, depth int) {
		prompt := optest.Ints(1, bm.prefill, bm.cfg.Vocab)
		s := benchSession(b, m, sc, depth, bm.prefill)
		defer s.Close()
		feed := func() {
			require.NoError(b, s.Truncate(depth))
			_, err := s.Feed(prompt)
			require.NoError(b, err)
		}
		feed()
		for b.Loop() {
			feed()
		}
		report(b, bm.prefill, flops(bm.cfg, bm.prefill, depth, 1))
	})
}

// BenchmarkGenerate decodes 32 tokens one after the other, from a session that holds depth tokens.
func BenchmarkGenerate(b *testing.B) {
	const count = 32
	benchInference(b, func(b *testing.B, bm benchModel, m *Model, sc SessionConfig, depth int) {
		ids := optest.Ints(1, count, bm.cfg.Vocab)
		s := benchSession(b, m, sc, depth, count)
		defer s.Close()
		decode := func() {
			require.NoError(b, s.Truncate(depth))
			for _, id := range ids {
				_, err := s.Feed([]int{id})
				require.NoError(b, err)
			}
		}
		decode()
		for b.Loop() {
			decode()
		}
		report(b, count, flops(bm.cfg, count, depth, count))
	})
}
