package stheno

import (
	"context"
	"fmt"
	"math"

	"gorgonia.org/tensor"
)

// Logits returns the logits (batch, seq, vocab) of sequences of equal length.
func (m *Model) Logits(tokens [][]int, nodes Nodes) (*tensor.Dense, error) {
	if len(tokens) == 0 {
		return nil, fmt.Errorf("stheno: Logits: got no sequences, want at least one")
	}
	seq := len(tokens[0])
	var flat []int
	for i, s := range tokens {
		if len(s) != seq {
			return nil, fmt.Errorf("stheno: Logits: tokens[%d]: got %d tokens, want %d as in the first sequence", i, len(s), seq)
		}
		flat = append(flat, s...)
	}
	g, err := m.PrefillGraph(len(tokens), seq, nodes)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	out, err := g.Run(flat, 0)
	if err != nil {
		return nil, err
	}
	return dense(out.Data(), []int{len(tokens), seq, m.cfg.Vocab}), nil
}

// Evaluate returns the mean number of bits, −log₂ of the probability, that the model needs for a token it has not seen.
// tokens is cut into stretches of seq tokens, each predicting the one after it from what precedes it in the stretch; the
// last stretch may be shorter. For tokens that are bytes the result is bits per byte.
func (m *Model) Evaluate(ctx context.Context, tokens []int, seq int, nodes Nodes) (bitsPerToken float64, err error) {
	if len(tokens) < 2 {
		return 0, fmt.Errorf("stheno: Evaluate: got %d tokens, want at least 2", len(tokens))
	}
	if seq < 1 || seq > m.cfg.MaxSeq {
		return 0, fmt.Errorf("stheno: Evaluate: got stretches of %d tokens, want 1 to MaxSeq = %d", seq, m.cfg.MaxSeq)
	}
	var g *InferenceGraph
	defer func() {
		if g != nil {
			g.Close()
		}
	}()
	var nats float64
	for at := 0; at < len(tokens)-1; at += seq {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("stheno: Evaluate: stopped after %d of %d tokens: %w", at, len(tokens), err)
		}
		n := min(seq, len(tokens)-1-at)
		if g == nil || g.p.seq != n {
			if g != nil {
				g.Close()
			}
			if g, err = m.PrefillGraph(1, n, nodes); err != nil {
				return 0, err
			}
		}
		out, err := g.Run(tokens[at:at+n], 0)
		if err != nil {
			return 0, err
		}
		if err := m.checkTokens("targets", tokens[at+1:at+1+n], n); err != nil {
			return 0, err
		}
		for i, target := range tokens[at+1 : at+1+n] {
			nats += surprise(out, i, m.cfg.Vocab, target)
		}
	}
	return nats / float64(len(tokens)-1) / math.Ln2, nil
}

// surprise is −ln softmax(row)[target] of row i of the logits.
func surprise(logits *tensor.Dense, i, vocab, target int) float64 {
	if d, ok := logits.Data().([]float64); ok {
		return crossEntropy(d[i*vocab:(i+1)*vocab], target)
	}
	return crossEntropy(logits.Data().([]float32)[i*vocab:(i+1)*vocab], target)
}

func crossEntropy[T float32 | float64](row []T, target int) float64 {
	top := math.Inf(-1)
	for _, x := range row {
		top = max(top, float64(x))
	}
	var sum float64
	for _, x := range row {
		sum += math.Exp(float64(x) - top)
	}
	return top + math.Log(sum) - float64(row[target])
}
