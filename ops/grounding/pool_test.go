package grounding

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/internal/parallel"
)

// Pool is Ground's Attention times values: one way in tiles, the other with the matrix.
func TestPoolEqualsTheMatrixForm(t *testing.T) {
	for _, s := range [][5]int{{1, 1, 1, 1, 1}, {2, 3, 5, 4, 2}, {2, 33, 257, 17, 3}, {1, 65, 1025, 8, 9}} {
		b, nt, np, d, n := s[0], s[1], s[2], s[3], s[4]
		for _, masked := range []bool{false, true} {
			in := []optest.Input{optest.Seeded("x", 1, b, nt, d), optest.Seeded("y", 2, b, np, d), optest.Seeded("v", 3, b, np, n)}
			if masked {
				in = append(in, optest.Input{Name: "tm", Shape: []int{b, nt}, Ints: ones(b*nt, nt-1)},
					optest.Input{Name: "pm", Shape: []int{b, np}, Ints: ones(b*np, 0, np-1)})
			}
			cfg := func(n []*G.Node) Config {
				if masked {
					return Config{Temperature: 0.1, TokenMask: n[3], PatchMask: n[4]}
				}
				return Config{Temperature: 0.1}
			}
			streamed := optest.Graph{Inputs: in, Build: func(n []*G.Node) (*G.Node, error) { return Pool(n[0], n[1], nil, n[2], cfg(n)) }}
			matrix := optest.Graph{Inputs: in, Build: func(n []*G.Node) (*G.Node, error) {
				c := cfg(n)
				c.Form = Attention
				s, err := Ground(n[0], n[1], nil, c)
				if err != nil {
					return nil, err
				}
				return G.BatchedMatMul(s, n[2])
			}}
			want := matrix.Run(t, tensor.Float64)
			what := fmt.Sprintf("%v masked=%v", s, masked)
			optest.Close(t, what, streamed.Run(t, tensor.Float64), want, 1e-12)
			// The softmax of scores up to 10 turns their rounding into a relative error ten times as large.
			optest.Within(t, what, streamed.Run(t, tensor.Float32), matrix.Run(t, tensor.Float32), want, 2, 3e-6)
		}
	}
}

func TestPoolGradients(t *testing.T) {
	for _, masked := range []bool{false, true} {
		for _, withW := range []bool{false, true} {
			t.Run(fmt.Sprintf("masked=%v/w=%v", masked, withW), func(t *testing.T) {
				in := []optest.Input{optest.Seeded("x", 1, 2, 3, 4), optest.Seeded("y", 2, 2, 5, 4), optest.Seeded("v", 3, 2, 5, 2)}
				if withW {
					in = append(in, optest.Seeded("w", 4, 4, 4))
				}
				if masked {
					in = append(in, optest.Input{Name: "tm", Shape: []int{2, 3}, Ints: ones(6, 1)},
						optest.Input{Name: "pm", Shape: []int{2, 5}, Ints: ones(10, 3, 5, 6, 7, 8, 9)})
				}
				optest.Graph{Inputs: in, Build: func(n []*G.Node) (*G.Node, error) {
					cfg := Config{Temperature: 0.3}
					var w *G.Node
					if withW {
						w = n[3]
					}
					if masked {
						cfg.TokenMask, cfg.PatchMask = n[len(n)-2], n[len(n)-1]
					}
					return Pool(n[0], n[1], w, n[2], cfg)
				}}.CheckGradients(t, 1e-6)
			})
		}
	}
}

func TestPoolGradientsOverManyTiles(t *testing.T) {
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("x", 1, 70, 3), optest.Seeded("y", 2, 600, 3), optest.Seeded("v", 3, 600, 2)},
		Build:  func(n []*G.Node) (*G.Node, error) { return Pool(n[0], n[1], nil, n[2], Config{Temperature: 0.2}) },
	}.CheckGradients(t, 1e-5)
}

func TestPoolErrors(t *testing.T) {
	g := G.NewGraph()
	node := func(shape ...int) *G.Node {
		return G.NewTensor(g, tensor.Float32, len(shape), G.WithShape(shape...), G.WithName(fmt.Sprint("n", shape)))
	}
	x, y := node(3, 4), node(5, 4)
	for _, c := range []struct {
		v    *G.Node
		cfg  Config
		want string
	}{
		{nil, Config{}, "grounding.Pool: values: got a nil node, want a node of the graph"},
		{node(4, 1), Config{}, "grounding.Pool: values: got shape (4, 1), want (5, 1)"},
		{node(1, 5, 1), Config{}, "grounding.Pool: values: got shape (1, 5, 1) of rank 3, want rank 2"},
		{node(5, 1), Config{Form: Attention}, "grounding.Pool: Form: got attention, want the zero value: the softmax is always taken"},
	} {
		_, err := Pool(x, y, nil, c.v, c.cfg)
		require.EqualError(t, err, c.want)
	}
}

// Ten times the tokens and patches take ten times the scratch, not a hundred times.
func TestPoolWorkspaceIsLinear(t *testing.T) {
	used := func(nt, np int) float64 {
		parallel.ReleaseScratch()
		run, _ := tape(t, inputsFor("Pool", 1, nt, np, 8), groundings()["Pool"])
		require.NoError(t, run())
		return float64(parallel.ScratchBytes())
	}
	small, large := used(128, 512), used(1280, 5120)
	require.Less(t, large, 10*small+float64(1<<16))
	require.Less(t, large, float64(1280*5120*4)/4, "a quarter of the matrix")
}

// At 4,096 tokens and 16,384 patches all memory that a run takes anew, forward and with gradients, is counted: a fixed number
// of copies of tokens, patches and values, where the matrix alone would be 256 MiB.
func TestPoolBytesAtLength(t *testing.T) {
	if testing.Short() {
		t.Skip("short: 30 GFLOP")
	}
	const nt, np, dim, values = 4096, 16384, 16, 3
	in := inputsFor("Pool", 1, nt, np, dim)
	operands := int64(4 * ((nt+np)*dim + np*values + nt*values))
	trained, _ := tape(t, in, groundings()["Pool"])
	for _, c := range []struct {
		name  string
		run   func() error
		limit int64 // copies of the operands
	}{
		// Scratch: units of tokens and patches, patches turned; besides the projection, the result and the log-sum-exp.
		{"forward", untrained(t, in, groundings()["Pool"]), 5},
		// Besides: gradients, and squares and sums of the loss.
		{"with gradients", trained, 10},
	} {
		parallel.ReleaseScratch()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		require.NoError(t, c.run())
		runtime.ReadMemStats(&after)
		got := int64(after.TotalAlloc - before.TotalAlloc)
		tiles := int64(parallel.Threads()) * 4 * tileTokens * tilePatches * 4
		require.Less(t, got, c.limit*operands+tiles+1<<18, c.name)
		require.Less(t, parallel.ScratchBytes(), 4*operands+tiles+1<<18, c.name)
		require.Less(t, got, int64(4*nt*np/8), "an eighth of the matrix")
	}
}

// untrained is tape without gradients.
func untrained(t *testing.T, in []optest.Input, build func([]*G.Node) (*G.Node, error)) func() error {
	g := G.NewGraph()
	nodes := make([]*G.Node, len(in))
	for i := range in {
		nodes[i] = in[i].Node(g, tensor.Float32)
	}
	_, err := build(nodes)
	require.NoError(t, err)
	vm := G.NewTapeMachine(g)
	t.Cleanup(func() { vm.Close() })
	return func() error { vm.Reset(); return vm.RunAll() }
}
