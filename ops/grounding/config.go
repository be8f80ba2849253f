package grounding

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"

	"stheno/internal/op"
)

// Form says what Ground makes of the scores S.
type Form int

const (
	// Similarity is S itself: the cosine over the temperature.
	Similarity Form = iota
	// Attention is the softmax of S over the patches: for each token a distribution.
	Attention
	// Relevance is the sigmoid of S + Bias: for each pair a probability of its own, which a threshold of 0.5 suits.
	Relevance
)

// String returns "similarity", "attention" or "relevance".
func (f Form) String() string {
	switch f {
	case Similarity:
		return "similarity"
	case Attention:
		return "attention"
	case Relevance:
		return "relevance"
	}
	return fmt.Sprintf("Form(%d)", int(f))
}

// Config configures Ground and Pool.
type Config struct {
	// Temperature is τ, which divides the cosine. 0 means 1; 0.07 is common in contrastive training.
	Temperature float64
	// Form is what Ground returns. Pool, which always takes the softmax, wants it left at the zero value.
	Form Form
	// Bias is added to the scores before the sigmoid of Relevance; other forms want 0.
	Bias float64
	// TokenMask (batch, tokens) and PatchMask (batch, patches) are nodes, of integers or floats, that are 0 where there
	// is only padding. Padding yields 0 in every form and neither receives nor causes a gradient. nil means no padding.
	// Where tokens or patches have no batch dimension, so has their mask.
	TokenMask, PatchMask *G.Node
}

// attrs is what is hashed of a Config, and the sizes that the op works with.
type attrs struct {
	Temperature                float64
	Form                       Form
	Bias                       float64
	HasTokenMask, HasPatchMask bool
}

func (c Config) attrs(fn string) (attrs, error) {
	if c.Temperature == 0 {
		c.Temperature = 1
	}
	a := attrs{c.Temperature, c.Form, c.Bias, c.TokenMask != nil, c.PatchMask != nil}
	switch {
	case !(c.Temperature > 0) || math.IsInf(c.Temperature, 1):
		return a, fmt.Errorf("%s: Temperature: got %v, want a positive number, or 0 for 1", fn, c.Temperature)
	case c.Form < Similarity || c.Form > Relevance:
		return a, fmt.Errorf("%s: Form: got %v, want similarity, attention or relevance", fn, c.Form)
	case c.Bias != 0 && c.Form != Relevance:
		return a, fmt.Errorf("%s: Bias: got %v with the form %v, want 0", fn, c.Bias, c.Form)
	case math.IsNaN(c.Bias) || math.IsInf(c.Bias, 0):
		return a, fmt.Errorf("%s: Bias: got %v, want a finite number", fn, c.Bias)
	}
	return a, nil
}

// pair is the geometry of a tokens node and a patches node.
type pair struct {
	batch, tokens, patches, dim int
	rank                        int
}

// checkPair checks q (…, tokens, dim) and k (…, patches, dim), both of rank 2 or both of rank 3 with one batch size.
func checkPair(fn string, q, k op.Arg) (pair, error) {
	var p pair
	for _, a := range []op.Arg{q, k} {
		if err := op.CheckRank(fn, a, 2, 3); err != nil {
			return p, err
		}
		if err := checkFull(fn, a); err != nil {
			return p, err
		}
	}
	p.rank = q.Node.Shape().Dims()
	if err := op.CheckRank(fn, k, p.rank); err != nil {
		return p, err
	}
	qs, ks := q.Node.Shape(), k.Node.Shape()
	p.batch, p.tokens, p.patches, p.dim = 1, qs[p.rank-2], ks[p.rank-2], qs[p.rank-1]
	if p.rank == 3 {
		p.batch = qs[0]
	}
	want := append([]int{p.batch}, p.patches, p.dim)
	return p, op.CheckShape(fn, k, want[3-p.rank:]...)
}

// shape is (batch, a, b), or (a, b) where there is no batch dimension.
func (p pair) shape(a ...int) []int {
	if p.rank == 2 {
		return a
	}
	return append([]int{p.batch}, a...)
}

// masks checks the masks of a Config and returns them as arguments.
func (p pair) masks(fn string, c Config) ([]op.Arg, error) {
	var out []op.Arg
	for _, m := range []struct {
		op.Arg
		n int
	}{{op.Arg{Name: "TokenMask", Node: c.TokenMask}, p.tokens}, {op.Arg{Name: "PatchMask", Node: c.PatchMask}, p.patches}} {
		if m.Node == nil {
			continue
		}
		if err := checkMaskType(fn, m.Arg); err != nil {
			return nil, err
		}
		if err := op.CheckShape(fn, m.Arg, p.shape(m.n)...); err != nil {
			return nil, err
		}
		out = append(out, m.Arg)
	}
	return out, nil
}

func checkMaskType(fn string, a op.Arg) error {
	if op.CheckFloat(fn, a) != nil && op.CheckInteger(fn, a) != nil {
		return fmt.Errorf("%s: %s: got dtype %v, want floats or integers", fn, a.Name, a.Node.Dtype())
	}
	return nil
}

// checkFull reports a dimension of 0.
func checkFull(fn string, a op.Arg) error {
	for _, n := range a.Node.Shape() {
		if n < 1 {
			return fmt.Errorf("%s: %s: got shape %v, want every dimension at least 1", fn, a.Name, a.Node.Shape())
		}
	}
	return nil
}

func nodesOf(args []op.Arg) G.Nodes {
	nodes := make(G.Nodes, len(args))
	for i, a := range args {
		nodes[i] = a.Node
	}
	return nodes
}
