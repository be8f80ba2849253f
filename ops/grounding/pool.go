package grounding

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
)

// Pool is the streamed form of Ground with Attention: the map of each token over the patches is made tile by tile, used,
// and forgotten,
//
//	out[t,·] = Σ_p softmax_p(S[t,·])·values[p,·]
//
// so that memory is O(tokens + patches) forward and backward. What the values are decides what is learnt of the maps: patch
// centres (Grid.Centres) give the place a token speaks of, region masks give the share of attention inside each
// region, patch vectors give what the token sees.
//
// tokens is (batch, tokens, dimT), patches (batch, patches, dimP), w (dimT, dimP) or nil, values (batch, patches, n), all
// of one float dtype; all but w may lack the batch dimension. The result is (batch, tokens, n), differentiable with respect
// to tokens, patches, w and values. cfg.Form must be left at its zero value. Padding and vectors of zeros are as in
// Ground.
//
// The scores are computed twice in the backward pass. For a moderate temperature τ the softmax of cosines is nearly
// even: all weights lie within a factor of e^(2/τ).
func Pool(tokens, patches, w, values *G.Node, cfg Config) (*G.Node, error) {
	const fn = "grounding.Pool"
	a, err := cfg.attrs(fn)
	if err != nil {
		return nil, err
	}
	if cfg.Form != Similarity {
		return nil, fmt.Errorf("%s: Form: got %v, want the zero value: the softmax is always taken", fn, cfg.Form)
	}
	q, err := project(fn, tokens, patches, w, cfg)
	if err != nil {
		return nil, err
	}
	p, err := checkPair(fn, op.Arg{Name: "tokens·w", Node: q}, op.Arg{Name: "patches", Node: patches})
	if err != nil {
		return nil, err
	}
	av := op.Arg{Name: "values", Node: values}
	at := op.Arg{Name: "tokens", Node: tokens}
	if err := op.CheckArgs(fn, at, av); err != nil {
		return nil, err
	}
	if err := op.CheckFloat(fn, at, av); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, av, p.rank); err != nil {
		return nil, err
	}
	if err := checkFull(fn, av); err != nil {
		return nil, err
	}
	n := values.Shape()[p.rank-1]
	if err := op.CheckShape(fn, av, p.shape(p.patches, n)...); err != nil {
		return nil, err
	}
	masks, err := p.masks(fn, cfg)
	if err != nil {
		return nil, err
	}
	lse, err := op.SideFor(&poolOp{}, tokens, tensor.Shape{p.batch, p.tokens}, q.Dtype())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	in := append(append(G.Nodes{q, patches, values}, nodesOf(masks)...), lse)
	shape := tensor.Shape(p.shape(p.tokens, n))
	return op.Apply(&poolOp{Base: op.NewBase(fn, a, shape, q.Dtype(), in...), attrs: a, pair: p, width: n, dtype: q.Dtype()}, in...)
}
