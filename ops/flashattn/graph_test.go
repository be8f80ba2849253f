package flashattn_test

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

// sizes of the attention in a test graph.
type sizes struct{ batch, seqQ, seqKV, heads, kvHeads, d, dv int }

func (s sizes) inputs() []optest.Input {
	return []optest.Input{
		optest.Seeded("q", 1, s.batch, s.seqQ, s.heads, s.d),
		optest.Seeded("k", 2, s.batch, s.seqKV, s.kvHeads, s.d),
		optest.Seeded("v", 3, s.batch, s.seqKV, s.kvHeads, s.dv),
	}
}

var small = sizes{batch: 2, seqQ: 5, seqKV: 7, heads: 4, kvHeads: 2, d: 3, dv: 4}

func TestGradientsOnBothMachines(t *testing.T) {
	s := small
	sinks := optest.Seeded("sinks", 4, s.heads)
	bias := func(batch, heads int) optest.Input { return optest.Seeded("bias", 5, batch, heads, s.seqQ, s.seqKV) }
	step := optest.Input{Name: "step", Ints: []int{3}, Const: true}
	for _, c := range []struct {
		name  string
		cfg   flashattn.Config
		extra []optest.Input
	}{
		{name: "plain"},
		{name: "causal", cfg: flashattn.Config{Causal: true}},
		{name: "window", cfg: flashattn.Config{Window: flashattn.Window{Limited: true, Left: 2, Right: 1}}},
		{name: "causal window", cfg: flashattn.Config{Causal: true, Window: flashattn.Sliding(2)}},
		{name: "scale", cfg: flashattn.Config{Scale: -0.7}},
		{name: "softcap", cfg: flashattn.Config{Softcap: 1.2, Causal: true}},
		{name: "alibi", cfg: flashattn.Config{ALiBi: true}},
		{name: "dropout", cfg: flashattn.Config{Dropout: 0.4, Seed: 5}},
		{name: "dropout with a step", cfg: flashattn.Config{Dropout: 0.4, Seed: 5}, extra: []optest.Input{step}},
		{name: "sinks", extra: []optest.Input{sinks}},
		{name: "bias", extra: []optest.Input{bias(s.batch, s.heads)}},
		{name: "bias of all heads", cfg: flashattn.Config{Causal: true}, extra: []optest.Input{bias(s.batch, 1)}},
		{name: "bias of all batches", extra: []optest.Input{bias(1, s.heads)}},
		{name: "everything", extra: []optest.Input{sinks, bias(1, 1), step}, cfg: flashattn.Config{Causal: true,
			Window: flashattn.Sliding(3), Softcap: 1.5, ALiBi: true, Dropout: 0.3, Seed: 1, BlockQ: 6, BlockKV: 3}},
	} {
		for _, with := range []string{"Attend", "AttendLSE"} {
			t.Run(c.name+"/"+with, func(t *testing.T) {
				optest.Graph{
					Inputs: append(s.inputs(), c.extra...),
					Build:  func(in []*G.Node) (*G.Node, error) { return attend(in, c.cfg, with == "AttendLSE") },
				}.CheckGradients(t, 1e-6)
			})
		}
	}
}

// attend builds attention over q, k, v and the extras by name; with lse, one scalar of both outputs.
func attend(in []*G.Node, cfg flashattn.Config, lse bool) (*G.Node, error) {
	for _, n := range in[3:] {
		switch n.Name() {
		case "sinks":
			cfg.Sinks = n
		case "bias":
			cfg.Bias = n
		case "step":
			cfg.Step = n
		case "cuQ":
			cfg.CuSeqlensQ = n
		case "cuKV":
			cfg.CuSeqlensKV = n
		}
	}
	if !lse {
		return flashattn.Attend(in[0], in[1], in[2], cfg)
	}
	out, l, err := flashattn.AttendLSE(in[0], in[1], in[2], cfg)
	if err != nil {
		return nil, err
	}
	a, err := G.Sum(G.Must(G.HadamardProd(out, out)))
	if err != nil {
		return nil, err
	}
	b, err := G.Sum(G.Must(G.HadamardProd(l, l)))
	if err != nil {
		return nil, err
	}
	return G.Add(a, b)
}

func TestPackedSequencesOnBothMachines(t *testing.T) {
	s := sizes{batch: 1, seqQ: 11, seqKV: 12, heads: 4, kvHeads: 2, d: 3, dv: 4}
	cu := []optest.Input{
		{Name: "cuQ", Shape: []int{4}, Ints: []int{0, 4, 4, 9}, Const: true},
		{Name: "cuKV", Shape: []int{4}, Ints: []int{0, 3, 5, 12}, Const: true},
	}
	optest.Graph{
		Inputs: append(s.inputs(), append(cu, optest.Seeded("sinks", 4, s.heads))...),
		Build: func(in []*G.Node) (*G.Node, error) {
			return attend(in, flashattn.Config{Causal: true, ALiBi: true}, false)
		},
	}.CheckGradients(t, 1e-6)
}

// composed is causal attention of Gorgonia's own nodes, for one key head per query head.
func composed(in []*G.Node) (*G.Node, error) {
	s := in[0].Shape()
	batch, seq, heads, d := s[0], s[1], s[2], s[3]
	flat := func(n *G.Node) *G.Node {
		t := G.Must(G.Transpose(n, 0, 2, 1, 3))
		return G.Must(G.Reshape(t, tensor.Shape{batch * heads, seq, d}))
	}
	q, k, v := flat(in[0]), flat(in[1]), flat(in[2])
	scores := G.Must(G.BatchedMatMul(q, k, false, true))
	scores = G.Must(G.Mul(scores, G.NewConstant(1/math.Sqrt(float64(d)), G.WithName("scale"))))
	mask := tensor.New(tensor.WithShape(batch*heads, seq, seq), tensor.Of(tensor.Float64))
	data := mask.Data().([]float64)
	for i := range data {
		if i%seq > i/seq%seq {
			data[i] = -1e30
		}
	}
	scores = G.Must(G.Add(scores, G.NewTensor(in[0].Graph(), tensor.Float64, 3, G.WithName("mask"), G.WithShape(batch*heads, seq, seq), G.WithValue(mask))))
	weights := G.Must(G.SoftMax(scores, 2))
	out := G.Must(G.BatchedMatMul(weights, v))
	out = G.Must(G.Reshape(out, tensor.Shape{batch, heads, seq, d}))
	return G.Transpose(out, 0, 2, 1, 3)
}

func TestEqualsGorgoniasOwnNodes(t *testing.T) {
	in := sizes{batch: 2, seqQ: 9, seqKV: 9, heads: 3, kvHeads: 3, d: 4, dv: 4}.inputs()
	want := optest.Graph{Inputs: in, Build: composed}.Run(t, tensor.Float64)
	graph := optest.Graph{Inputs: in, Build: func(in []*G.Node) (*G.Node, error) { return attend(in, flashattn.Config{Causal: true}, false) }}
	optest.Close(t, "float64", graph.Run(t, tensor.Float64), want, 1e-14)
	optest.Close(t, "float32", graph.Run(t, tensor.Float32), want, 2e-6)
}

// Inputs that are views, and one node that serves as query, key and value.
func TestViewsAndOneNodeForAll(t *testing.T) {
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("x", 1, 2, 3, 5, 4)},
		Build: func(in []*G.Node) (*G.Node, error) {
			x, err := G.Transpose(in[0], 0, 2, 1, 3)
			if err != nil {
				return nil, err
			}
			once, err := flashattn.Attend(x, x, x, flashattn.Config{Causal: true})
			if err != nil {
				return nil, err
			}
			return flashattn.Attend(once, x, once, flashattn.Config{})
		},
	}.CheckGradients(t, 1e-6)
}

func ExampleAttend() {
	g := G.NewGraph()
	x := G.NewTensor(g, tensor.Float32, 4, G.WithShape(1, 3, 2, 4), G.WithName("x"), G.WithInit(G.Ones()))
	y, err := flashattn.Attend(x, x, x, flashattn.Config{Causal: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(y.Shape(), y.Value().Data().([]float32)[:4])
	// Output: (1, 3, 2, 4) [1 1 1 1]
}

// The step node chooses the weights that are dropped; one step drops the same again.
func TestDropoutFollowsSeedAndStep(t *testing.T) {
	run := func(seed uint64, step int) []float64 {
		return optest.Graph{
			Inputs: append(small.inputs(), optest.Input{Name: "step", Ints: []int{step}}),
			Build: func(in []*G.Node) (*G.Node, error) {
				return attend(in, flashattn.Config{Dropout: 0.5, Seed: seed}, false)
			},
		}.Run(t, tensor.Float32)
	}
	first := run(1, 1)
	require.Equal(t, first, run(1, 1))
	require.NotEqual(t, first, run(1, 2))
	require.NotEqual(t, first, run(2, 1))
}
