package grounding

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
)

// InfoNCEConfig configures InfoNCE.
type InfoNCEConfig struct {
	// Temperature divides the cosines. 0 means 0.07.
	Temperature float64
}

// InfoNCE is the symmetric contrastive loss of a batch of texts and the pictures that belong to them, a scalar:
//
//	S[i,j] = cos(texts[i], images[j])/τ
//	loss = −1/2n · Σ_i (ln softmax_j(S[i,·])[i] + ln softmax_j(S[·,i])[i])
//
// texts and images are (n, dim), one vector each, row i of the one belonging to row i of the other; every other row is a
// counterexample. Differentiable with respect to both.
//
// Source: Radford et al. 2021, figure 3.
func InfoNCE(texts, images *G.Node, cfg InfoNCEConfig) (*G.Node, error) {
	const fn = "grounding.InfoNCE"
	if cfg.Temperature == 0 {
		cfg.Temperature = 0.07
	}
	a, b := op.Arg{Name: "texts", Node: texts}, op.Arg{Name: "images", Node: images}
	if err := op.CheckArgs(fn, a, b); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, a, 2); err != nil {
		return nil, err
	}
	if err := op.CheckShape(fn, b, texts.Shape()...); err != nil {
		return nil, err
	}
	s, err := Ground(texts, images, nil, Config{Temperature: cfg.Temperature})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	return Contrastive(s)
}

// Contrastive is InfoNCE of scores that are already there: (n, n), the matching pairs on the diagonal. It serves scores of
// one's own making, such as a learnt temperature or the best patch of every token.
func Contrastive(scores *G.Node) (*G.Node, error) {
	const fn = "grounding.Contrastive"
	a := op.Arg{Name: "scores", Node: scores}
	if err := checkFloats(fn, a, 2); err != nil {
		return nil, err
	}
	n := scores.Shape()[0]
	if err := op.CheckShape(fn, a, n, n); err != nil {
		return nil, err
	}
	return op.Apply(newLoss(fn, nil, &contrastive{n}, 1, scores), scores)
}

// AlignmentConfig configures AlignmentLoss.
type AlignmentConfig struct {
	// PositiveWeight multiplies the loss of what lies inside, which is rare in most pictures. 0 means 1.
	PositiveWeight float64
	// Weights is a node with the shape of scores that each pair's loss is multiplied by: 0 for padding. The mean is over
	// the sum of weights. nil means ones.
	Weights *G.Node
}

// AlignmentLoss is the sigmoid cross-entropy of every pair of token and patch, a scalar: with z a score and y its target,
//
//	loss = Σ w·(PositiveWeight·y·softplus(−z) + (1−y)·softplus(z)) / Σ w
//
// scores and targets have one shape and float dtype; targets lie in [0, 1], such as the share of a patch that the
// token's box covers (OverlapTargets). Scores are logits: Ground's Similarity at a small temperature, plus a bias, not its
// Relevance. Differentiable with respect to scores. If all weights are 0, so is the loss.
//
// Source: Li et al. 2022, equation 2, with soft targets.
func AlignmentLoss(scores, targets *G.Node, cfg AlignmentConfig) (*G.Node, error) {
	const fn = "grounding.AlignmentLoss"
	if cfg.PositiveWeight == 0 {
		cfg.PositiveWeight = 1
	}
	if !(cfg.PositiveWeight > 0) || math.IsInf(cfg.PositiveWeight, 1) {
		return nil, fmt.Errorf("%s: PositiveWeight: got %v, want a positive number, or 0 for 1", fn, cfg.PositiveWeight)
	}
	args := []op.Arg{{Name: "scores", Node: scores}, {Name: "targets", Node: targets}}
	if cfg.Weights != nil {
		args = append(args, op.Arg{Name: "Weights", Node: cfg.Weights})
	}
	if err := checkAlike(fn, args); err != nil {
		return nil, err
	}
	in := nodesOf(args)
	attrs := struct {
		PositiveWeight float64
		Weights        bool
	}{cfg.PositiveWeight, cfg.Weights != nil}
	return op.Apply(newLoss(fn, attrs, &alignment{cfg.PositiveWeight}, 1, in...), in...)
}

// MarginConfig configures MarginLoss.
type MarginConfig struct {
	// MaxMargin is by how much the largest value inside should exceed the largest outside, MeanMargin the same for the mean
	// values. 0 means 0.5 and 0.1; a negative margin asks for less than being larger.
	MaxMargin, MeanMargin float64
	// MaxWeight and MeanWeight weigh the two terms. Both 0 means 0.8 and 0.2.
	MaxWeight, MeanWeight float64
}

// MarginLoss teaches maps to be higher inside a token's region than outside it, a scalar: over the tokens that have
// an inside and an outside, the mean of
//
//	MaxWeight·[max_out − max_in + MaxMargin]₊ + MeanWeight·[mean_out − mean_in + MeanMargin]₊
//
// maps is (…, tokens, patches) of a float dtype, regions has its shape and dtype: 1 for patches inside, 0 for those
// outside, and negative for padding; what is at least 0.5 is inside. Differentiable with respect to maps. The margins suit maps between 0 and
// 1, such as Relevance; at a tie of largest values the gradient goes to the first.
//
// Source: Yang et al. 2023 (AMC), equations 3–5, with max and mean terms.
func MarginLoss(maps, regions *G.Node, cfg MarginConfig) (*G.Node, error) {
	const fn = "grounding.MarginLoss"
	for _, f := range []struct {
		x      *float64
		preset float64
	}{{&cfg.MaxMargin, 0.5}, {&cfg.MeanMargin, 0.1}} {
		if *f.x == 0 {
			*f.x = f.preset
		}
	}
	if cfg.MaxWeight == 0 && cfg.MeanWeight == 0 {
		cfg.MaxWeight, cfg.MeanWeight = 0.8, 0.2
	}
	for _, f := range []struct {
		name string
		x    float64
		ok   bool
		want string
	}{
		{"MaxMargin", cfg.MaxMargin, true, "a finite number"}, {"MeanMargin", cfg.MeanMargin, true, "a finite number"},
		{"MaxWeight", cfg.MaxWeight, cfg.MaxWeight >= 0, "a finite number of at least 0"},
		{"MeanWeight", cfg.MeanWeight, cfg.MeanWeight >= 0, "a finite number of at least 0"},
	} {
		if !f.ok || math.IsNaN(f.x) || math.IsInf(f.x, 0) {
			return nil, fmt.Errorf("%s: %s: got %v, want %s", fn, f.name, f.x, f.want)
		}
	}
	args := []op.Arg{{Name: "maps", Node: maps}, {Name: "regions", Node: regions}}
	if err := checkAlike(fn, args); err != nil {
		return nil, err
	}
	s := maps.Shape()
	return op.Apply(newLoss(fn, cfg, &margin{cfg, s[s.Dims()-1]}, 1, maps, regions), maps, regions)
}

func checkFloats(fn string, a op.Arg, ranks ...int) error {
	if err := op.CheckArgs(fn, a); err != nil {
		return err
	}
	if err := op.CheckFloat(fn, a); err != nil {
		return err
	}
	if err := op.CheckRank(fn, a, ranks...); err != nil {
		return err
	}
	return checkFull(fn, a)
}

// checkAlike checks that all have the first one's shape and dtype.
func checkAlike(fn string, args []op.Arg) error {
	if err := op.CheckArgs(fn, args...); err != nil {
		return err
	}
	if err := checkFloats(fn, args[0], 1, 2, 3, 4); err != nil {
		return err
	}
	if err := op.CheckFloat(fn, args...); err != nil {
		return err
	}
	for _, a := range args[1:] {
		if err := op.CheckShape(fn, a, args[0].Node.Shape()...); err != nil {
			return err
		}
	}
	return nil
}

// newLoss makes a scalar op of the inputs whose first diff ones have a gradient.
func newLoss(fn string, attrs any, of lossFunc, diff int, in ...*G.Node) *lossOp {
	return &lossOp{op.NewBase(fn, attrs, tensor.ScalarShape(), in[0].Dtype(), in...), of, diff, in[0].Dtype(), in[0].Shape().TotalSize()}
}
