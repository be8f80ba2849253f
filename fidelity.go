package stheno

import (
	"context"
	"fmt"
	"math"

	"stheno/ops/kvcompress"
)

// Fidelity says how closely a model follows another, or itself in full precision, over a text.
type Fidelity struct {
	Tokens int     `json:"tokens"` // predicted, and averaged over
	Bits   float64 `json:"bits"`   // mean −log₂ of the probability of the token that came; of bytes: bits per byte
	KL     float64 `json:"kl"`     // mean Kullback–Leibler divergence from the reference's distribution to this one's, in nats
	Top1   float64 `json:"top1"`   // share of the positions at which both find the same token likeliest
}

// Loss is by how much the perplexity is higher than a reference's on the same text, as a share of it: 0.01 is one percent.
func (f Fidelity) Loss(reference Fidelity) float64 { return math.Exp2(f.Bits-reference.Bits) - 1 }

// yardstick is a text and what a reference makes of it.
type yardstick struct {
	tokens []int
	seq    int
	vocab  int
	logits []float32 // of every token but the last
}

// bytes is the memory of the reference's logits.
func (y *yardstick) bytes() int64 { return 4 * int64(len(y.logits)) }

// newYardstick runs m over tokens in stretches of seq. It keeps len(tokens)·vocab logits.
func (m *Model) newYardstick(ctx context.Context, fn string, tokens []int, seq int) (*yardstick, error) {
	if seq == 0 {
		seq = min(m.cfg.MaxSeq, max(1, len(tokens)-1))
	}
	switch {
	case len(tokens) < 2:
		return nil, fmt.Errorf("%s: Text: got %d tokens, want at least 2", fn, len(tokens))
	case seq < 1 || seq > m.cfg.MaxSeq:
		return nil, fmt.Errorf("%s: Seq: got %d, want 1 to MaxSeq = %d", fn, seq, m.cfg.MaxSeq)
	}
	if err := m.checkTokens("tokens", tokens, len(tokens)); err != nil {
		return nil, err
	}
	y := &yardstick{tokens: tokens, seq: seq, vocab: m.cfg.Vocab, logits: make([]float32, (len(tokens)-1)*m.cfg.Vocab)}
	err := m.walk(ctx, tokens, seq, kvcompress.Config{}, func(i int, logits []float32) error {
		copy(y.logits[i*y.vocab:], logits)
		return nil
	})
	return y, err
}

// measure holds a model with some kind of cache to the yardstick.
func (y *yardstick) measure(ctx context.Context, m *Model, kv kvcompress.Config) (Fidelity, error) {
	var nats, kl float64
	same, n := 0, len(y.tokens)-1
	err := m.walk(ctx, y.tokens, y.seq, kv, func(i int, q []float32) error {
		p := y.logits[i*y.vocab : (i+1)*y.vocab]
		nats += crossEntropy(q, y.tokens[i+1])
		d, agree := divergence(p, q)
		kl += d
		if agree {
			same++
		}
		return nil
	})
	if err != nil {
		return Fidelity{}, err
	}
	f := Fidelity{Tokens: n, Bits: nats / float64(n) / math.Ln2, KL: kl / float64(n), Top1: float64(same) / float64(n)}
	if math.IsNaN(f.Bits) || math.IsNaN(f.KL) {
		return f, fmt.Errorf("stheno: got logits that are no numbers")
	}
	return f, nil
}

// divergence is KL(softmax(p) ‖ softmax(q)) in nats, and whether both have their largest logit, the first of equals, at the same
// place.
func divergence(p, q []float32) (kl float64, agree bool) {
	var best [2]int
	var sum [2]float64
	for k, x := range [][]float32{p, q} {
		for i, v := range x {
			if v > x[best[k]] {
				best[k] = i
			}
		}
		for _, v := range x {
			sum[k] += math.Exp(float64(v) - float64(x[best[k]]))
		}
	}
	zp := float64(p[best[0]]) + math.Log(sum[0])
	zq := float64(q[best[1]]) + math.Log(sum[1])
	for i := range p {
		lp, lq := float64(p[i])-zp, float64(q[i])-zq
		if w := math.Exp(lp); w > 0 {
			kl += w * (lp - lq)
		}
	}
	return kl, best[0] == best[1]
}

// Sizes of the batches that walk runs.
const (
	walkBatch  = 16
	walkLogits = 1 << 22
)

// walk runs the model over tokens in stretches of seq, each from an empty past, the last one shorter, and calls visit with the
// logits that follow each token but the last; the order is not that of the text. With the zero kv a stretch is one run without
// caches; otherwise tokens are fed one by one, as in generation, so that each sees what the cache has made of those before.
func (m *Model) walk(ctx context.Context, tokens []int, seq int, kv kvcompress.Config, visit func(i int, logits []float32) error) error {
	n := len(tokens) - 1
	whole := n / seq
	batch := walkBatch
	if kv == (kvcompress.Config{}) {
		batch = max(1, min(batch, walkLogits/(seq*m.cfg.Vocab)))
	}
	for at := 0; at < whole; at += batch {
		b := min(batch, whole-at)
		if err := m.walkBatch(ctx, tokens, at*seq, b, seq, kv, visit); err != nil {
			return err
		}
	}
	if rest := n - whole*seq; rest > 0 {
		return m.walkBatch(ctx, tokens, whole*seq, 1, rest, kv, visit)
	}
	return nil
}

// walkBatch walks batch stretches of seq tokens that begin at from.
func (m *Model) walkBatch(ctx context.Context, tokens []int, from, batch, seq int, kv kvcompress.Config, visit func(i int, logits []float32) error) error {
	var g *InferenceGraph
	step := seq
	if kv == (kvcompress.Config{}) {
		var err error
		if g, err = m.PrefillGraph(batch, seq, Fused); err != nil {
			return err
		}
	} else {
		caches, err := m.NewCaches(batch, seq, kv)
		if err != nil {
			return err
		}
		step = 1
		if g, err = m.DecodeGraph(1, caches); err != nil {
			return err
		}
	}
	defer g.Close()
	ids := make([]int, 0, batch*step)
	for pos := 0; pos < seq; pos += step {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("stheno: stopped at token %d of %d: %w", from+pos, len(tokens), err)
		}
		ids = ids[:0]
		for b := range batch {
			ids = append(ids, tokens[from+b*seq+pos:][:step]...)
		}
		out, err := g.Run(ids, pos)
		if err != nil {
			return err
		}
		logits, ok := out.Data().([]float32)
		if !ok {
			return fmt.Errorf("stheno: got logits of %v, want float32", out.Dtype())
		}
		for r := range batch * step {
			i := from + r/step*seq + pos + r%step
			if err := visit(i, logits[r*m.cfg.Vocab:(r+1)*m.cfg.Vocab]); err != nil {
				return err
			}
		}
	}
	return nil
}
