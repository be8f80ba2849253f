package ops_test

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/ops"
)

// ropeTheta is the angle per position of pair i, without scaling.
func ropeTheta(cfg ops.RoPEConfig, dim, i int) float64 {
	base := cfg.Base
	if base == 0 {
		base = 10000
	}
	return math.Pow(base, -2*float64(i)/float64(dim))
}

// refRoPE is the definition. theta gives the angle per position of a pair.
func refRoPE[T kernel.Float](x []T, shape []int, start []int, cfg ops.RoPEConfig, theta func(i int) float64, amplitude float64) []T {
	batch, seq, heads, headDim := shape[0], shape[1], shape[2], shape[3]
	dim := cfg.Dim
	if dim == 0 {
		dim = headDim
	}
	out := append([]T(nil), x...)
	at := 0
	for b := range batch {
		for s := range seq {
			p := start[b%len(start)] + s
			for range heads {
				for i := range dim / 2 {
					j, k := at+i, at+i+dim/2
					if cfg.Interleaved {
						j, k = at+2*i, at+2*i+1
					}
					sin, cos := math.Sincos(float64(p) * theta(i))
					c, s := T(cos*amplitude), T(sin*amplitude)
					out[j] = x[j]*c - x[k]*s
					out[k] = x[k]*c + x[j]*s
				}
				at += headDim
			}
		}
	}
	return out
}

// ropeCase: one start is a scalar node, several are a vector.
func ropeCase(cfg ops.RoPEConfig, start []int, shape ...int) nodeCase {
	pos := optest.Input{Name: "pos", Ints: start}
	if len(start) > 1 {
		pos.Shape = []int{len(start)}
	}
	dim := cfg.Dim
	if dim == 0 {
		dim = shape[3]
	}
	theta := func(i int) float64 { return ropeTheta(cfg, dim, i) }
	c := nodeCase{
		name:   fmt.Sprintf("shape=%v/start=%v/dim=%d/interleaved=%v/base=%v", shape, start, dim, cfg.Interleaved, cfg.Base),
		inputs: []optest.Input{optest.Seeded("x", 1, shape...), pos},
		build:  func(in []*G.Node) (*G.Node, error) { return ops.RoPE(in[0], in[1], cfg) },
		want:   func(in [][]float64) []float64 { return refRoPE(in[0], shape, start, cfg, theta, 1) },
		naive:  func(in [][]float32) []float32 { return refRoPE(in[0], shape, start, cfg, theta, 1) },
	}
	if !cfg.Interleaved && dim == shape[3] && dim > 2 && len(start) == 1 {
		c.plain = func(in []*G.Node) (*G.Node, error) { return plainRoPE(in[0], start[0], theta) }
	}
	return c
}

// plainRoPE is x⊙C + [−x₂, x₁]⊙S of Gorgonia's nodes, with constant C and S.
func plainRoPE(x *G.Node, start int, theta func(i int) float64) (*G.Node, error) {
	shape := x.Shape()
	dim := shape[3]
	var c, s []float64
	for at := range shape.TotalSize() {
		pos := start + at/(dim*shape[2])%shape[1]
		sin, cos := math.Sincos(float64(pos) * theta(at%(dim/2)))
		if at%dim < dim/2 {
			sin = -sin
		}
		c, s = append(c, cos), append(s, sin)
	}
	cos := optest.Input{Name: "cos", Shape: shape, Data: c}.Node(x.Graph(), x.Dtype())
	sin := optest.Input{Name: "sin", Shape: shape, Data: s}.Node(x.Graph(), x.Dtype())
	first := G.Must(G.Slice(x, nil, nil, nil, G.S(0, dim/2)))
	second := G.Must(G.Slice(x, nil, nil, nil, G.S(dim/2, dim)))
	swapped, err := G.Concat(3, second, first)
	if err != nil {
		return nil, err
	}
	return G.Add(G.Must(G.HadamardProd(x, cos)), G.Must(G.HadamardProd(swapped, sin)))
}

func TestRoPE(t *testing.T) {
	for _, interleaved := range []bool{false, true} {
		cfg := ops.RoPEConfig{Interleaved: interleaved}
		ropeCase(cfg, []int{0}, 1, 1, 1, 2).check(t)
		ropeCase(cfg, []int{0}, 2, 5, 3, 8).check(t)
		ropeCase(cfg, []int{1000}, 1, 3, 2, 64).check(t)
		ropeCase(cfg, []int{7, 0, 59}, 3, 4, 2, 6).check(t)
		ropeCase(ops.RoPEConfig{Interleaved: interleaved, Dim: 4, Base: 500000}, []int{3}, 2, 3, 2, 9).check(t)
		ropeCase(cfg, []int{5}, 2, 59, 3, 118).check(t)
	}
}

// A table holds 2¹⁷ positions of this width; the positions beyond it are computed one by one.
func TestRoPEFarPositions(t *testing.T) {
	const last = 1<<31 - 4
	cfg := ops.RoPEConfig{}
	shape := []int{3, 4, 1, 128}
	start := []int{last, 1<<17 - 2, 0}
	c := ropeCase(cfg, start, shape...)
	got := optest.Graph{Inputs: c.inputs, Build: c.build}.Run(t, tensor.Float32)
	optest.Within(t, "far", narrow(got), c.naive(c.data32()), c.want(c.data32wide()), 2, 1e-6)
}

func TestRoPEScaling(t *testing.T) {
	const dim = 16
	// The 8 pairs' angles with YaRN of factor 8 over a base of 10000 and 128 original positions: the pair that turns 32
	// times is −0.39 → low 0, the one that turns once 2.62 → high 3.
	ramp := func(i int) float64 { return min(1, float64(i)/3) }
	for _, c := range []struct {
		scaling   ops.RoPEScaling
		theta     func(i int) float64
		amplitude float64
	}{
		{
			ops.RoPEScaling{Kind: ops.RoPEScaleLinear, Factor: 4},
			func(i int) float64 { return ropeTheta(ops.RoPEConfig{}, dim, i) / 4 }, 1,
		}, {
			ops.RoPEScaling{Kind: ops.RoPEScaleNTK, Factor: 4},
			func(i int) float64 {
				return ropeTheta(ops.RoPEConfig{Base: 10000 * math.Pow(4, 16./14)}, dim, i)
			}, 1,
		}, {
			ops.RoPEScaling{Kind: ops.RoPEScaleYaRN, Factor: 8, OriginalSeq: 128},
			func(i int) float64 {
				return ropeTheta(ops.RoPEConfig{}, dim, i) * (ramp(i)/8 + 1 - ramp(i))
			}, 0.1*math.Log(8) + 1,
		}, {
			ops.RoPEScaling{Kind: ops.RoPEScaleYaRN, Factor: 8, OriginalSeq: 128, BetaFast: 4, BetaSlow: 0.25, AttentionFactor: 1.5},
			func(i int) float64 { // the pair that turns 4 times is 1.41 → low 1, 0.25 times 3.82 → high 4
				r := min(1, max(0, float64(i-1)/3))
				return ropeTheta(ops.RoPEConfig{}, dim, i) * (r/8 + 1 - r)
			}, 1.5,
		},
	} {
		cfg := ops.RoPEConfig{Scaling: c.scaling}
		shape := []int{1, 3, 2, dim}
		n := ropeCase(cfg, []int{200}, shape...)
		n.name = fmt.Sprintf("%+v", c.scaling)
		n.plain = nil
		n.want = func(in [][]float64) []float64 { return refRoPE(in[0], shape, []int{200}, cfg, c.theta, c.amplitude) }
		n.naive = func(in [][]float32) []float32 { return refRoPE(in[0], shape, []int{200}, cfg, c.theta, c.amplitude) }
		n.check(t)
	}
}

// The highest frequency stays, the lowest is divided by the factor: what the exponent of the NTK-aware base is chosen for.
func TestRoPENTKEnds(t *testing.T) {
	const dim, factor = 64, 8
	base := 10000 * math.Pow(factor, float64(dim)/(dim-2))
	require.InDelta(t, ropeTheta(ops.RoPEConfig{}, dim, dim/2-1)/factor, ropeTheta(ops.RoPEConfig{Base: base}, dim, dim/2-1), 1e-12)
}

// The product of a rotated query and a rotated key depends on the distance alone.
func TestRoPEIsRelative(t *testing.T) {
	q := optest.Input{Name: "x", Shape: []int{1, 1, 1, 32}, Data: optest.Normal[float64](1, 32, 1)}
	k := optest.Input{Name: "x", Shape: []int{1, 1, 1, 32}, Data: optest.Normal[float64](2, 32, 1)}
	at := func(x optest.Input, pos int) []float64 {
		pos0 := optest.Input{Name: "pos", Ints: []int{pos}}
		return optest.Graph{Inputs: []optest.Input{x, pos0}, Build: func(in []*G.Node) (*G.Node, error) {
			return ops.RoPE(in[0], in[1], ops.RoPEConfig{})
		}}.Run(t, tensor.Float64)
	}
	dot := func(a, b []float64) (s float64) {
		for i := range a {
			s += a[i] * b[i]
		}
		return s
	}
	want := dot(at(q, 10), at(k, 3))
	for _, shift := range []int{1, 97, 4096} {
		require.InDelta(t, want, dot(at(q, 10+shift), at(k, 3+shift)), 1e-9)
	}
}

func TestRoPEPositionMovesOnByLet(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 1, 1, 1, 8)
	pos := G.NewScalar(g, tensor.Int, G.WithName("pos"), G.WithValue(0))
	y, err := ops.RoPE(x.Node(g, tensor.Float64), pos, ops.RoPEConfig{})
	require.NoError(t, err)
	var out G.Value
	G.Read(y, &out)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	for p := range 300 {
		require.NoError(t, G.Let(pos, p))
		require.NoError(t, vm.RunAll())
		want := refRoPE(x.Data, x.Shape, []int{p}, ops.RoPEConfig{}, func(i int) float64 { return ropeTheta(ops.RoPEConfig{}, 8, i) }, 1)
		optest.Close(t, fmt.Sprint("position ", p), optest.Values(t, out), want, 1e-12)
		vm.Reset()
	}
}

func TestRoPEPositionOutOfRange(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 2, 3, 1, 4).Node(g, tensor.Float32)
	n, err := ops.RoPE(x, optest.Input{Name: "pos", Shape: []int{2}, Ints: []int{0, 0}}.Node(g, tensor.Float32), ops.RoPEConfig{})
	require.NoError(t, err)
	for _, pos := range [][]int{{0, -1}, {1<<31 - 2, 0}} {
		_, err = n.Op().Do(x.Value(), tensor.New(tensor.WithBacking(pos)))
		require.ErrorContains(t, err, "for a sequence of 3, want positions from 0 to 2147483647")
	}
	_, err = n.Op().Do(x.Value(), tensor.New(tensor.WithBacking([]int{1, 2, 3})))
	require.ErrorContains(t, err, "got 3 positions, want 1 or 2")
	wrongSize(t, n)
}

// Many goroutines need a table at once, each further than the one before.
func TestRoPETablesGrowConcurrently(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 1, 1, 1, 8)
	pos := G.NewScalar(g, tensor.Int, G.WithName("pos"), G.WithValue(0))
	cfg := ops.RoPEConfig{Base: 12345}
	y, err := ops.RoPE(x.Node(g, tensor.Float64), pos, cfg)
	require.NoError(t, err)
	in, _ := op.New[float64](tensor.Shape{1, 1, 1, 8})
	copy(op.Memory[float64](in), x.Data)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for p := i; p < 2000; p += 97 {
				v := G.I(p)
				got, err := y.Op().Do(in, &v)
				if err != nil {
					t.Error(err)
					return
				}
				want := refRoPE(x.Data, x.Shape, []int{p}, cfg, func(i int) float64 { return ropeTheta(cfg, 8, i) }, 1)
				if e, _ := optest.MaxError(op.Memory[float64](got.(*tensor.Dense)), want); !(e <= 1e-12) {
					t.Errorf("position %d: error %v", p, e)
				}
			}
		})
	}
	wg.Wait()
}

// More configurations than tables are kept for.
func TestRoPEManyConfigurations(t *testing.T) {
	x := optest.Seeded("x", 1, 1, 2, 1, 4)
	for round := range 2 {
		for i := range 40 {
			cfg := ops.RoPEConfig{Base: 1000 + float64(i)}
			got := optest.Graph{Inputs: []optest.Input{x, {Name: "pos", Ints: []int{round}}}, Build: func(in []*G.Node) (*G.Node, error) {
				return ops.RoPE(in[0], in[1], cfg)
			}}.Run(t, tensor.Float64)
			want := refRoPE(x.Data, x.Shape, []int{round}, cfg, func(i int) float64 { return ropeTheta(cfg, 4, i) }, 1)
			optest.Close(t, fmt.Sprint(cfg.Base), got, want, 1e-12)
		}
	}
}

func TestRoPEHashes(t *testing.T) {
	yarn := ops.RoPEScaling{Kind: ops.RoPEScaleYaRN, Factor: 2, OriginalSeq: 8}
	variants := []ops.RoPEConfig{{}, {Base: 500}, {Dim: 4}, {Interleaved: true}}
	for _, edit := range []func(*ops.RoPEScaling){
		func(*ops.RoPEScaling) {},
		func(s *ops.RoPEScaling) { *s = ops.RoPEScaling{Kind: ops.RoPEScaleLinear, Factor: 2} },
		func(s *ops.RoPEScaling) { *s = ops.RoPEScaling{Kind: ops.RoPEScaleNTK, Factor: 2} },
		func(s *ops.RoPEScaling) { s.Factor = 3 },
		func(s *ops.RoPEScaling) { s.OriginalSeq = 9 },
		func(s *ops.RoPEScaling) { s.BetaFast = 31 },
		func(s *ops.RoPEScaling) { s.BetaSlow = 2 },
		func(s *ops.RoPEScaling) { s.AttentionFactor = 1.25 },
	} {
		s := yarn
		edit(&s)
		variants = append(variants, ops.RoPEConfig{Scaling: s})
	}
	var builds []func(in []*G.Node) (*G.Node, error)
	for _, cfg := range variants {
		builds = append(builds, func(in []*G.Node) (*G.Node, error) { return ops.RoPE(in[0], in[1], cfg) })
	}
	checkHashes(t, []optest.Input{optest.Seeded("x", 1, 1, 2, 1, 8), {Name: "pos", Ints: []int{0}}}, true, builds...)
}

func TestRoPEErrors(t *testing.T) {
	g := G.NewGraph()
	x := node(g, "x", 2, 3, 4, 6)
	pos := nodeOf(g, tensor.Int, "pos", 2)
	call := func(x, pos *G.Node, cfg ops.RoPEConfig) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.RoPE(x, pos, cfg) }
	}
	scaled := func(s ops.RoPEScaling) func() (*G.Node, error) { return call(x, pos, ops.RoPEConfig{Scaling: s}) }
	checkErrors(t, "ops.RoPE", []buildError{
		{"nil x", call(nil, pos, ops.RoPEConfig{}), "x: got a nil node"},
		{"nil pos", call(x, nil, ops.RoPEConfig{}), "pos: got a nil node"},
		{"graphs", call(x, nodeOf(G.NewGraph(), tensor.Int, "pos", 2), ops.RoPEConfig{}), "got nodes of two graphs"},
		{"rank", call(node(g, "flat", 2, 24), pos, ops.RoPEConfig{}), "got shape (2, 24) of rank 2, want rank 4"},
		{"integers", call(nodeOf(g, tensor.Int, "ids", 2, 3, 4, 6), pos, ops.RoPEConfig{}), "x: got dtype int"},
		{"float positions", call(x, node(g, "fpos", 2), ops.RoPEConfig{}), "pos: got dtype float32, want int"},
		{"positions", call(x, nodeOf(g, tensor.Int, "pos3", 3), ops.RoPEConfig{}), "pos: got shape (3), want (2)"},
		{"matrix of positions", call(x, nodeOf(g, tensor.Int, "pos23", 2, 3), ops.RoPEConfig{}), "want rank 0 or 1"},
		{"base", call(x, pos, ops.RoPEConfig{Base: -1}), "Base: got -1"},
		{"base NaN", call(x, pos, ops.RoPEConfig{Base: math.NaN()}), "Base: got NaN"},
		{"base infinite", call(x, pos, ops.RoPEConfig{Base: math.Inf(1)}), "Base: got +Inf"},
		{"odd dim", call(x, pos, ops.RoPEConfig{Dim: 3}), "Dim: got 3, want an even number from 2 to headDim 6"},
		{"large dim", call(x, pos, ops.RoPEConfig{Dim: 8}), "Dim: got 8"},
		{"negative dim", call(x, pos, ops.RoPEConfig{Dim: -2}), "Dim: got -2"},
		{"odd head", call(node(g, "odd", 2, 3, 4, 5), pos, ops.RoPEConfig{}), "Dim: got 5"},
		{"kind", scaled(ops.RoPEScaling{Kind: 9}), "Scaling.Kind: got RoPEScalingKind(9)"},
		{"factor without kind", scaled(ops.RoPEScaling{Factor: 2}), "want every field 0 with Kind none"},
		{"no factor", scaled(ops.RoPEScaling{Kind: ops.RoPEScaleLinear}), "Scaling.Factor: got 0, want a number of at least 1"},
		{"factor NaN", scaled(ops.RoPEScaling{Kind: ops.RoPEScaleNTK, Factor: math.NaN()}), "Scaling.Factor: got NaN"},
		{"beta of ntk", scaled(ops.RoPEScaling{Kind: ops.RoPEScaleNTK, Factor: 2, BetaFast: 3}), "want only Factor with Kind ntk"},
		{"ntk of one pair", call(x, pos, ops.RoPEConfig{Dim: 2, Scaling: ops.RoPEScaling{Kind: ops.RoPEScaleNTK, Factor: 2}}), "Dim: got 2, want at least 4"},
		{"no length", scaled(ops.RoPEScaling{Kind: ops.RoPEScaleYaRN, Factor: 2}), "Scaling.OriginalSeq: got 0"},
		{"betas", scaled(ops.RoPEScaling{Kind: ops.RoPEScaleYaRN, Factor: 2, OriginalSeq: 8, BetaSlow: 40}), "got BetaFast 32 and BetaSlow 40"},
		{"attention", scaled(ops.RoPEScaling{Kind: ops.RoPEScaleYaRN, Factor: 2, OriginalSeq: 8, AttentionFactor: -1}), "Scaling.AttentionFactor: got -1"},
	})
}

func TestRoPEAllocs(t *testing.T) {
	checkAllocs(t, ropeCase(ops.RoPEConfig{}, []int{0}, 1, 2, 1, 8), ropeCase(ops.RoPEConfig{}, []int{0}, 4, 64, 8, 64))
}

func ExampleRoPE() {
	g := G.NewGraph()
	x := G.NewTensor(g, tensor.Float32, 4, G.WithName("x"), G.WithShape(1, 2, 1, 2),
		G.WithValue(tensor.New(tensor.WithShape(1, 2, 1, 2), tensor.WithBacking([]float32{1, 0, 1, 0}))))
	pos := G.NewScalar(g, tensor.Int, G.WithName("pos"), G.WithValue(0))
	y, err := ops.RoPE(x, pos, ops.RoPEConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	var out G.Value
	G.Read(y, &out)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	// The second token stands at position 1 and is turned by one radian.
	fmt.Printf("%.3f\n", out.Data())
	// Output: [1.000 0.000 0.540 0.841]
}

func BenchmarkRoPE(b *testing.B) {
	for _, seq := range []int{1, 1024} {
		for _, interleaved := range []bool{false, true} {
			b.Run(fmt.Sprintf("seq=%d/heads=12/d=64/interleaved=%v", seq, interleaved), func(b *testing.B) {
				benchmarkDo(b, ropeCase(ops.RoPEConfig{Interleaved: interleaved}, []int{0}, 1, seq, 12, 64))
			})
		}
	}
}
