package flashattn_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/parallel"
	"stheno/ops/flashattn"
)

func TestTune(t *testing.T) {
	shape := flashattn.Shape{Batch: 2, SeqQ: 70, SeqKV: 90, Heads: 4, KVHeads: 2, HeadDim: 24, ValueDim: 16, Backward: true}
	for _, cfg := range []flashattn.Config{{}, {Causal: true, Softcap: 3, ALiBi: true}, {Dropout: 0.1}} {
		got, err := flashattn.Tune(shape, cfg)
		require.NoError(t, err)
		require.Contains(t, []int{0, 192, 384, 768, 1152}, got.BlockQ)
		require.Contains(t, []int{0, 128, 256, 512}, got.BlockKV)
		for range 3 {
			again, err := flashattn.Tune(shape, cfg)
			require.NoError(t, err)
			require.Equal(t, got, again, "the same question gets the same answer")
		}
		got.BlockQ, got.BlockKV = 0, 0
		require.Equal(t, cfg, got, "nothing else changes")
	}
	kept, err := flashattn.Tune(shape, flashattn.Config{BlockQ: 60, BlockKV: 40})
	require.NoError(t, err)
	require.Equal(t, flashattn.Config{BlockQ: 60, BlockKV: 40}, kept, "what is given is kept")
	shape.Float64, shape.Backward = true, false
	_, err = flashattn.Tune(shape, flashattn.Config{})
	require.NoError(t, err)
}

func TestTuneErrors(t *testing.T) {
	shape := flashattn.Shape{Batch: 1, SeqQ: 8, SeqKV: 8, Heads: 4, KVHeads: 2, HeadDim: 8, ValueDim: 8}
	for want, change := range map[string]func(s *flashattn.Shape, c *flashattn.Config){
		"flashattn.Tune: Shape.SeqQ: got 0, want 1 to":                      func(s *flashattn.Shape, _ *flashattn.Config) { s.SeqQ = 0 },
		"flashattn.Tune: Shape.HeadDim: got 257, want 1 to 256":             func(s *flashattn.Shape, _ *flashattn.Config) { s.HeadDim = 257 },
		"flashattn.Tune: Shape.KVHeads: got 3 for 4 heads, want a divisor":  func(s *flashattn.Shape, _ *flashattn.Config) { s.KVHeads = 3 },
		"flashattn.Tune: Dropout: got 1, want at least 0 and below 1":       func(_ *flashattn.Shape, c *flashattn.Config) { c.Dropout = 1 },
		fmt.Sprintf("Threads: got %d, want 0 or the", parallel.Threads()+1): func(s *flashattn.Shape, _ *flashattn.Config) { s.Threads = parallel.Threads() + 1 },
	} {
		s, c := shape, flashattn.Config{}
		change(&s, &c)
		_, err := flashattn.Tune(s, c)
		require.ErrorContains(t, err, want)
	}
}

func ExampleTune() {
	shape := flashattn.Shape{Batch: 1, SeqQ: 256, SeqKV: 256, Heads: 2, KVHeads: 2, HeadDim: 64, ValueDim: 64}
	cfg, err := flashattn.Tune(shape, flashattn.Config{Causal: true})
	fmt.Println(cfg.Causal, err)
	// Output: true <nil>
}
