package grounding

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
)

func given(name string, data []float64, shape ...int) optest.Input {
	return optest.Input{Name: name, Shape: shape, Data: data}
}

func both(t *testing.T, want float64, build func([]*G.Node) (*G.Node, error), in ...optest.Input) {
	t.Helper()
	c := optest.Graph{Inputs: in, Build: build}
	optest.Close(t, "float64", c.Run(t, tensor.Float64), []float64{want}, 1e-12)
	optest.Close(t, "float32", c.Run(t, tensor.Float32), []float64{want}, 1e-6*(1+math.Abs(want)))
}

func TestInfoNCEByHand(t *testing.T) {
	// Texts along the axes, pictures likewise: scores are the unit matrix over τ, each of the four lines costs
	// ln(1 + e^(−1/τ)).
	unit := []float64{3, 0, 0, 2}
	both(t, math.Log1p(math.Exp(-2)), func(n []*G.Node) (*G.Node, error) { return InfoNCE(n[0], n[1], InfoNCEConfig{Temperature: 0.5}) },
		given("a", unit, 2, 2), given("b", unit, 2, 2))
	// All alike: ln n.
	same := []float64{1, 1, 1, 1, 1, 1}
	both(t, math.Log(3), func(n []*G.Node) (*G.Node, error) { return InfoNCE(n[0], n[1], InfoNCEConfig{}) },
		given("a", same, 3, 2), given("b", same, 3, 2))
}

func TestContrastiveAgainstReference(t *testing.T) {
	s := optest.Seeded("s", 1, 5, 5)
	var want float64
	for i := range 5 {
		rows, cols := 0.0, 0.0
		for j := range 5 {
			rows += math.Exp(s.Data[i*5+j])
			cols += math.Exp(s.Data[j*5+i])
		}
		want += (math.Log(rows) + math.Log(cols) - 2*s.Data[i*6]) / 10
	}
	both(t, want, func(n []*G.Node) (*G.Node, error) { return Contrastive(n[0]) }, s)
}

func TestAlignmentLossByHand(t *testing.T) {
	z, y := given("z", []float64{0, 800, -800, 1}, 2, 2), given("y", []float64{0.5, 1, 0, 0.25}, 2, 2)
	sp := func(x float64) float64 { return math.Log1p(math.Exp(x)) }
	both(t, (math.Ln2+0.25*sp(-1)+0.75*sp(1))/4, func(n []*G.Node) (*G.Node, error) { return AlignmentLoss(n[0], n[1], AlignmentConfig{}) }, z, y)
	w := given("w", []float64{1, 0, 0, 3}, 2, 2)
	both(t, (0.5*2*math.Ln2+0.5*math.Ln2+3*(2*0.25*sp(-1)+0.75*sp(1)))/4,
		func(n []*G.Node) (*G.Node, error) {
			return AlignmentLoss(n[0], n[1], AlignmentConfig{PositiveWeight: 2, Weights: n[2]})
		}, z, y, w)
	both(t, 0, func(n []*G.Node) (*G.Node, error) { return AlignmentLoss(n[0], n[1], AlignmentConfig{Weights: n[2]}) },
		z, y, given("w", make([]float64, 4), 2, 2))
}

func TestMarginLossByHand(t *testing.T) {
	maps := given("m", []float64{
		0.9, 0.1, 0.2, 0.3, // inside is patch 0: both margins hold
		0.2, 0.4, 0.6, 0.1, // inside 0 and 1: max 0.6−0.4+0.5 = 0.7, mean 0.35−0.3+0.1 = 0.15
		0.5, 0.9, 0.1, 0.1, // no inside: does not count
		0.5, 0.9, 0.1, 0.1, // inside 0, padding 1: max 0.1−0.5+0.5 = 0.1, mean 0.1−0.5+0.1 < 0
	}, 1, 4, 4)
	regions := given("r", []float64{1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, -1, 0, 0}, 1, 4, 4)
	both(t, (0.8*0.7+0.2*0.15+0.8*0.1)/3, func(n []*G.Node) (*G.Node, error) { return MarginLoss(n[0], n[1], MarginConfig{}) }, maps, regions)
	both(t, 0, func(n []*G.Node) (*G.Node, error) { return MarginLoss(n[0], n[1], MarginConfig{}) }, maps, given("r", make([]float64, 16), 1, 4, 4))
}

func TestLossGradients(t *testing.T) {
	targets := given("y", []float64{0, 1, 0.25, 0.5, 1, 0, 0.75, 0.1, 0, 0.9, 1, 0}, 3, 4)
	weights := given("w", []float64{1, 0, 2, 1, 1, 1, 1, 0, 0, 0.5, 1, 1}, 3, 4)
	targets.Const, weights.Const = true, true
	for name, c := range map[string]optest.Graph{
		"InfoNCE": {Inputs: []optest.Input{optest.Seeded("a", 1, 4, 3), optest.Seeded("b", 2, 4, 3)},
			Build: func(n []*G.Node) (*G.Node, error) { return InfoNCE(n[0], n[1], InfoNCEConfig{Temperature: 0.3}) }},
		"Contrastive": {Inputs: []optest.Input{optest.Seeded("s", 1, 4, 4)},
			Build: func(n []*G.Node) (*G.Node, error) { return Contrastive(n[0]) }},
		"Alignment": {Inputs: []optest.Input{optest.Seeded("z", 1, 3, 4), targets},
			Build: func(n []*G.Node) (*G.Node, error) { return AlignmentLoss(n[0], n[1], AlignmentConfig{}) }},
		"AlignmentWeighted": {Inputs: []optest.Input{optest.Seeded("z", 1, 3, 4), targets, weights},
			Build: func(n []*G.Node) (*G.Node, error) {
				return AlignmentLoss(n[0], n[1], AlignmentConfig{PositiveWeight: 3, Weights: n[2]})
			}},
		"Margin": {Inputs: []optest.Input{optest.Seeded("m", 1, 3, 4), targets},
			Build: func(n []*G.Node) (*G.Node, error) {
				return MarginLoss(n[0], n[1], MarginConfig{MaxWeight: 1, MeanWeight: 2, MaxMargin: 3, MeanMargin: 3})
			}},
		"MarginOfRelevance": {Inputs: []optest.Input{optest.Seeded("x", 1, 3, 5), optest.Seeded("p", 2, 4, 5), targets},
			Build: func(n []*G.Node) (*G.Node, error) {
				s, err := Ground(n[0], n[1], nil, Config{Form: Relevance})
				if err != nil {
					return nil, err
				}
				return MarginLoss(s, n[2], MarginConfig{})
			}},
	} {
		t.Run(name, func(t *testing.T) { c.CheckGradients(t, 1e-6) })
	}
}

func TestLossErrorsAndHashes(t *testing.T) {
	g := G.NewGraph()
	node := func(shape ...int) *G.Node {
		return G.NewTensor(g, tensor.Float32, len(shape), G.WithShape(shape...), G.WithName(fmt.Sprint("n", shape)))
	}
	a, b := node(3, 4), node(3, 5)
	for want, f := range map[string]func() (*G.Node, error){
		"grounding.InfoNCE: images: got shape (3, 5), want (3, 4)":                                     func() (*G.Node, error) { return InfoNCE(a, b, InfoNCEConfig{}) },
		"grounding.InfoNCE: texts: got a nil node, want a node of the graph":                           func() (*G.Node, error) { return InfoNCE(nil, b, InfoNCEConfig{}) },
		"grounding.InfoNCE: grounding.Ground: Temperature: got -1, want a positive number, or 0 for 1": func() (*G.Node, error) { return InfoNCE(a, a, InfoNCEConfig{Temperature: -1}) },
		"grounding.Contrastive: scores: got shape (3, 4), want (3, 3)":                                 func() (*G.Node, error) { return Contrastive(a) },
		"grounding.AlignmentLoss: targets: got shape (3, 5), want (3, 4)":                              func() (*G.Node, error) { return AlignmentLoss(a, b, AlignmentConfig{}) },
		"grounding.AlignmentLoss: PositiveWeight: got -2, want a positive number, or 0 for 1":          func() (*G.Node, error) { return AlignmentLoss(a, a, AlignmentConfig{PositiveWeight: -2}) },
		"grounding.AlignmentLoss: Weights: got shape (3, 5), want (3, 4)":                              func() (*G.Node, error) { return AlignmentLoss(a, a, AlignmentConfig{Weights: b}) },
		"grounding.MarginLoss: regions: got shape (3, 5), want (3, 4)":                                 func() (*G.Node, error) { return MarginLoss(a, b, MarginConfig{}) },
		"grounding.MarginLoss: MaxWeight: got -1, want a finite number of at least 0":                  func() (*G.Node, error) { return MarginLoss(a, a, MarginConfig{MaxWeight: -1}) },
		"grounding.MarginLoss: MeanMargin: got NaN, want a finite number":                              func() (*G.Node, error) { return MarginLoss(a, a, MarginConfig{MeanMargin: math.NaN()}) },
	} {
		_, err := f()
		require.EqualError(t, err, want)
	}
	seen := map[uint32]bool{}
	add := func(n *G.Node, err error) {
		require.NoError(t, err)
		require.False(t, seen[n.Hashcode()], n)
		seen[n.Hashcode()] = true
	}
	for _, c := range []AlignmentConfig{{}, {PositiveWeight: 2}, {Weights: a}} {
		add(AlignmentLoss(a, a, c))
	}
	for _, c := range []MarginConfig{{}, {MaxMargin: 1}, {MeanMargin: 1}, {MaxWeight: 1}, {MeanWeight: 1}} {
		add(MarginLoss(a, a, c))
	}
}
