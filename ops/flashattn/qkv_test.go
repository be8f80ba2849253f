package flashattn_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops"
	"stheno/ops/flashattn"
)

// attended are the result and the gradients of q, k and v, in one vector or apart, each of a node weighed with fixed numbers.
func attended(t *testing.T, size ops.QKV, cfg flashattn.Config, joint bool) (out []float64, grads []float64) {
	g := G.NewGraph()
	var in G.Nodes
	var all []float64
	for i, heads := range []int{size.Heads, size.KVHeads, size.KVHeads} {
		x := optest.Seeded("qkv"[i:i+1], uint64(i), size.Batch, size.Seq, heads, size.HeadDim)
		in, all = append(in, x.Node(g, tensor.Float32)), append(all, x.Data...)
	}
	y, err := flashattn.Attend(in[0], in[1], in[2], cfg)
	if joint {
		in = G.Nodes{optest.Input{Name: "qkv", Shape: []int{len(all)}, Data: all}.Node(g, tensor.Float32)}
		y, err = flashattn.AttendQKV(in[0], size, cfg)
	}
	require.NoError(t, err)
	if joint {
		require.Equal(t, tensor.Shape{size.Batch, size.Seq, size.Heads * size.HeadDim}, y.Shape())
	}
	w := optest.Seeded("w", 9, y.Shape()...).Node(g, tensor.Float32)
	nodes, err := G.Grad(G.Must(G.Sum(G.Must(G.HadamardProd(y, w)))), in...)
	require.NoError(t, err)
	values := make([]G.Value, 1+len(nodes))
	for i, n := range append(G.Nodes{y}, nodes...) {
		G.Read(n, &values[i])
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	for _, v := range values[1:] {
		grads = append(grads, optest.Values(t, v)...)
	}
	return optest.Values(t, values[0]), grads
}

// TestAttendQKV: the same bits as Attend of the three parts, results and gradients.
func TestAttendQKV(t *testing.T) {
	for _, n := range [][5]int{{1, 1, 1, 1, 2}, {2, 5, 4, 2, 3}, {1, 130, 6, 3, 16}, {3, 33, 2, 2, 64}, {2, 19, 3, 1, 9}} {
		size := ops.QKV{Batch: n[0], Seq: n[1], Heads: n[2], KVHeads: n[3], HeadDim: n[4]}
		for name, cfg := range map[string]flashattn.Config{
			"plain": {}, "causal": {Causal: true, Softcap: 2}, "window, bf16": {Causal: true, Window: flashattn.Sliding(7), Precision: flashattn.BFloat16},
			"alibi, int8": {Causal: true, ALiBi: true, Precision: flashattn.Int8}, "both sides": {Window: flashattn.Window{Limited: true, Left: 3, Right: 2}, Scale: 0.3},
		} {
			t.Run(fmt.Sprintf("%+v/%s", size, name), func(t *testing.T) {
				want, wantGrads := attended(t, size, cfg, false)
				got, grads := attended(t, size, cfg, true)
				require.True(t, slices.Equal(want, got))
				require.True(t, slices.Equal(wantGrads, grads))
			})
		}
	}
}

func TestAttendQKVGradients(t *testing.T) {
	size := ops.QKV{Batch: 2, Seq: 5, Heads: 4, KVHeads: 2, HeadDim: 3}
	sinks, bias := optest.Seeded("sinks", 4, 4), optest.Seeded("bias", 5, 2, 1, 5, 5)
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("qkv", 1, size.Size()), sinks, bias},
		Build: func(in []*G.Node) (*G.Node, error) {
			return flashattn.AttendQKV(in[0], size, flashattn.Config{Causal: true, ALiBi: true, Sinks: in[1], Bias: in[2]})
		},
	}.CheckGradients(t, 1e-6)
}

func TestAttendQKVErrors(t *testing.T) {
	g := G.NewGraph()
	vector := func(n int) *G.Node { return G.NewVector(g, tensor.Float32, G.WithShape(n), G.WithName(fmt.Sprint(n))) }
	size := ops.QKV{Batch: 1, Seq: 2, Heads: 2, KVHeads: 1, HeadDim: 3}
	for want, build := range map[string]func() (*G.Node, error){
		"qkv: got a nil node": func() (*G.Node, error) { return flashattn.AttendQKV(nil, size, flashattn.Config{}) },
		"qkv: got shape (23), want (24)": func() (*G.Node, error) {
			return flashattn.AttendQKV(vector(23), size, flashattn.Config{})
		},
		"QKV: got {Batch:0 Seq:0 Heads:0 KVHeads:0 HeadDim:0}, want positive sizes": func() (*G.Node, error) {
			return flashattn.AttendQKV(vector(24), ops.QKV{}, flashattn.Config{})
		},
		"of rank 2, want rank 1": func() (*G.Node, error) {
			return flashattn.AttendQKV(G.NewMatrix(g, tensor.Float32, G.WithShape(2, 12), G.WithName("m")), size, flashattn.Config{})
		},
		"want at most 256": func() (*G.Node, error) {
			wide := ops.QKV{Batch: 1, Seq: 1, Heads: 1, KVHeads: 1, HeadDim: 257}
			return flashattn.AttendQKV(vector(771), wide, flashattn.Config{})
		},
	} {
		_, err := build()
		require.ErrorContains(t, err, "flashattn.AttendQKV: ")
		require.ErrorContains(t, err, want)
	}
}
