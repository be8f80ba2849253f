//go:build cuda

package grounding

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
)

// onCard runs a node on the card, forward and backward, and compares with its Do and Backward. Inputs that are Const or integers have
// no gradient.
func onCard(t *testing.T, name string, build func(in []*G.Node) (*G.Node, error), inputs ...optest.Input) {
	for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
		t.Run(fmt.Sprintf("%s/%v", name, dt), func(t *testing.T) {
			optest.Card(t)
			g := G.NewGraph()
			var in, wrt G.Nodes
			var values []G.Value
			for _, i := range inputs {
				n := i.Node(g, dt)
				in, values = append(in, n), append(values, n.Value())
				if i.Ints == nil && !i.Const {
					wrt = append(wrt, n)
				}
			}
			y, err := build(in)
			require.NoError(t, err)
			_, there := y.Op().(G.CUDADoer)
			require.True(t, there, "%v is not on the card", y.Op())
			weights := optest.Input{Name: "weights", Shape: y.Shape(), Data: optest.Normal[float64](99, y.Shape().TotalSize(), 1)}
			var dOut G.Value
			loss := y
			if y.IsScalar() {
				dOut = op.NewScalar(float32(3))
				if dt == tensor.Float64 {
					dOut = op.NewScalar(float64(3))
				}
				loss = G.Must(G.Mul(y, G.NewConstant(dOut.Data())))
			} else {
				w := weights.Node(g, dt)
				dOut = w.Value()
				loss = G.Must(G.Sum(G.Must(G.HadamardProd(y, w))))
			}
			grads, err := G.Grad(loss, wrt...)
			require.NoError(t, err)
			reads := make([]G.Value, 1+len(grads))
			for i, n := range append(G.Nodes{y}, grads...) {
				G.Read(n, &reads[i])
			}
			if o, ok := y.Op().(*poolOp); ok {
				values = append(values, op.NewOf(dt, tensor.Shape{o.batch, o.tokens})) // its side
			}
			want, err := y.Op().Do(values...)
			require.NoError(t, err)
			dIn := make([]*tensor.Dense, len(values))
			for i, w := range y.Op().(G.SDOp).DiffWRT(len(values)) {
				if w {
					dIn[i] = op.NewLike(values[i])
				}
			}
			require.NoError(t, y.Op().(op.Backwarder).Backward(values, want, dOut, dIn))
			vm := G.NewTapeMachine(g)
			defer vm.Close()
			tol := 3e-6
			if dt == tensor.Float64 {
				tol = 1e-13
			}
			for range 2 {
				require.NoError(t, vm.RunAll())
				near := func(what string, got, want G.Value) {
					w, most := optest.Values(t, want), 0.0
					for _, v := range w {
						most = math.Max(most, math.Abs(v))
					}
					optest.Close(t, what, optest.Values(t, got), w, tol*(1+most))
				}
				near("value", reads[0], want)
				at := 1
				for i, d := range dIn {
					if d != nil && !inputs[i].Const {
						near(fmt.Sprintf("gradient %d", i), reads[at], d)
						at++
					}
				}
				vm.Reset()
			}
		})
	}
}

func TestGroundOnTheCard(t *testing.T) {
	for _, s := range [][4]int{{1, 1, 1, 1}, {2, 3, 5, 7}, {3, 17, 33, 16}, {1, 5, 200, 65}} {
		b, nt, np, dim := s[0], s[1], s[2], s[3]
		x, y := optest.Seeded("x", 1, b, nt, dim), optest.Seeded("y", 2, b, np, dim)
		if nt > 1 {
			clear(x.Data[:dim]) // no direction
		}
		for _, cfg := range forms {
			onCard(t, fmt.Sprintf("%v/%v", s, cfg.Form), func(in []*G.Node) (*G.Node, error) { return Ground(in[0], in[1], nil, cfg) }, x, y)
			if np < 3 {
				continue
			}
			tm := optest.Input{Name: "tm", Shape: []int{b, nt}, Ints: ones(b*nt, b*nt-1)}
			pm := optest.Input{Name: "pm", Shape: []int{b, np}, Data: make([]float64, b*np), Const: true}
			for i := range pm.Data {
				pm.Data[i] = float64(i % 3 % 2)
			}
			onCard(t, fmt.Sprintf("%v/%v/masked", s, cfg.Form), func(in []*G.Node) (*G.Node, error) {
				cfg := cfg
				cfg.TokenMask, cfg.PatchMask = in[2], in[3]
				return Ground(in[0], in[1], nil, cfg)
			}, x, y, tm, pm)
		}
	}
}

// Pool on the card, whole and in pieces: of several items, of one, and of some tokens of one.
func TestPoolOnTheCard(t *testing.T) {
	defer func(n int) { cardScores = n }(cardScores)
	for _, s := range [][5]int{{1, 1, 1, 1, 1}, {5, 3, 5, 7, 2}, {2, 17, 33, 16, 40}} {
		b, nt, np, dim, width := s[0], s[1], s[2], s[3], s[4]
		x, y, v := optest.Seeded("x", 1, b, nt, dim), optest.Seeded("y", 2, b, np, dim), optest.Seeded("v", 3, b, np, width)
		tm := optest.Input{Name: "tm", Shape: []int{b, nt}, Ints: ones(b*nt, b*nt-1)}
		pm := optest.Input{Name: "pm", Shape: []int{b, np}, Data: make([]float64, b*np), Const: true}
		for i := range pm.Data {
			pm.Data[i] = float64((i + 1) % 3 % 2)
		}
		sizes := []int{4 << 20}
		if b > 2 {
			sizes = append(sizes, 2*nt*np, 2*np, 1)
		}
		for _, cardScores = range sizes {
			onCard(t, fmt.Sprint(s, cardScores), func(in []*G.Node) (*G.Node, error) {
				return Pool(in[0], in[1], nil, in[2], Config{Temperature: 0.3})
			}, x, y, v)
			if np < 3 {
				continue
			}
			onCard(t, fmt.Sprint("masked", s, cardScores), func(in []*G.Node) (*G.Node, error) {
				return Pool(in[0], in[1], nil, in[2], Config{Temperature: 0.3, TokenMask: in[3], PatchMask: in[4]})
			}, x, y, v, tm, pm)
		}
	}
}

func TestAttentionMapsOnTheCard(t *testing.T) {
	for _, s := range [][6]int{{1, 1, 1, 1, 1, 1}, {2, 3, 7, 4, 2, 5}, {1, 40, 70, 2, 2, 33}} {
		b, nt, np, heads, kv, d := s[0], s[1], s[2], s[3], s[4], s[5]
		q, k, lse := optest.Seeded("q", 1, b, nt, heads, d), optest.Seeded("k", 2, b, np, kv, d), optest.Seeded("lse", 3, b, heads, nt)
		for i := range lse.Data {
			lse.Data[i] += 4
		}
		for _, cfg := range []MapsConfig{{}, {Tokens: []int{nt - 1, 0, nt - 1}, Scale: 0.3}} {
			onCard(t, fmt.Sprint(s, cfg), func(in []*G.Node) (*G.Node, error) { return AttentionMaps(in[0], in[1], in[2], cfg) }, q, k, lse)
		}
	}
}

func TestCutOnTheCard(t *testing.T) {
	for _, s := range [][6]int{{1, 1, 2, 2, 1, 1}, {2, 3, 6, 8, 3, 2}} {
		onCard(t, fmt.Sprint(s), func(in []*G.Node) (*G.Node, error) {
			return Cut(in[0], PatchEmbedConfig{PatchHeight: s[4], PatchWidth: s[5]})
		},
			optest.Seeded("x", 1, s[0], s[1], s[2], s[3]))
	}
}

func TestLossesOnTheCard(t *testing.T) {
	targets := given("y", []float64{0, 1, 0.25, 0.5, 1, 0, 0.75, 0.1, 0, 0.9, 1, 0}, 3, 4)
	weights := given("w", []float64{1, 0, 2, 1, 1, 1, 1, 0, 0, 0.5, 1, 1}, 3, 4)
	regions := given("r", []float64{1, 0, 0, 0.6, 1, 1, 1, 1, -1, 0, 1, 0}, 3, 4)
	none := given("w", make([]float64, 12), 3, 4)
	for _, in := range []*optest.Input{&targets, &weights, &regions, &none} {
		in.Const = true
	}
	z := optest.Seeded("z", 1, 3, 4)
	for _, n := range []int{1, 4, 70} {
		onCard(t, fmt.Sprint("contrastive/", n), func(in []*G.Node) (*G.Node, error) { return Contrastive(in[0]) }, optest.Seeded("s", 1, n, n))
	}
	onCard(t, "alignment", func(in []*G.Node) (*G.Node, error) { return AlignmentLoss(in[0], in[1], AlignmentConfig{}) }, z, targets)
	for name, w := range map[string]optest.Input{"weighted": weights, "none": none} {
		onCard(t, "alignment/"+name, func(in []*G.Node) (*G.Node, error) {
			return AlignmentLoss(in[0], in[1], AlignmentConfig{PositiveWeight: 3, Weights: in[2]})
		}, z, targets, w)
	}
	onCard(t, "margin", func(in []*G.Node) (*G.Node, error) { return MarginLoss(in[0], in[1], MarginConfig{}) }, z, regions)
	onCard(t, "margin/wide", func(in []*G.Node) (*G.Node, error) {
		return MarginLoss(in[0], in[1], MarginConfig{MaxWeight: 1, MeanWeight: 2, MaxMargin: 3, MeanMargin: 3})
	}, z, regions)
}

// Whole losses of tokens and patches, node after node on the card, against the CPU's nodes by hand.
func TestInfoNCEOnTheCard(t *testing.T) {
	optest.Card(t)
	a, b := optest.Seeded("a", 1, 6, 9), optest.Seeded("b", 2, 6, 9)
	g := G.NewGraph()
	x, y := a.Node(g, tensor.Float64), b.Node(g, tensor.Float64)
	loss, err := InfoNCE(x, y, InfoNCEConfig{Temperature: 0.3})
	require.NoError(t, err)
	var got G.Value
	G.Read(loss, &got)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	s := naive[float64](a.Data, b.Data, nil, 1, 6, 6, 9, 9, Config{Temperature: 0.3}, nil, nil)
	want := (&contrastive{6}).loss(s, nil)
	optest.Close(t, "loss", optest.Values(t, got), []float64{want}, 1e-12)
}
