package ops_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/ops"
)

func TestQKVSizes(t *testing.T) {
	s := ops.QKV{Batch: 2, Seq: 3, Heads: 4, KVHeads: 2, HeadDim: 5}
	require.NoError(t, s.Validate())
	require.Equal(t, []int{120, 60, 240}, []int{s.Queries(), s.Keys(), s.Size()})
	require.ErrorContains(t, ops.QKV{}.Validate(), "want positive sizes")
	s.KVHeads = 3
	require.ErrorContains(t, s.Validate(), "got 4 heads, want a multiple of the 3 heads of keys")
}

// ropeQKVCase rotates a vector of queries, keys and values.
func ropeQKVCase(size ops.QKV, cfg ops.RoPEConfig, start ...int) nodeCase {
	pos := optest.Input{Name: "pos", Ints: start}
	if len(start) > 1 {
		pos.Shape = []int{len(start)}
	}
	return nodeCase{
		name:   fmt.Sprintf("%+v/start=%v/%+v", size, start, cfg),
		inputs: []optest.Input{optest.Seeded("qkv", 1, size.Size()), pos},
		build:  func(in []*G.Node) (*G.Node, error) { return ops.RoPEQKV(in[0], in[1], size, cfg) },
		want:   func(in [][]float64) []float64 { return refRoPEQKV(in[0], size, start, cfg) },
		naive:  func(in [][]float32) []float32 { return refRoPEQKV(in[0], size, start, cfg) },
	}
}

// refRoPEQKV is RoPE of the queries, RoPE of the keys, and the values.
func refRoPEQKV[T kernel.Float](x []T, size ops.QKV, start []int, cfg ops.RoPEConfig) []T {
	dim := cfg.Dim
	if dim == 0 {
		dim = size.HeadDim
	}
	theta := func(i int) float64 { return ropeTheta(cfg, dim, i) }
	q, k := size.Queries(), size.Keys()
	y := refRoPE(x[:q], []int{size.Batch, size.Seq, size.Heads, size.HeadDim}, start, cfg, theta, 1)
	y = append(slices.Clone(y), refRoPE(x[q:q+k], []int{size.Batch, size.Seq, size.KVHeads, size.HeadDim}, start, cfg, theta, 1)...)
	return append(y, x[q+k:]...)
}

func TestRoPEQKV(t *testing.T) {
	for _, interleaved := range []bool{false, true} {
		ropeQKVCase(ops.QKV{1, 1, 1, 1, 2}, ops.RoPEConfig{Interleaved: interleaved}, 3).check(t)
		ropeQKVCase(ops.QKV{2, 5, 6, 2, 8}, ops.RoPEConfig{Interleaved: interleaved}, 1000).check(t)
		ropeQKVCase(ops.QKV{3, 4, 2, 2, 9}, ops.RoPEConfig{Interleaved: interleaved, Dim: 4, Base: 500}, 7, 0, 59).check(t)
	}
}

func TestRoPEQKVHashes(t *testing.T) {
	build := func(size ops.QKV, cfg ops.RoPEConfig) func(in []*G.Node) (*G.Node, error) {
		return func(in []*G.Node) (*G.Node, error) { return ops.RoPEQKV(in[0], in[1], size, cfg) }
	}
	checkHashes(t, []optest.Input{optest.Seeded("qkv", 1, 48), {Name: "pos", Ints: []int{0}}}, true,
		build(ops.QKV{1, 2, 2, 1, 6}, ops.RoPEConfig{}), build(ops.QKV{2, 1, 2, 1, 6}, ops.RoPEConfig{}),
		build(ops.QKV{1, 1, 4, 2, 6}, ops.RoPEConfig{}), build(ops.QKV{1, 2, 1, 1, 8}, ops.RoPEConfig{}),
		build(ops.QKV{1, 2, 2, 1, 6}, ops.RoPEConfig{Interleaved: true}))
}

func TestRoPEQKVErrors(t *testing.T) {
	g := G.NewGraph()
	x, pos := node(g, "x", 48), nodeOf(g, tensor.Int, "pos", 1)
	size := ops.QKV{1, 2, 2, 1, 6}
	call := func(x, pos *G.Node, size ops.QKV) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.RoPEQKV(x, pos, size, ops.RoPEConfig{}) }
	}
	checkErrors(t, "ops.RoPEQKV", []buildError{
		{"x", call(nil, pos, size), "qkv: got a nil node"},
		{"pos", call(x, nil, size), "pos: got a nil node"},
		{"rank", call(node(g, "y", 6, 8), pos, size), "qkv: got shape (6, 8) of rank 2, want rank 1"},
		{"size", call(node(g, "z", 47), pos, size), "qkv: got shape (47), want (48)"},
		{"sizes", call(x, pos, ops.QKV{}), "want positive sizes"},
		{"positions", call(x, nodeOf(g, tensor.Int, "pos2", 3), size), "pos: got shape (3), want (1)"},
		{"odd", call(node(g, "odd", 20), pos, ops.QKV{1, 1, 2, 1, 5}), "want"},
	})
	n, err := ops.RoPEQKV(x, pos, size, ops.RoPEConfig{})
	require.NoError(t, err)
	wrongSize(t, n)
}

func ExampleRoPEQKV() {
	g := G.NewGraph()
	qkv := G.NewVector(g, tensor.Float32, G.WithName("qkv"), G.WithShape(6),
		G.WithValue(tensor.New(tensor.WithShape(6), tensor.WithBacking([]float32{1, 0, 0, 1, 5, 6}))))
	pos := G.NewScalar(g, tensor.Int, G.WithName("pos"), G.WithValue(1))
	y, err := ops.RoPEQKV(qkv, pos, ops.QKV{Batch: 1, Seq: 1, Heads: 1, KVHeads: 1, HeadDim: 2}, ops.RoPEConfig{})
	printRun(y, err)
	// Output:
	// [0.540 0.841 -0.841 0.540 5.000 6.000]
}
