package grounding

import (
	"fmt"
	"math"
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
)

// MapsConfig configures AttentionMaps.
type MapsConfig struct {
	// Tokens are the positions in q whose maps are wanted, in the order of the result; one may stand there twice. nil means
	// all of them, which makes the matrix.
	Tokens []int
	// Scale multiplies q·k, as it did in the attention that lse is from. 0 means 1/√headDim.
	Scale float64
}

// AttentionMaps recovers the maps of single tokens from what tiled attention leaves behind, its log-sum-exp:
//
//	maps[i,p] = 1/heads · Σ_h exp(Scale·q[t,h]·k[p,h] − lse[h,t])    t = Tokens[i]
//
// q is (batch, tokens, heads, headDim), k (batch, patches, kvHeads, headDim) with heads a multiple of kvHeads, lse
// (batch, heads, tokens) in nats, as flashattn.AttendLSE returns it for attention without mask, window, bias and softcap.
// The result is (batch, len(Tokens), patches). It is made patch tile by patch tile; besides the result, memory is
// O(len(Tokens) + patches). Differentiable with respect to q, k and lse, so a loss on the maps trains the attention itself.
func AttentionMaps(q, k, lse *G.Node, cfg MapsConfig) (*G.Node, error) {
	const fn = "grounding.AttentionMaps"
	args := []op.Arg{{Name: "q", Node: q}, {Name: "k", Node: k}, {Name: "lse", Node: lse}}
	if err := op.CheckArgs(fn, args...); err != nil {
		return nil, err
	}
	if err := op.CheckFloat(fn, args...); err != nil {
		return nil, err
	}
	for i, a := range args {
		if err := op.CheckRank(fn, a, 4-i/2); err != nil {
			return nil, err
		}
		if err := checkFull(fn, a); err != nil {
			return nil, err
		}
	}
	qs, ks := q.Shape(), k.Shape()
	if err := op.CheckShape(fn, args[1], qs[0], ks[1], ks[2], qs[3]); err != nil {
		return nil, err
	}
	if qs[2]%ks[2] != 0 {
		return nil, fmt.Errorf("%s: k: got %d heads, want a divisor of the %d heads of q", fn, ks[2], qs[2])
	}
	if err := op.CheckShape(fn, args[2], qs[0], qs[2], qs[1]); err != nil {
		return nil, err
	}
	if cfg.Tokens == nil {
		for t := range qs[1] {
			cfg.Tokens = append(cfg.Tokens, t)
		}
	}
	cfg.Tokens = slices.Clone(cfg.Tokens)
	if len(cfg.Tokens) == 0 {
		return nil, fmt.Errorf("%s: Tokens: got none, want at least one, or nil for all", fn)
	}
	for i, t := range cfg.Tokens {
		if t < 0 || t >= qs[1] {
			return nil, fmt.Errorf("%s: Tokens[%d]: got %d, want a position in [0, %d)", fn, i, t, qs[1])
		}
	}
	if cfg.Scale == 0 {
		cfg.Scale = 1 / math.Sqrt(float64(qs[3]))
	}
	if math.IsNaN(cfg.Scale) || math.IsInf(cfg.Scale, 0) {
		return nil, fmt.Errorf("%s: Scale: got %v, want a finite number, or 0 for 1/√headDim", fn, cfg.Scale)
	}
	in := nodesOf(args)
	shape := tensor.Shape{qs[0], len(cfg.Tokens), ks[1]}
	return op.Apply(&mapsOp{
		Base: op.NewBase(fn, cfg, shape, q.Dtype(), in...), cfg: cfg, dtype: q.Dtype(),
		batch: qs[0], seq: qs[1], heads: qs[2], dim: qs[3], patches: ks[1], kvHeads: ks[2],
	}, in...)
}
