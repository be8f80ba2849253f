package stheno

import (
	G "gorgonia.org/gorgonia"

	"stheno/ops"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// attention keeps queries, keys and values in one vector from their product on, where that can be one node.
func (t *fused) attention(layer int, x *G.Node, q, k, v affine, sinks *G.Node) *G.Node {
	cfg := t.m.cfg
	ac := flashattn.Config{Causal: true, Softcap: cfg.Softcap, Sinks: sinks}
	if cfg.Window > 0 {
		ac.Window = flashattn.Sliding(cfg.Window)
	}
	if t.p.caches == nil {
		ac.Precision = t.m.attention
	}
	if !together(q, k, v) {
		return t.attentionApart(layer, t.linear(x, q), t.linear(x, k), t.linear(x, v), ac)
	}
	size := ops.QKV{Batch: t.p.batch, Seq: t.p.seq, Heads: cfg.Heads, KVHeads: cfg.KVHeads, HeadDim: cfg.HeadDim}
	qkv := t.projectAll(x, q, k, v)
	if cfg.Positions == Rotary {
		all := qkv
		qkv = t.do(func() (*G.Node, error) { return ops.RoPEQKV(all, t.pos, size, cfg.RoPE) })
	}
	return t.do(func() (*G.Node, error) {
		if t.p.caches != nil {
			return kvcompress.AttendQKV(qkv, t.pos, size, t.p.caches[layer], ac)
		}
		return flashattn.AttendQKV(qkv, size, ac)
	})
}

func (t *fused) attentionApart(layer int, q, k, v *G.Node, ac flashattn.Config) *G.Node {
	cfg := t.m.cfg
	q, k = t.rotate(t.split(q, cfg.Heads)), t.rotate(t.split(k, cfg.KVHeads))
	v = t.split(v, cfg.KVHeads)
	o := t.do(func() (*G.Node, error) {
		if t.p.caches != nil {
			return kvcompress.Attend(q, k, v, t.pos, t.p.caches[layer], ac)
		}
		return flashattn.Attend(q, k, v, ac)
	})
	return t.do(func() (*G.Node, error) { return ops.Reshape(o, t.p.batch, t.p.seq, cfg.Heads*cfg.HeadDim) })
}

// split is (batch, seq, heads·headDim) → (batch, seq, heads, headDim).
func (t *fused) split(x *G.Node, heads int) *G.Node {
	return t.do(func() (*G.Node, error) { return ops.Reshape(x, t.p.batch, t.p.seq, heads, t.m.cfg.HeadDim) })
}

func (t *fused) rotate(x *G.Node) *G.Node {
	if t.m.cfg.Positions != Rotary {
		return x
	}
	return t.do(func() (*G.Node, error) { return ops.RoPE(x, t.pos, t.m.cfg.RoPE) })
}
