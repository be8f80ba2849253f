package stheno

import (
	"errors"
	"fmt"

	G "gorgonia.org/gorgonia"

	"stheno/ops/kvcompress"
)

// SessionConfig configures a Session.
type SessionConfig struct {
	// Capacity is how many tokens the session can hold. 0 means the model's MaxSeq.
	Capacity int
	// Nodes chooses what its graphs are composed of.
	Nodes Nodes
	// KV is how keys and values are kept; zero: as they are, in float32. Others only with Fused nodes. KVConfig names the usual
	// choices.
	KV kvcompress.Config
	// Caches are used in place of what KV describes, one a layer, each for a batch of 1. Only with Fused nodes.
	Caches []kvcompress.Cache
}

// Session runs a model over one growing sequence, keeping the keys and values of what it has seen. Sessions of one model
// may run at the same time; a Session is for one goroutine.
type Session struct {
	m        *Model
	capacity int
	caches   []kvcompress.Cache // with Fused nodes
	past     *plainCache        // with Plain nodes
	decode   *InferenceGraph    // of one token, built when it is first needed
	lent     []cardMover        // caches that NewSession has moved to the card
	closed   bool
}

// cardMover is a cache that can lie on the card.
type cardMover interface {
	ToCard() error
	FromCard() error
}

// NewSession returns a session that has seen nothing. Where the weights lie on the card (Model.ToCard), so do the caches that it makes,
// until Close, as far as there are kernels for them (not with a Budget).
func (m *Model) NewSession(cfg SessionConfig) (*Session, error) {
	s := &Session{m: m, capacity: cfg.Capacity, caches: cfg.Caches}
	if s.capacity == 0 {
		s.capacity = m.cfg.MaxSeq
	}
	if s.capacity < 1 || s.capacity > m.cfg.MaxSeq {
		return nil, fmt.Errorf("stheno: SessionConfig.Capacity: got %d, want 1 to MaxSeq = %d", s.capacity, m.cfg.MaxSeq)
	}
	switch {
	case cfg.Nodes == Plain && cfg.Caches != nil:
		return nil, fmt.Errorf("stheno: SessionConfig.Caches: got %d caches with Plain nodes, want none", len(cfg.Caches))
	case cfg.Nodes == Plain && cfg.KV != (kvcompress.Config{}) && cfg.KV != (kvcompress.Config{Ratio: 1}):
		return nil, fmt.Errorf("stheno: SessionConfig.KV: got Ratio %d with Plain nodes, want a Ratio of 1 and nothing else", cfg.KV.Ratio)
	case cfg.Caches != nil && cfg.KV != (kvcompress.Config{}):
		return nil, fmt.Errorf("stheno: SessionConfig: got both Caches and KV, want one of them")
	case cfg.Nodes == Plain && m.Quantized():
		return nil, fmt.Errorf("stheno: SessionConfig.Nodes: got Plain nodes for a quantized model, want Fused")
	case cfg.Nodes == Plain:
		s.past = newPlainCache(m, s.capacity)
	case cfg.Nodes != Fused:
		return nil, fmt.Errorf("stheno: SessionConfig.Nodes: got %v, want Fused or Plain", cfg.Nodes)
	case cfg.Caches == nil:
		var err error
		if s.caches, err = m.NewCaches(1, s.capacity, cfg.KV); err != nil {
			return nil, err
		}
		if err := s.lendToCard(); err != nil {
			return nil, err
		}
	case len(cfg.Caches) != m.cfg.Layers:
		return nil, fmt.Errorf("stheno: SessionConfig.Caches: got %d, want %d, one a layer", len(cfg.Caches), m.cfg.Layers)
	default:
		for l, c := range cfg.Caches {
			if c == nil || c.Len() != 0 {
				return nil, fmt.Errorf("stheno: SessionConfig.Caches[%d]: got nil or a cache in use, want an empty one", l)
			}
			if got := c.Shape().Batch; got != 1 {
				return nil, fmt.Errorf("stheno: SessionConfig.Caches[%d]: got a cache for a batch of %d, want 1", l, got)
			}
		}
	}
	return s, nil
}

// NewCaches returns empty caches, one a layer, for batch sequences of up to capacity tokens. The zero kv keeps float32.
func (m *Model) NewCaches(batch, capacity int, kv kvcompress.Config) ([]kvcompress.Cache, error) {
	out := make([]kvcompress.Cache, m.cfg.Layers)
	for l := range out {
		c, err := kvcompress.New(m.cacheShape(batch, capacity), kv)
		if err != nil {
			return nil, err
		}
		out[l] = c
	}
	return out, nil
}

func (m *Model) cacheShape(batch, capacity int) kvcompress.Shape {
	return kvcompress.Shape{Batch: batch, KVHeads: m.cfg.KVHeads, HeadDim: m.cfg.HeadDim, Capacity: capacity}
}

// KVConfig is a cache that keeps the recent newest tokens as they are and stores those before as F16, INT8 or INT4, keys rotated
// with INT4; F32 keeps all in float32. A recent of 0 means 128.
func KVConfig(p Precision, recent int) (kvcompress.Config, error) {
	ratio, ok := map[Precision]int{F32: 1, F16: 2, INT8: 4, INT4: 8}[p]
	if !ok {
		return kvcompress.Config{}, fmt.Errorf("stheno: KVConfig: got precision %v, want f32, f16, int8 or int4", p)
	}
	if recent < 0 {
		return kvcompress.Config{}, fmt.Errorf("stheno: KVConfig: got %d recent tokens, want 0 (for 128) or a positive number", recent)
	}
	if p == F32 {
		return kvcompress.Config{}, nil
	}
	out := kvcompress.Config{Ratio: ratio, Recent: recent}
	if 0 < recent && recent < 64 { // a group is coded as a whole, so that as many tokens stay recent at the least
		out.GroupSize = max(16, recent/16*16)
	}
	return out, nil
}

// Len is the number of tokens the session holds.
func (s *Session) Len() int {
	if s.past != nil {
		return s.past.n
	}
	return s.caches[0].Len()
}

// CacheBytes is the memory held for keys and values.
func (s *Session) CacheBytes() int64 {
	if s.past != nil {
		return s.past.bytes()
	}
	var n int64
	for _, c := range s.caches {
		n += c.Bytes()
	}
	return n
}

// Feed appends tokens to the sequence and returns the logits of the token that follows, vocab numbers that belong to the
// caller. Many tokens at once are a prefill, whose graph is built for their number; one is a decoding step. After an error
// the session holds what it held before; tokens that a compressed cache has coded meanwhile stay coded. Where one with
// a Budget or a Window has dropped tokens meanwhile, that may be impossible: the error says so, and Truncate(0) begins anew.
func (s *Session) Feed(tokens []int) ([]float32, error) {
	if s.closed {
		return nil, fmt.Errorf("stheno: Feed: got a session that is closed, want an open one")
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("stheno: Feed: got no tokens, want at least one")
	}
	n := s.Len()
	if n+len(tokens) > s.capacity {
		return nil, fmt.Errorf("stheno: Feed: got %d tokens on top of %d, want at most %d in all", len(tokens), n, s.capacity)
	}
	if err := s.m.checkTokens("tokens", tokens, len(tokens)); err != nil {
		return nil, err
	}
	logits, err := s.feed(tokens)
	if err != nil {
		if undo := s.Truncate(n); undo != nil {
			return nil, fmt.Errorf("%w; and forgetting the tokens again: %w", err, undo)
		}
		return nil, err
	}
	return logits, nil
}

func (s *Session) feed(tokens []int) ([]float32, error) {
	if len(tokens) == 1 {
		return s.feedOne(tokens[0])
	}
	if s.past != nil && s.past.n > 0 { // Plain graphs of many tokens start from an empty cache
		for _, id := range tokens[:len(tokens)-1] {
			if _, err := s.feedOne(id); err != nil {
				return nil, err
			}
		}
		return s.feedOne(tokens[len(tokens)-1])
	}
	g, err := s.graph(len(tokens))
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return s.run(g, tokens)
}

func (s *Session) feedOne(token int) ([]float32, error) {
	if s.decode == nil {
		g, err := s.graph(1)
		if err != nil {
			return nil, err
		}
		s.decode = g
	}
	return s.run(s.decode, []int{token})
}

func (s *Session) graph(seq int) (*InferenceGraph, error) {
	switch {
	case s.past == nil:
		return s.m.DecodeGraph(seq, s.caches)
	case seq == 1:
		return s.m.inference(plan{batch: 1, seq: 1, past: s.past, last: true}, Plain)
	default:
		return s.m.inference(plan{batch: 1, seq: seq, last: true}, Plain)
	}
}

func (s *Session) run(g *InferenceGraph, tokens []int) ([]float32, error) {
	out, err := g.Run(tokens, s.Len())
	if err != nil {
		return nil, err
	}
	if s.past != nil {
		if err := s.past.add(g.t.(*plain).kv, len(tokens)); err != nil {
			return nil, err
		}
	}
	logits, ok := out.Data().([]float32)
	if !ok {
		return nil, fmt.Errorf("stheno: got logits of %v, want float32", out.Dtype())
	}
	return logits, nil
}

// Truncate forgets all but the first n tokens. Caches with a Budget or a Window cannot go back behind tokens that they have dropped;
// then nothing is forgotten.
func (s *Session) Truncate(n int) error {
	if n < 0 || n > s.Len() {
		return fmt.Errorf("stheno: Truncate: got %d tokens, want 0 to %d", n, s.Len())
	}
	if s.past != nil {
		s.past.truncate(n)
		return nil
	}
	for _, c := range s.caches { // all or none
		if may, ok := c.(interface{ CheckTruncate(n int) error }); ok && c.Len() >= n {
			if err := may.CheckTruncate(n); err != nil {
				return fmt.Errorf("stheno: %w", err)
			}
		}
	}
	for _, c := range s.caches {
		if c.Len() < n { // the run failed before this layer
			continue
		}
		if err := c.Truncate(n); err != nil {
			return err
		}
	}
	return nil
}

// lendToCard moves the session's caches to where the weights are.
func (s *Session) lendToCard() error {
	if !G.CUDA || !s.m.OnCard() {
		return nil
	}
	for _, c := range s.caches {
		c, ok := c.(cardMover)
		if !ok {
			continue
		}
		if err := c.ToCard(); err != nil {
			return fmt.Errorf("stheno: NewSession: %w", errors.Join(err, s.leaveCard()))
		}
		s.lent = append(s.lent, c)
	}
	return nil
}

func (s *Session) leaveCard() (err error) {
	for _, c := range s.lent {
		err = errors.Join(err, c.FromCard())
	}
	s.lent = nil
	return err
}

// Close frees the session's machine, and memory of the card. It takes no more tokens then.
func (s *Session) Close() error {
	s.closed = true
	var err error
	if s.decode != nil {
		err, s.decode = s.decode.Close(), nil
	}
	return errors.Join(err, s.leaveCard())
}
