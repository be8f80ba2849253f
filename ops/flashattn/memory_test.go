package flashattn

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/parallel"
)

// What Memory says is what the workers and the heap are seen to hold, up to the eighth that scratch rounds up by and some
// kilobytes of headers.
func TestMemoryIsWhatIsAllocated(t *testing.T) {
	for _, s := range []Shape{
		{Batch: 1, SeqQ: 1024, SeqKV: 1024, Heads: 4, KVHeads: 4, HeadDim: 64, ValueDim: 64},
		{Batch: 1, SeqQ: 1024, SeqKV: 1024, Heads: 4, KVHeads: 4, HeadDim: 64, ValueDim: 64, Backward: true},
		{Batch: 2, SeqQ: 300, SeqKV: 300, Heads: 6, KVHeads: 2, HeadDim: 128, ValueDim: 128, Backward: true},
		{Batch: 1, SeqQ: 1025, SeqKV: 1025, Heads: 1, KVHeads: 1, HeadDim: 32, ValueDim: 32, Backward: true},
	} {
		for _, cfg := range []Config{{}, {Causal: true, Dropout: 0.1}, {BlockQ: 60, BlockKV: 100}, {Precision: BFloat16}, {Precision: Int8}} {
			t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
				old, err := parallel.SetThreads(1)
				require.NoError(t, err)
				defer parallel.SetThreads(old)
				s.Threads = 1
				_, want := Memory(s, cfg)
				got := measure(t, s, cfg)
				require.LessOrEqual(t, got, want*9/8+32<<10)
				require.GreaterOrEqual(t, got, want)
			})
		}
	}
}

// measure runs an op once and returns the scratch that is held after it, and the heap memory that it took besides what is its
// result.
func measure(t *testing.T, s Shape, cfg Config) int64 {
	g := G.NewGraph()
	node := func(name string, seq, heads, d int) *G.Node {
		v, _ := op.New[float32](tensor.Shape{s.Batch, seq, heads, d})
		return G.NewTensor(g, tensor.Float32, 4, G.WithShape(v.Shape()...), G.WithName(name), G.WithValue(v))
	}
	q, k, v := node("q", s.SeqQ, s.Heads, s.HeadDim), node("k", s.SeqKV, s.KVHeads, s.HeadDim), node("v", s.SeqKV, s.KVHeads, s.ValueDim)
	n, err := Attend(q, k, v, cfg)
	require.NoError(t, err)
	o := n.Op().(*attendOp)
	in := []G.Value{q.Value(), k.Value(), v.Value(), nil}
	dIn := []*tensor.Dense{op.NewLike(in[0]), op.NewLike(in[1]), op.NewLike(in[2]), nil}

	parallel.ReleaseScratch()
	held := parallel.ScratchBytes()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	in[3], _ = op.New[float32](tensor.Shape{2, s.Batch, s.Heads, s.SeqQ})
	out, err := o.Do(in...)
	require.NoError(t, err)
	if s.Backward {
		require.NoError(t, o.Backward(in, out, out, dIn))
	}
	runtime.ReadMemStats(&after)
	scratch := parallel.ScratchBytes() - held
	heap := int64(after.TotalAlloc-before.TotalAlloc) - int64(out.MemSize())
	require.GreaterOrEqual(t, heap, scratch, "scratch is on the heap")
	return heap
}

func TestMemoryOfLongSequences(t *testing.T) {
	s := Shape{Batch: 1, SeqQ: 4096, SeqKV: 4096, Heads: 12, KVHeads: 12, HeadDim: 64, ValueDim: 64, Backward: true, Threads: 2}
	standard, tiled := Memory(s, Config{Causal: true})
	require.EqualValues(t, 768<<20, standard)
	require.LessOrEqual(t, tiled, int64(2*4<<20), "4 MiB a thread")
	s.Float64 = true
	standard, _ = Memory(s, Config{})
	require.EqualValues(t, 2*768<<20, standard)
}

func TestMemoryOfWhatAttendRefuses(t *testing.T) {
	good := Shape{Batch: 1, SeqQ: 2, SeqKV: 2, Heads: 2, KVHeads: 1, HeadDim: 4, ValueDim: 4}
	for _, change := range []func(*Shape, *Config){
		func(s *Shape, _ *Config) { s.SeqQ = 0 },
		func(s *Shape, _ *Config) { s.KVHeads = 3 },
		func(s *Shape, _ *Config) { s.HeadDim = maxDim + 1 },
		func(s *Shape, _ *Config) { s.Threads = -1 },
		func(_ *Shape, c *Config) { c.Dropout = 1 },
	} {
		s, c := good, Config{}
		change(&s, &c)
		standard, tiled := Memory(s, c)
		require.Zero(t, standard)
		require.Zero(t, tiled)
	}
	standard, tiled := Memory(good, Config{})
	require.NotZero(t, standard)
	require.NotZero(t, tiled)
}

// A warm run allocates a number of times that does not depend on the size.
func TestAllocationsDoNotGrow(t *testing.T) {
	old, err := parallel.SetThreads(1)
	require.NoError(t, err)
	defer parallel.SetThreads(old)
	for precision := range precisions {
		allocationsDoNotGrow(t, Config{Causal: true, Precision: precision})
	}
}

func allocationsDoNotGrow(t *testing.T, cfg Config) {
	allocs := func(seq int) float64 {
		o, in := opOf(t, cfg, 1, seq, 2, 16)
		return testing.AllocsPerRun(3, func() {
			_, err := o.run(in)
			require.NoError(t, err)
		})
	}
	small, large := allocs(8), allocs(900)
	require.LessOrEqual(t, large, small+4)
	most := 100.0
	if cfg.Precision != Float32 { // rounding is tasks of its own
		most = 150
	}
	require.LessOrEqual(t, small, most)
}
