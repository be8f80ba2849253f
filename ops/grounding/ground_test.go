package grounding

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/optest"
	"stheno/internal/parallel"
)

// naive is S = cos/τ in the form, in precision T, one sum after the other. Masks are for one item; nil is all real.
func naive[T kernel.Float](x, y, w []float64, b, nt, np, dt, dp int, c Config, tm, pm []int) []T {
	out := make([]T, b*nt*np)
	for i := range b {
		for t := range nt {
			q := make([]T, dp)
			for j := range dp {
				if w == nil {
					q[j] = T(x[(i*nt+t)*dt+j])
					continue
				}
				for c := range dt {
					q[j] += T(x[(i*nt+t)*dt+c]) * T(w[c*dp+j])
				}
			}
			row := out[(i*nt+t)*np : (i*nt+t+1)*np]
			for p := range np {
				var dot, qq, kk T
				for j := range dp {
					k := T(y[(i*np+p)*dp+j])
					dot, qq, kk = dot+q[j]*k, qq+q[j]*q[j], kk+k*k
				}
				if qq > 0 && kk > 0 {
					row[p] = dot / T(math.Sqrt(float64(qq))*math.Sqrt(float64(kk))) / T(c.Temperature)
				}
			}
			naiveForm(row, c, tm == nil || tm[i*nt+t] != 0, pm, i*np)
		}
	}
	return out
}

func naiveForm[T kernel.Float](row []T, c Config, tokenReal bool, pm []int, at int) {
	var sum T
	for p := range row {
		switch c.Form {
		case Attention:
			row[p] = T(math.Exp(float64(row[p])))
		case Relevance:
			row[p] = T(1 / (1 + math.Exp(-float64(row[p])-c.Bias)))
		}
		if !tokenReal || pm != nil && pm[at+p] == 0 {
			row[p] = 0
		}
		sum += row[p]
	}
	for p := range row {
		if c.Form == Attention && sum > 0 {
			row[p] /= sum
		}
	}
}

var forms = []Config{
	{Temperature: 1}, {Temperature: 0.1}, {Temperature: 0.25, Form: Attention},
	{Temperature: 0.5, Form: Relevance, Bias: -0.5},
}

func ones(n int, zeros ...int) []int {
	m := make([]int, n)
	for i := range m {
		m[i] = 1
	}
	for _, z := range zeros {
		m[z] = 0
	}
	return m
}

func TestGroundAgainstReference(t *testing.T) {
	for _, s := range [][5]int{{1, 1, 1, 1, 1}, {2, 3, 5, 7, 4}, {3, 17, 33, 9, 16}, {1, 59, 97, 64, 65}, {2, 8, 1025, 3, 31}, {2, 81, 131, 5, 64}, {1, 33, 64, 3, 32}} {
		b, nt, np, dt, dp := s[0], s[1], s[2], s[3], s[4]
		x, y, w := optest.Seeded("x", 1, b, nt, dt), optest.Seeded("y", 2, b, np, dp), optest.Seeded("w", 3, dt, dp)
		for _, cfg := range forms {
			for _, masked := range []bool{false, true} {
				in := []optest.Input{x, y, w}
				var tm, pm []int
				if masked {
					tm, pm = ones(b*nt, b*nt-1), ones(b*np, 0, b*np-1)
					in = append(in, optest.Input{Name: "tm", Shape: []int{b, nt}, Ints: tm}, optest.Input{Name: "pm", Shape: []int{b, np}, Ints: pm})
				}
				c := optest.Graph{Inputs: in, Build: func(n []*G.Node) (*G.Node, error) {
					cfg := cfg
					if masked {
						cfg.TokenMask, cfg.PatchMask = n[3], n[4]
					}
					return Ground(n[0], n[1], n[2], cfg)
				}}
				want := naive[float64](x.Data, y.Data, w.Data, b, nt, np, dt, dp, cfg, tm, pm)
				what := fmt.Sprintf("%v/%v/masked=%v", s, cfg.Form, masked)
				optest.Close(t, what, c.Run(t, tensor.Float64), want, 1e-12)
				got32 := c.Run(t, tensor.Float32)
				// Rounding the inputs alone moves a cosine by some ulp; a softmax scales that by 1/τ.
				optest.Within(t, what, got32, optest.Float64s(naive[float32](x.Data, y.Data, w.Data, b, nt, np, dt, dp, cfg, tm, pm)), want, 2, 1e-6/cfg.Temperature)
			}
		}
	}
}

func TestGroundAgainstBuiltInNodes(t *testing.T) {
	x, y := optest.Seeded("x", 1, 6, 8), optest.Seeded("y", 2, 9, 8)
	unit := func(x *G.Node) *G.Node {
		n := G.Must(G.Sqrt(G.Must(G.Sum(G.Must(G.Square(x)), 1))))
		return G.Must(G.BroadcastHadamardDiv(x, n, nil, []byte{1}))
	}
	want := optest.Graph{Inputs: []optest.Input{x, y}, Build: func(n []*G.Node) (*G.Node, error) {
		return G.Mul(unit(n[0]), G.Must(G.Transpose(unit(n[1]))))
	}}
	got := optest.Graph{Inputs: []optest.Input{x, y}, Build: func(n []*G.Node) (*G.Node, error) {
		return Ground(n[0], n[1], nil, Config{})
	}}
	optest.Close(t, "cosine", got.Run(t, tensor.Float64), want.Run(t, tensor.Float64), 1e-13)
}

func TestGroundGradients(t *testing.T) {
	for _, cfg := range forms {
		for _, masked := range []bool{false, true} {
			for _, withW := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v/masked=%v/w=%v", cfg.Form, masked, withW), func(t *testing.T) {
					in := []optest.Input{optest.Seeded("x", 1, 2, 3, 4), optest.Seeded("y", 2, 2, 5, 4)}
					if withW {
						in = append(in, optest.Seeded("w", 3, 4, 4))
					}
					if masked {
						in = append(in, optest.Input{Name: "tm", Shape: []int{2, 3}, Ints: ones(6, 1)},
							optest.Input{Name: "pm", Shape: []int{2, 5}, Ints: ones(10, 3, 9)})
					}
					optest.Graph{Inputs: in, Build: func(n []*G.Node) (*G.Node, error) {
						cfg := cfg
						var w *G.Node
						if withW {
							w = n[2]
						}
						if masked {
							cfg.TokenMask, cfg.PatchMask = n[len(n)-2], n[len(n)-1]
						}
						return Ground(n[0], n[1], w, cfg)
					}}.CheckGradients(t, 1e-6)
				})
			}
		}
	}
}

func TestGroundOfViewsTwoConsumersAndOneNodeTwice(t *testing.T) {
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("x", 1, 4, 3)},
		Build: func(n []*G.Node) (*G.Node, error) {
			xt := G.Must(G.Transpose(n[0], 1, 0))
			s, err := Ground(xt, xt, nil, Config{Temperature: 0.5})
			if err != nil {
				return nil, err
			}
			return G.HadamardProd(s, G.Must(G.Square(s)))
		},
	}.CheckGradients(t, 1e-6)
}

func TestVectorsWithoutDirectionAndOfExtremeLength(t *testing.T) {
	x := optest.Input{Name: "x", Shape: []int{3, 2}, Data: []float64{0, 0, 1e30, 1e30, 1e-25, 0}}
	y := optest.Input{Name: "y", Shape: []int{2, 2}, Data: []float64{1e25, 0, 3e-8, 4e-8}}
	c := optest.Graph{Inputs: []optest.Input{x, y}, Build: func(n []*G.Node) (*G.Node, error) {
		return Ground(n[0], n[1], nil, Config{})
	}}
	h := math.Sqrt(0.5)
	optest.Close(t, "extremes", c.Run(t, tensor.Float32), []float64{0, 0, h, 1.4 * h, 0, 0}, 1e-6)
}

// The same where products go through tiles, which are many rows and tokens: a row of extreme length does not touch the others, nor does NaN.
func TestExtremeRowsAmongMany(t *testing.T) {
	const nt, np, dim = 35, 70, 32
	x, y := optest.Seeded("x", 1, nt, dim), optest.Seeded("y", 2, np, dim)
	scale := func(data []float64, row int, by float64) {
		for i := range dim {
			data[row*dim+i] *= by
		}
	}
	for row, by := range map[int]float64{1: 0, 2: 1e30, 3: 1e-30, 34: math.NaN()} {
		scale(x.Data, row, by)
		scale(y.Data, row, by)
	}
	y.Data[69*dim] = math.Inf(1)
	scale(y.Data, 64, 1e-11)
	for _, dt := range []tensor.Dtype{tensor.Float32, tensor.Float64} {
		got := optest.Graph{Inputs: []optest.Input{x, y}, Build: func(n []*G.Node) (*G.Node, error) {
			return Ground(n[0], n[1], nil, Config{})
		}}.Run(t, dt)
		for i := range nt {
			for j := range np {
				want := 0.0
				var xx, xy, yy float64
				for p := range dim {
					a, b := x.Data[i*dim+p], y.Data[j*dim+p]
					xx, xy, yy = xx+a*a, xy+a*b, yy+b*b
				}
				switch {
				case i == 34 || j == 34 || j == 69:
					want = math.NaN()
				case i != 1 && i != 3 && j != 1 && j != 3:
					want = xy / math.Sqrt(xx) / math.Sqrt(yy)
				}
				optest.Close(t, fmt.Sprintf("%v: token %d, patch %d", dt, i, j), got[i*np+j:][:1], []float64{want}, 1e-6)
			}
		}
	}
}

func TestPaddingMayHoldNaN(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 2, 3)
	y := optest.Seeded("y", 2, 4, 3)
	x.Data[5], y.Data[10] = math.NaN(), math.NaN()
	xn, yn := x.Node(g, tensor.Float64), y.Node(g, tensor.Float64)
	tm := optest.Input{Name: "tm", Shape: []int{2}, Data: []float64{1, 0}}.Node(g, tensor.Float64)
	pm := optest.Input{Name: "pm", Shape: []int{4}, Ints: ones(4, 3)}.Node(g, tensor.Float64)
	s, err := Ground(xn, yn, nil, Config{Form: Attention, TokenMask: tm, PatchMask: pm})
	require.NoError(t, err)
	grads, err := G.Grad(G.Must(G.Sum(G.Must(G.Square(s)))), xn, yn)
	require.NoError(t, err)
	var dx, dy G.Value
	G.Read(grads[0], &dx)
	G.Read(grads[1], &dy)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	for _, v := range []G.Value{s.Value(), dx, dy} {
		for _, f := range optest.Values(t, v) {
			require.False(t, math.IsNaN(f))
		}
	}
	require.Equal(t, []float64{0, 0, 0}, optest.Values(t, dy)[9:])
	require.Equal(t, []float64{0, 0, 0}, optest.Values(t, dx)[3:])
}

func TestConfigReachesTheHash(t *testing.T) {
	g := G.NewGraph()
	x, y := optest.Seeded("x", 1, 2, 4).Node(g, tensor.Float64), optest.Seeded("y", 2, 3, 4).Node(g, tensor.Float64)
	tm := optest.Input{Name: "tm", Shape: []int{2}, Ints: ones(2)}.Node(g, tensor.Float64)
	pm := optest.Input{Name: "pm", Shape: []int{3}, Ints: ones(3)}.Node(g, tensor.Float64)
	v := optest.Seeded("v", 3, 3, 1).Node(g, tensor.Float64)
	seen := map[uint32]string{}
	add := func(what string, n *G.Node, err error) {
		require.NoError(t, err, what)
		require.Empty(t, seen[n.Hashcode()], what)
		seen[n.Hashcode()] = what
	}
	for _, c := range []Config{{}, {Temperature: 0.5}, {Form: Attention}, {Form: Relevance}, {Form: Relevance, Bias: 1}, {TokenMask: tm}, {PatchMask: pm}} {
		n, err := Ground(x, y, nil, c)
		add(fmt.Sprintf("Ground%+v", c), n, err)
		if c.Form == Similarity {
			n, err = Pool(x, y, nil, v, c)
			add(fmt.Sprintf("Pool%+v", c), n, err)
		}
	}
	same, err := Ground(x, y, nil, Config{Temperature: 1})
	require.NoError(t, err)
	require.Equal(t, "Ground"+fmt.Sprintf("%+v", Config{}), seen[same.Hashcode()], "0 means 1")
}

func TestGroundErrors(t *testing.T) {
	g, other := G.NewGraph(), G.NewGraph()
	node := func(shape ...int) *G.Node {
		return G.NewTensor(g, tensor.Float32, len(shape), G.WithShape(shape...), G.WithName(fmt.Sprint("n", shape)))
	}
	x, y, w := node(2, 3, 4), node(2, 5, 6), node(4, 6)
	d := G.NewMatrix(g, tensor.Float64, G.WithShape(4, 6), G.WithName("d"))
	far := G.NewMatrix(other, tensor.Float32, G.WithShape(4, 6), G.WithName("far"))
	for _, c := range []struct {
		x, y, w *G.Node
		cfg     Config
		want    string
	}{
		{nil, y, w, Config{}, "grounding.Ground: tokens: got a nil node, want a node of the graph"},
		{x, y, far, Config{}, "grounding.Ground: tokens (n[2 3 4]) and w (far): got nodes of two graphs, want one"},
		{x, y, d, Config{}, "grounding.Ground: w: got dtype float64, want float32 as in tokens"},
		{x, y, node(6, 4), Config{}, "grounding.Ground: w: got shape (6, 4), want (4, 6)"},
		{x, y, nil, Config{}, "grounding.Ground: patches: got shape (2, 5, 6), want (2, 5, 4)"},
		{x, node(5, 6), w, Config{}, "grounding.Ground: patches: got shape (5, 6) of rank 2, want rank 3"},
		{x, node(3, 5, 6), w, Config{}, "grounding.Ground: patches: got shape (3, 5, 6), want (2, 5, 6)"},
		{node(4), y, w, Config{}, "grounding.Ground: tokens: got shape (4) of rank 1, want rank 2 or 3"},
		{node(2, 0, 4), y, w, Config{}, "grounding.Ground: tokens: got shape (2, 0, 4), want every dimension at least 1"},
		{x, y, w, Config{Temperature: math.NaN()}, "grounding.Ground: Temperature: got NaN, want a positive number, or 0 for 1"},
		{x, y, w, Config{Temperature: -1}, "grounding.Ground: Temperature: got -1, want a positive number, or 0 for 1"},
		{x, y, w, Config{Form: 7}, "grounding.Ground: Form: got Form(7), want similarity, attention or relevance"},
		{x, y, w, Config{Bias: 1}, "grounding.Ground: Bias: got 1 with the form similarity, want 0"},
		{x, y, w, Config{Form: Relevance, Bias: math.Inf(1)}, "grounding.Ground: Bias: got +Inf, want a finite number"},
		{x, y, w, Config{TokenMask: node(3)}, "grounding.Ground: TokenMask: got shape (3), want (2, 3)"},
		{x, y, w, Config{PatchMask: node(2, 3)}, "grounding.Ground: PatchMask: got shape (2, 3), want (2, 5)"},
	} {
		_, err := Ground(c.x, c.y, c.w, c.cfg)
		require.EqualError(t, err, c.want)
	}
}

// tape runs build once in float32 with gradients and returns the output and gradients.
func tape(t testing.TB, in []optest.Input, build func([]*G.Node) (*G.Node, error)) (run func() error, read func() [][]float64) {
	g := G.NewGraph()
	nodes := make([]*G.Node, len(in))
	var wrt G.Nodes
	for i := range in {
		nodes[i] = in[i].Node(g, tensor.Float32)
		if in[i].Ints == nil {
			wrt = append(wrt, nodes[i])
		}
	}
	out, err := build(nodes)
	require.NoError(t, err)
	grads, err := G.Grad(G.Must(G.Sum(G.Must(G.Square(out)))), wrt...)
	require.NoError(t, err)
	vals := make([]G.Value, len(grads)+1)
	G.Read(out, &vals[0])
	for i, n := range grads {
		G.Read(n, &vals[i+1])
	}
	vm := G.NewTapeMachine(g)
	t.Cleanup(func() { vm.Close() })
	return func() error { vm.Reset(); return vm.RunAll() }, func() [][]float64 {
		r := make([][]float64, len(vals))
		for i, v := range vals {
			r[i] = optest.Values(t, v)
		}
		return r
	}
}

func groundings() map[string]func([]*G.Node) (*G.Node, error) {
	m := map[string]func([]*G.Node) (*G.Node, error){
		"Pool": func(n []*G.Node) (*G.Node, error) { return Pool(n[0], n[1], n[2], n[3], Config{Temperature: 0.2}) },
	}
	for _, f := range []Form{Similarity, Attention, Relevance} {
		m[f.String()] = func(n []*G.Node) (*G.Node, error) {
			return Ground(n[0], n[1], n[2], Config{Temperature: 0.2, Form: f})
		}
	}
	return m
}

func inputsFor(name string, b, nt, np, d int) []optest.Input {
	in := []optest.Input{optest.Seeded("x", 1, b, nt, d), optest.Seeded("y", 2, b, np, d), optest.Seeded("w", 3, d, d)}
	if name == "Pool" {
		in = append(in, optest.Seeded("v", 4, b, np, 3))
	}
	return in
}

func TestSameBitsAtAnyThreadCount(t *testing.T) {
	old := parallel.Threads()
	defer parallel.SetThreads(old)
	for name, build := range groundings() {
		for _, dim := range []int{33, 64} {
			run, read := tape(t, inputsFor(name, 2, 65, 301, dim), build)
			var want [][]float64
			for _, n := range []int{1, 2, 3, 8} {
				_, err := parallel.SetThreads(n)
				require.NoError(t, err)
				require.NoError(t, run())
				if want == nil {
					want = read()
				}
				require.Equal(t, want, read(), "%s, width %d, %d threads", name, dim, n)
			}
		}
	}
}

func TestOneGraphOnManyMachines(t *testing.T) {
	for name, build := range groundings() {
		in := inputsFor(name, 2, 9, 37, 8)
		g := G.NewGraph()
		nodes := make([]*G.Node, len(in))
		for i := range in {
			nodes[i] = in[i].Node(g, tensor.Float64)
		}
		out, err := build(nodes)
		require.NoError(t, err)
		o := out.Op().(interface {
			Do(...G.Value) (G.Value, error)
			DiffWRT(int) []bool
		})
		var args []G.Value
		for _, n := range G.Nodes(nodes[:2]) {
			args = append(args, n.Value())
		}
		if name == "Pool" {
			args = append(args, nodes[3].Value())
		}
		var wg sync.WaitGroup
		got := make([][]float64, 4)
		for i := range got {
			wg.Go(func() {
				in := args
				if name == "Pool" {
					in = append(append([]G.Value{}, args...), tensor.New(tensor.Of(tensor.Float64), tensor.WithShape(2, 9)))
				}
				v, err := o.Do(in...)
				if err == nil {
					got[i] = optest.Values(t, v)
				}
			})
		}
		wg.Wait()
		for i := range got {
			require.NotEmpty(t, got[i], name)
			require.Equal(t, got[0], got[i], name)
		}
	}
}

func TestWarmRunsAllocateAConstant(t *testing.T) {
	for name, build := range groundings() {
		var counts []float64
		for _, n := range []int{8, 128} {
			run, _ := tape(t, inputsFor(name, 1, n, 2*n, 16), build)
			require.NoError(t, run())
			counts = append(counts, testing.AllocsPerRun(3, func() { require.NoError(t, run()) }))
		}
		require.Less(t, counts[1], counts[0]+60, "%s: more allocations for a larger graph", name)
	}
}

// Patches that were reshaped after their node was made would be read in the wrong order.
func TestGroundOfPatchesReshapedLater(t *testing.T) {
	g := G.NewGraph()
	tokens, patches := optest.Seeded("tokens", 1, 2, 3).Node(g, tensor.Float32), optest.Seeded("patches", 2, 4, 3).Node(g, tensor.Float32)
	_, err := Ground(tokens, patches, nil, Config{})
	require.NoError(t, err)
	require.NoError(t, patches.Value().(*tensor.Dense).Reshape(3, 4))
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.ErrorContains(t, vm.RunAll(), "got a value of shape (3, 4), want (4, 3)")
}
