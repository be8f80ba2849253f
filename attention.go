package stheno

import (
	"fmt"

	"stheno/ops/flashattn"
)

// WithAttention returns a model that shares m's weights and whose attention multiplies in the precision p: in graphs of Fused nodes
// without caches, those of training, of PrefillGraph and of evaluation. A cache has a precision of its own (SessionConfig.KV), which
// sessions and generation use instead. What p rounds, and what that adds to errors, is with flashattn.Precision.
func (m *Model) WithAttention(p flashattn.Precision) (*Model, error) {
	if p > flashattn.Int8 {
		return nil, fmt.Errorf("stheno: WithAttention: got %v, want float32, bf16 or int8", p)
	}
	out := *m
	out.attention = p
	return &out, nil
}

// Attention is the precision in which attention without caches multiplies.
func (m *Model) Attention() flashattn.Precision { return m.attention }
