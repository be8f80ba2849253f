package stheno

import (
	"context"
	"fmt"
	"slices"
	"time"

	"stheno/ops/kvcompress"
)

// GenerateConfig configures Generate. The zero value takes the likeliest token each time, until the model's MaxSeq.
type GenerateConfig struct {
	MaxTokens   int     // at most this many new tokens; 0: as many as MaxSeq has room for
	Temperature float64 // divides logits; 0: the likeliest token
	TopK        int     // only the K likeliest tokens; 0: all
	TopP        float64 // only the fewest likeliest tokens that make up P; 0: all
	Seed        uint64  // the same seed draws the same tokens
	Stop        []int   // ids that end the text; they are not part of the result
	Nodes       Nodes
	KV          kvcompress.Config  // how keys and values are kept; zero: in float32. See SessionConfig
	Caches      []kvcompress.Cache // in place of what KV describes; see SessionConfig

	// OnToken is called with each new token. An error ends the text and is returned.
	OnToken func(token int) error
}

// GenerateStats says how a text came about. Building graphs counts as prefill.
type GenerateStats struct {
	PromptTokens, NewTokens int
	PrefillTokensPerSecond  float64
	TokensPerSecond         float64 // of the decoding steps; 0 if there were none
	CacheBytes              int64
	Elapsed                 time.Duration
}

// Generate continues prompt and returns the new tokens. When the context ends, OnToken fails or a step fails, it returns
// the tokens so far and the error.
func (m *Model) Generate(ctx context.Context, prompt []int, cfg GenerateConfig) ([]int, GenerateStats, error) {
	stats := GenerateStats{PromptTokens: len(prompt)}
	if len(prompt) == 0 {
		return nil, stats, fmt.Errorf("stheno: Generate: got an empty prompt, want at least one token")
	}
	room := m.cfg.MaxSeq - len(prompt)
	if room < 1 {
		return nil, stats, fmt.Errorf("stheno: Generate: got a prompt of %d tokens, want less than MaxSeq = %d", len(prompt), m.cfg.MaxSeq)
	}
	limit := cfg.MaxTokens
	if limit == 0 {
		limit = room
	}
	if limit < 0 || limit > room {
		return nil, stats, fmt.Errorf("stheno: GenerateConfig.MaxTokens: got %d after a prompt of %d, want 0 to %d, the rest of MaxSeq", limit, len(prompt), room)
	}
	draws, err := newSampler(cfg)
	if err != nil {
		return nil, stats, err
	}
	s, err := m.NewSession(SessionConfig{Capacity: len(prompt) + limit, Nodes: cfg.Nodes, KV: cfg.KV, Caches: cfg.Caches})
	if err != nil {
		return nil, stats, err
	}
	defer s.Close()

	start := time.Now()
	logits, err := s.Feed(prompt)
	if err != nil {
		return nil, stats, err
	}
	prefilled := time.Now()
	stats.PrefillTokensPerSecond = rate(len(prompt), prefilled.Sub(start))
	var out []int
	steps := 0
	finish := func(err error) ([]int, GenerateStats, error) {
		stats.NewTokens, stats.CacheBytes, stats.Elapsed = len(out), s.CacheBytes(), time.Since(start)
		stats.TokensPerSecond = rate(steps, time.Since(prefilled))
		return out, stats, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return finish(fmt.Errorf("stheno: Generate: stopped after %d tokens: %w", len(out), err))
		}
		id, err := draws.draw(logits)
		if err != nil {
			return finish(err)
		}
		if slices.Contains(cfg.Stop, id) {
			return finish(nil)
		}
		out = append(out, id)
		if cfg.OnToken != nil {
			if err := cfg.OnToken(id); err != nil {
				return finish(fmt.Errorf("stheno: Generate: OnToken: %w", err))
			}
		}
		if len(out) == limit {
			return finish(nil)
		}
		if logits, err = s.Feed([]int{id}); err != nil {
			return finish(err)
		}
		steps++
	}
}

func rate(n int, d time.Duration) float64 {
	if n == 0 || d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}
