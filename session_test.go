package stheno

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops/kvcompress"
)

// TestPrefillAndDecodeEqualTheWholeSequence feeds a sequence in pieces and holds the logits after every piece to those of
// the reference, for every split into a prefill and single tokens.
func TestPrefillAndDecodeEqualTheWholeSequence(t *testing.T) {
	const seq = 9
	for _, nodes := range bothNodes {
		for name, cfg := range flavoursFor(nodes) {
			t.Run(nodes.String()+"/"+name, func(t *testing.T) {
				m := noisy(t, cfg, tensor.Float32)
				tokens := optest.Ints(5, seq, cfg.Vocab)
				want := newReference(t, m).logits(tokens)
				for _, prefill := range []int{1, 2, 5, seq} {
					s, err := m.NewSession(SessionConfig{Capacity: seq, Nodes: nodes})
					require.NoError(t, err)
					for at := 0; at < seq; {
						n := 1
						if at == 0 {
							n = prefill
						}
						got, err := s.Feed(tokens[at : at+n])
						require.NoError(t, err)
						at += n
						require.Equal(t, at, s.Len())
						optest.Close(t, "logits", got, want[(at-1)*cfg.Vocab:at*cfg.Vocab], 1e-4)
					}
					require.NoError(t, s.Close())
				}
			})
		}
	}
}

func TestSessionPiecesAndTruncate(t *testing.T) {
	cfg := flavours()["grouped"]
	m := noisy(t, cfg, tensor.Float32)
	tokens := optest.Ints(5, 10, cfg.Vocab)
	want := newReference(t, m).logits(tokens)
	at := func(i int) []float64 { return want[i*cfg.Vocab : (i+1)*cfg.Vocab] }
	for _, nodes := range bothNodes {
		s, err := m.NewSession(SessionConfig{Nodes: nodes})
		require.NoError(t, err)
		defer s.Close()
		_, err = s.Feed(tokens[:4])
		require.NoError(t, err)
		got, err := s.Feed(tokens[4:7])
		require.NoError(t, err)
		optest.Close(t, "second piece", got, at(6), 1e-4)
		_, err = s.Feed([]int{0, 1, 2})
		require.NoError(t, err)
		require.NoError(t, s.Truncate(7))
		got, err = s.Feed(tokens[7:8])
		require.NoError(t, err)
		optest.Close(t, "after truncation", got, at(7), 1e-4)
		require.Positive(t, s.CacheBytes())
		require.ErrorContains(t, s.Truncate(9), "got 9 tokens, want 0 to 8")
	}
}

// TestSessionCaches feeds a text token by token with every kind of cache: those with room for all in Recent are exact, the others
// are close in the order of their bits, and smaller.
func TestSessionCaches(t *testing.T) {
	cfg := Llama(13, 2, 64, 2, 1, 256)
	m, err := NewModel(cfg, 1)
	require.NoError(t, err)
	tokens := optest.Ints(5, 200, cfg.Vocab)
	run := func(kv kvcompress.Config) (logits []float64, bytes int64) {
		s, err := m.NewSession(SessionConfig{Capacity: 200, KV: kv})
		require.NoError(t, err)
		defer s.Close()
		for at, n := 0, 150; at < len(tokens); at, n = at+n, 1 {
			got, err := s.Feed(tokens[at : at+n])
			require.NoError(t, err)
			for _, x := range got {
				logits = append(logits, float64(x))
			}
		}
		return logits, s.CacheBytes()
	}
	want, wide := run(kvcompress.Config{})
	all, _ := run(kvcompress.Config{Budget: 200})
	require.Equal(t, want, all, "a budget for all tokens")
	some, kept := run(kvcompress.Config{Budget: 64, SinkTokens: 4})
	require.NotEqual(t, want, some)
	require.Less(t, kept, wide)
	last := int64(0)
	lastError := 0.0
	for _, p := range []Precision{INT4, INT8, F16} {
		kv, err := KVConfig(p, 200)
		require.NoError(t, err)
		exact, _ := run(kv)
		require.InDeltaSlice(t, want, exact, 1e-5, "%v with all tokens recent", p)
		kv, err = KVConfig(p, 16)
		require.NoError(t, err)
		got, bytes := run(kv)
		var e float64
		for i := range got {
			e = max(e, math.Abs(got[i]-want[i]))
		}
		require.Less(t, e, 0.1*spread(want), "%v", p)
		require.Greater(t, e, 0.0, "%v is stored as it is", p)
		require.Less(t, bytes, wide)
		require.Greater(t, bytes, last)
		if lastError > 0 {
			require.Less(t, e, lastError, "%v", p)
		}
		last, lastError = bytes, e

		greedy, stats, err := m.Generate(context.Background(), tokens[:100], GenerateConfig{MaxTokens: 50, KV: kv})
		require.NoError(t, err)
		require.Len(t, greedy, 50)
		require.Positive(t, stats.CacheBytes)
	}
	for _, c := range []struct {
		cfg  SessionConfig
		want string
	}{
		{SessionConfig{Nodes: Plain, KV: kvcompress.Config{Ratio: 4}}, "got Ratio 4 with Plain nodes"},
		{SessionConfig{KV: kvcompress.Config{Ratio: 3}}, "got 3, want 1, 2, 4 or 8"},
		{SessionConfig{KV: kvcompress.Config{Ratio: 4}, Caches: make([]kvcompress.Cache, 2)}, "got both Caches and KV"},
	} {
		_, err := m.NewSession(c.cfg)
		require.ErrorContains(t, err, c.want)
	}
	two, err := m.NewCaches(2, 16, kvcompress.Config{})
	require.NoError(t, err)
	_, err = m.NewSession(SessionConfig{Caches: two})
	require.ErrorContains(t, err, "Caches[0]: got a cache for a batch of 2, want 1")
	_, err = m.NewSession(SessionConfig{Nodes: Plain, KV: kvcompress.Config{Recent: 16}})
	require.ErrorContains(t, err, "with Plain nodes")
	s, err := m.NewSession(SessionConfig{Nodes: Plain, KV: kvcompress.Config{Ratio: 1}})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = KVConfig(BF16, 0)
	require.ErrorContains(t, err, "got precision bf16")
	_, err = KVConfig(INT8, -1)
	require.ErrorContains(t, err, "got -1 recent tokens")
}

func TestSessionErrorsLeaveItAsItWas(t *testing.T) {
	m := noisy(t, flavours()["llama"], tensor.Float32)
	for _, nodes := range bothNodes {
		s, err := m.NewSession(SessionConfig{Capacity: 4, Nodes: nodes})
		require.NoError(t, err)
		defer s.Close()
		before, err := s.Feed([]int{1, 2})
		require.NoError(t, err)
		_, err = s.Feed(nil)
		require.ErrorContains(t, err, "got no tokens")
		_, err = s.Feed([]int{1, 2, 3})
		require.ErrorContains(t, err, "got 3 tokens on top of 2, want at most 4 in all")
		_, err = s.Feed([]int{11})
		require.ErrorContains(t, err, "tokens[0]: got id 11, want 0 to 10")
		require.Equal(t, 2, s.Len())
		require.NoError(t, s.Truncate(0))
		again, err := s.Feed([]int{1, 2})
		require.NoError(t, err)
		require.Equal(t, before, again)
		require.NoError(t, s.Close())
		_, err = s.Feed([]int{1})
		require.ErrorContains(t, err, "Feed: got a session that is closed, want an open one")
		require.NoError(t, s.Close())
	}
	_, err := m.NewSession(SessionConfig{Capacity: 17})
	require.ErrorContains(t, err, "got 17, want 1 to MaxSeq = 16")
	_, err = m.NewSession(SessionConfig{Nodes: 7})
	require.Error(t, err)
}

func TestGenerate(t *testing.T) {
	m := noisy(t, flavours()["llama"], tensor.Float32)
	ctx := context.Background()
	prompt := []int{1, 2, 3}
	greedy, stats, err := m.Generate(ctx, prompt, GenerateConfig{MaxTokens: 6})
	require.NoError(t, err)
	require.Len(t, greedy, 6)
	require.Equal(t, 3, stats.PromptTokens)
	require.Equal(t, 6, stats.NewTokens)
	require.Positive(t, stats.PrefillTokensPerSecond)
	require.Positive(t, stats.TokensPerSecond)
	require.Equal(t, int64(2*2*4*9*4), stats.CacheBytes, "2 layers, keys and values, heads of 4, 9 tokens")

	t.Run("greedy follows the reference", func(t *testing.T) {
		text := append([]int(nil), prompt...)
		ref := newReference(t, m)
		for _, id := range greedy {
			logits := ref.logits(text)
			last := logits[len(logits)-11:]
			best := 0
			for i, x := range last {
				if x > last[best] {
					best = i
				}
			}
			require.Equal(t, best, id)
			text = append(text, best)
		}
	})
	t.Run("plain nodes", func(t *testing.T) {
		got, _, err := m.Generate(ctx, prompt, GenerateConfig{MaxTokens: 6, Nodes: Plain})
		require.NoError(t, err)
		require.Equal(t, greedy, got)
	})
	t.Run("seed", func(t *testing.T) {
		cfg := GenerateConfig{MaxTokens: 10, Temperature: 2, TopK: 9, TopP: 0.95, Seed: 1}
		a, _, err := m.Generate(ctx, prompt, cfg)
		require.NoError(t, err)
		b, _, err := m.Generate(ctx, prompt, cfg)
		require.NoError(t, err)
		require.Equal(t, a, b)
		cfg.Seed = 2
		c, _, err := m.Generate(ctx, prompt, cfg)
		require.NoError(t, err)
		require.NotEqual(t, a, c)
	})
	t.Run("stop and callback", func(t *testing.T) {
		var seen []int
		got, _, err := m.Generate(ctx, prompt, GenerateConfig{MaxTokens: 6, OnToken: func(id int) error {
			seen = append(seen, id)
			return nil
		}})
		require.NoError(t, err)
		require.Equal(t, got, seen)
		got, _, err = m.Generate(ctx, prompt, GenerateConfig{Stop: greedy[:1]})
		require.NoError(t, err)
		require.Empty(t, got)
		full := errors.New("full")
		got, _, err = m.Generate(ctx, prompt, GenerateConfig{OnToken: func(int) error { return full }})
		require.ErrorIs(t, err, full)
		require.Equal(t, greedy[:1], got)
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		got, stats, err := m.Generate(ctx, prompt, GenerateConfig{OnToken: func(int) error { cancel(); return nil }})
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, greedy[:1], got)
		require.Equal(t, 1, stats.NewTokens)
	})
	t.Run("fills MaxSeq", func(t *testing.T) {
		got, _, err := m.Generate(ctx, prompt, GenerateConfig{})
		require.NoError(t, err)
		require.Len(t, got, 13)
	})
	for want, cfg := range map[string]GenerateConfig{
		"MaxTokens: got 14 after a prompt of 3, want 0 to 13": {MaxTokens: 14},
		"Temperature: got -1":           {Temperature: -1},
		"TopK: got -1":                  {TopK: -1},
		"TopP: got 2":                   {TopP: 2},
		"Nodes: got Nodes(9)":           {Nodes: 9},
		"got 1 caches with Plain nodes": {Nodes: Plain, Caches: make([]kvcompress.Cache, 1)},
		"Caches: got 0, want":           {Caches: []kvcompress.Cache{}},
	} {
		_, _, err := m.Generate(ctx, prompt, cfg)
		require.ErrorContains(t, err, want)
	}
	_, _, err = m.Generate(ctx, nil, GenerateConfig{})
	require.ErrorContains(t, err, "got an empty prompt")
	_, _, err = m.Generate(ctx, make([]int, 16), GenerateConfig{})
	require.ErrorContains(t, err, "got a prompt of 16 tokens, want less than MaxSeq = 16")
}

func TestSampler(t *testing.T) {
	logits := []float32{0, 2, 1, 2, -3}
	count := func(cfg GenerateConfig) []int {
		s, err := newSampler(cfg)
		require.NoError(t, err)
		out := make([]int, len(logits))
		for range 4000 {
			id, err := s.draw(logits)
			require.NoError(t, err)
			out[id]++
		}
		return out
	}
	require.Equal(t, []int{0, 4000, 0, 0, 0}, count(GenerateConfig{}), "the first of the likeliest")
	got := count(GenerateConfig{Temperature: 1, TopK: 2})
	require.Zero(t, got[0]+got[2]+got[4])
	require.InDelta(t, 2000, got[1], 200)
	// Probabilities: 0.39, 0.39, 0.14, 0.05, 0.003.
	got = count(GenerateConfig{Temperature: 1, TopP: 0.85})
	require.Zero(t, got[0]+got[4])
	require.InDelta(t, 4000*0.1554, got[2], 150)
	got = count(GenerateConfig{Temperature: 1})
	require.InDelta(t, 4000*0.1437, got[2], 150)
	require.Positive(t, got[0])

	s, err := newSampler(GenerateConfig{Temperature: 1})
	require.NoError(t, err)
	_, err = s.draw([]float32{1, float32(math.NaN())})
	require.ErrorContains(t, err, "logits[1]: got NaN")
}

// TestTruncateOfAllLayersOrNone: a layer whose cache has dropped what another still has refuses for all.
func TestTruncateOfAllLayersOrNone(t *testing.T) {
	cfg := Llama(13, 2, 32, 4, 2, 100)
	m := noisy(t, cfg, tensor.Float32)
	for name, kv := range map[string]kvcompress.Config{
		"budget": {Budget: 40, SinkTokens: 1},
		"window": {Ratio: 4, GroupSize: 16, Recent: 16, Window: 16, SinkTokens: 1},
	} {
		t.Run(name, func(t *testing.T) {
			caches, err := m.NewCaches(1, 100, kvcompress.Config{})
			require.NoError(t, err)
			caches[1], err = kvcompress.New(caches[1].Shape(), kv)
			require.NoError(t, err)
			s, err := m.NewSession(SessionConfig{Caches: caches})
			require.NoError(t, err)
			defer s.Close()
			_, err = s.Feed(optest.Ints(5, 80, cfg.Vocab))
			require.NoError(t, err)
			require.ErrorContains(t, s.Truncate(30), "got 30 tokens, want at most the 1 sinks or at least ")
			for _, c := range caches {
				require.Equal(t, 80, c.Len())
			}
			_, err = s.Feed([]int{1})
			require.NoError(t, err)
			require.NoError(t, s.Truncate(78))
			require.Equal(t, 78, caches[1].Len())
		})
	}
}
