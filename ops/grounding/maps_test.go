package grounding

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops/flashattn"
)

// mapsOf attends and recovers the maps. shift adds the attention's output, which a LispMachine wants to see used.
func mapsOf(tokens []int, scale float64, shift bool) func(n []*G.Node) (*G.Node, error) {
	return func(n []*G.Node) (*G.Node, error) {
		out, lse, err := flashattn.AttendLSE(n[0], n[1], n[1], flashattn.Config{Scale: scale})
		if err != nil {
			return nil, err
		}
		maps, err := AttentionMaps(n[0], n[1], lse, MapsConfig{Tokens: tokens, Scale: scale})
		if err != nil || !shift {
			return maps, err
		}
		return G.Add(maps, G.Must(G.Mean(out)))
	}
}

func TestAttentionMapsAgainstReference(t *testing.T) {
	for _, s := range [][6]int{{1, 1, 1, 1, 1, 1}, {2, 3, 7, 4, 2, 5}, {1, 9, 600, 2, 2, 17}, {2, 33, 257, 4, 1, 8}} {
		b, nt, np, heads, kv, d := s[0], s[1], s[2], s[3], s[4], s[5]
		q, k := optest.Seeded("q", 1, b, nt, heads, d), optest.Seeded("k", 2, b, np, kv, d)
		tokens := []int{nt - 1, 0, nt / 2}
		for _, scale := range []float64{0, 0.7} {
			want := make([]float64, b*3*np)
			for i := range b {
				for j, t := range tokens {
					for h := range heads {
						row := make([]float64, np)
						sum := 0.0
						for p := range np {
							for c := range d {
								row[p] += q.Data[((i*nt+t)*heads+h)*d+c] * k.Data[((i*np+p)*kv+h/(heads/kv))*d+c]
							}
							x := scale
							if x == 0 {
								x = 1 / math.Sqrt(float64(d))
							}
							row[p] = math.Exp(row[p] * x)
							sum += row[p]
						}
						for p := range np {
							want[(i*3+j)*np+p] += row[p] / sum / float64(heads)
						}
					}
				}
			}
			c := optest.Graph{Inputs: []optest.Input{q, k}, Build: mapsOf(tokens, scale, false)}
			optest.Close(t, fmt.Sprint(s), c.Run(t, tensor.Float64), want, 1e-12)
			optest.Close(t, fmt.Sprint(s), c.Run(t, tensor.Float32), want, 2e-5)
		}
	}
}

func TestAttentionMapsGradients(t *testing.T) {
	for _, kv := range []int{1, 2, 4} {
		optest.Graph{
			Inputs: []optest.Input{optest.Seeded("q", 1, 2, 3, 4, 5), optest.Seeded("k", 2, 2, 6, kv, 5)},
			Build:  mapsOf([]int{2, 0, 2}, 0, true),
		}.CheckGradients(t, 1e-6)
	}
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("q", 1, 1, 3, 2, 3), optest.Seeded("k", 2, 1, 300, 2, 3), optest.Seeded("lse", 3, 1, 2, 3)},
		Build: func(n []*G.Node) (*G.Node, error) {
			return AttentionMaps(n[0], n[1], n[2], MapsConfig{})
		},
	}.CheckGradients(t, 1e-5)
}

func TestAttentionMapsErrorsAndHash(t *testing.T) {
	g := G.NewGraph()
	node := func(shape ...int) *G.Node {
		return G.NewTensor(g, tensor.Float32, len(shape), G.WithShape(shape...), G.WithName(fmt.Sprint("n", shape)))
	}
	q, k, lse := node(2, 3, 4, 5), node(2, 7, 2, 5), node(2, 4, 3)
	for _, c := range []struct {
		q, k, lse *G.Node
		cfg       MapsConfig
		want      string
	}{
		{q, nil, lse, MapsConfig{}, "k: got a nil node, want a node of the graph"},
		{q, node(2, 7, 5), lse, MapsConfig{}, "k: got shape (2, 7, 5) of rank 3, want rank 4"},
		{q, node(2, 7, 2, 6), lse, MapsConfig{}, "k: got shape (2, 7, 2, 6), want (2, 7, 2, 5)"},
		{q, node(2, 7, 3, 5), lse, MapsConfig{}, "k: got 3 heads, want a divisor of the 4 heads of q"},
		{q, k, node(2, 3, 4), MapsConfig{}, "lse: got shape (2, 3, 4), want (2, 4, 3)"},
		{q, k, lse, MapsConfig{Tokens: []int{}}, "Tokens: got none, want at least one, or nil for all"},
		{q, k, lse, MapsConfig{Tokens: []int{0, 3}}, "Tokens[1]: got 3, want a position in [0, 3)"},
		{q, k, lse, MapsConfig{Scale: math.NaN()}, "Scale: got NaN, want a finite number, or 0 for 1/√headDim"},
	} {
		_, err := AttentionMaps(c.q, c.k, c.lse, c.cfg)
		require.EqualError(t, err, "grounding.AttentionMaps: "+c.want)
	}
	a, err := AttentionMaps(q, k, lse, MapsConfig{Tokens: []int{1}})
	require.NoError(t, err)
	for _, cfg := range []MapsConfig{{Tokens: []int{2}}, {Tokens: []int{1}, Scale: 3}} {
		n, err := AttentionMaps(q, k, lse, cfg)
		require.NoError(t, err)
		require.NotEqual(t, a.Hashcode(), n.Hashcode())
	}
}
