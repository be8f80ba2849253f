package grounding

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/ops"
)

// Ground scores every token against every patch, as the package comment defines S, in the form that cfg asks for:
//
//	Similarity  S[t,p]
//	Attention   softmax_p(S[t,·])
//	Relevance   1/(1 + e^−(S[t,p] + Bias))
//
// tokens is (batch, tokens, dimT), patches (batch, patches, dimP), both float32 or both float64; both may lack the batch
// dimension. w is (dimT, dimP), or nil where dimT = dimP and no projection is wanted. The result is
// (batch, tokens, patches), or (tokens, patches), and differentiable with respect to tokens, patches and w.
//
// A vector of zeros has no direction: its scores are 0, and its gradient is 0. In Attention a token all of whose patches
// are padding gets zeros.
func Ground(tokens, patches, w *G.Node, cfg Config) (*G.Node, error) {
	const fn = "grounding.Ground"
	a, err := cfg.attrs(fn)
	if err != nil {
		return nil, err
	}
	q, err := project(fn, tokens, patches, w, cfg)
	if err != nil {
		return nil, err
	}
	p, err := checkPair(fn, op.Arg{Name: "tokens·w", Node: q}, op.Arg{Name: "patches", Node: patches})
	if err != nil {
		return nil, err
	}
	masks, err := p.masks(fn, cfg)
	if err != nil {
		return nil, err
	}
	in := append(G.Nodes{q, patches}, nodesOf(masks)...)
	shape := tensor.Shape(p.shape(p.tokens, p.patches))
	return op.Apply(&groundOp{Base: op.NewBase(fn, a, shape, q.Dtype(), in...), attrs: a, pair: p, dtype: q.Dtype()}, in...)
}

// project checks the arguments of Ground and Pool and returns tokens·w.
func project(fn string, tokens, patches, w *G.Node, cfg Config) (*G.Node, error) {
	floats := []op.Arg{{Name: "tokens", Node: tokens}, {Name: "patches", Node: patches}}
	if w != nil {
		floats = append(floats, op.Arg{Name: "w", Node: w})
	}
	all := floats
	if cfg.TokenMask != nil {
		all = append(all, op.Arg{Name: "TokenMask", Node: cfg.TokenMask})
	}
	if cfg.PatchMask != nil {
		all = append(all, op.Arg{Name: "PatchMask", Node: cfg.PatchMask})
	}
	if err := op.CheckArgs(fn, all...); err != nil {
		return nil, err
	}
	if err := op.CheckFloat(fn, floats...); err != nil {
		return nil, err
	}
	for _, a := range floats[:2] {
		if err := op.CheckRank(fn, a, 2, 3); err != nil {
			return nil, err
		}
		if err := checkFull(fn, a); err != nil {
			return nil, err
		}
	}
	if w == nil {
		return tokens, nil
	}
	if err := op.CheckRank(fn, floats[2], 2); err != nil {
		return nil, err
	}
	ts, ps := tokens.Shape(), patches.Shape()
	if err := op.CheckShape(fn, floats[2], ts[len(ts)-1], ps[len(ps)-1]); err != nil {
		return nil, err
	}
	return ops.Linear(tokens, w, nil, ops.LinearConfig{})
}
