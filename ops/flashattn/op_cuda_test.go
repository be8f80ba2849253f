//go:build cuda

package flashattn

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/ops"
)

// cardCase is one attention for the card: sizes, and which of a Config's nodes there are.
type cardCase struct {
	batch, seqQ, seqKV, heads, kvHeads, d, dv int
	cfg                                       Config
	sinks, step, lse, joint                   bool
	biasBatch, biasHeads                      int
	cuQ, cuKV                                 []int
}

func (c cardCase) String() string {
	return fmt.Sprintf("%d×%d×%d×%d/%d×%d×%d,%+v,sinks=%t,bias=%d/%d,cu=%v/%v,lse=%t,joint=%t", c.batch, c.seqQ, c.seqKV, c.heads, c.kvHeads,
		c.d, c.dv, c.cfg, c.sinks, c.biasBatch, c.biasHeads, c.cuQ, c.cuKV, c.lse, c.joint)
}

// build makes the graph; the loss weighs all results with fixed numbers.
func (c cardCase) build(t *testing.T, dt tensor.Dtype) (g *G.ExprGraph, in, outs G.Nodes, loss *G.Node) {
	g = G.NewGraph()
	float := func(seed uint64, name string, shape ...int) *G.Node {
		n := optest.Seeded(name, seed, shape...).Node(g, dt)
		in = append(in, n)
		return n
	}
	var q, k, v *G.Node
	size := ops.QKV{Batch: c.batch, Seq: c.seqQ, Heads: c.heads, KVHeads: c.kvHeads, HeadDim: c.d}
	if c.joint {
		q = float(1, "qkv", size.Size())
	} else {
		q = float(1, "q", c.batch, c.seqQ, c.heads, c.d)
		k, v = float(2, "k", c.batch, c.seqKV, c.kvHeads, c.d), float(3, "v", c.batch, c.seqKV, c.kvHeads, c.dv)
	}
	cfg := c.cfg
	if c.sinks {
		cfg.Sinks = float(4, "sinks", c.heads)
	}
	if c.biasBatch > 0 {
		cfg.Bias = float(5, "bias", c.biasBatch, c.biasHeads, c.seqQ, c.seqKV)
	}
	lengths := func(name string, cu []int) *G.Node {
		if cu == nil {
			return nil
		}
		return optest.Input{Name: name, Shape: []int{len(cu)}, Ints: cu}.Node(g, dt)
	}
	cfg.CuSeqlensQ, cfg.CuSeqlensKV = lengths("cuQ", c.cuQ), lengths("cuKV", c.cuKV)
	if c.step {
		cfg.Step = G.NewScalar(g, tensor.Int, G.WithName("step"), G.WithValue(3))
	}
	if c.joint {
		out, err := AttendQKV(q, size, cfg)
		require.NoError(t, err)
		outs = G.Nodes{out}
	} else if c.lse {
		out, lse, err := AttendLSE(q, k, v, cfg)
		require.NoError(t, err)
		outs = G.Nodes{out, lse}
	} else {
		out, err := Attend(q, k, v, cfg)
		require.NoError(t, err)
		outs = G.Nodes{out}
	}
	for i, o := range outs {
		w := optest.Seeded(fmt.Sprintf("weights%d", i), uint64(90+i), o.Shape()...).Node(g, dt)
		term := G.Must(G.Sum(G.Must(G.HadamardProd(o, w))))
		if loss == nil {
			loss = term
		} else {
			loss = G.Must(G.Add(loss, term))
		}
	}
	return g, in, outs, loss
}

// onCard runs the graph on the card and holds results and gradients to those of Do and Backward.
func (c cardCase) onCard(t *testing.T, dt tensor.Dtype) {
	t.Run(fmt.Sprintf("%v,%v", dt, c), func(t *testing.T) {
		optest.Card(t)
		g, in, outs, loss := c.build(t, dt)
		grads, err := G.Grad(loss, in...)
		require.NoError(t, err)
		got := make([]G.Value, len(outs)+len(grads))
		for i, n := range append(append(G.Nodes{}, outs...), grads...) {
			_, onCard := n.Op().(G.CUDADoer)
			require.True(t, onCard, "%v is not on the card", n.Op())
			G.Read(n, &got[i])
		}
		vm := G.NewTapeMachine(g)
		defer vm.Close()
		require.NoError(t, vm.RunAll())
		first := make([][]float64, len(got))
		for i, v := range got {
			first[i] = optest.Values(t, v)
		}
		want := c.byHand(t, dt)
		require.Len(t, first, len(want))
		for i := range want {
			tol := 4e-6
			if dt == tensor.Float64 {
				tol = 1e-12
			}
			largest := 1.0
			for _, x := range want[i] {
				if !math.IsInf(x, 0) {
					largest = max(largest, math.Abs(x))
				}
			}
			optest.Close(t, fmt.Sprintf("value %d", i), first[i], want[i], tol*largest)
		}
		vm.Reset()
		require.NoError(t, vm.RunAll())
		for i, v := range got {
			require.Equal(t, first[i], optest.Values(t, v), "the same bits in the next run, value %d", i)
		}
	})
}

// byHand are results and gradients by the CPU methods of the attention node.
func (c cardCase) byHand(t *testing.T, dt tensor.Dtype) (all [][]float64) {
	g, in, outs, _ := c.build(t, dt)
	var o *attendOp
	for _, n := range g.AllNodes() {
		if a, ok := n.Op().(*cudaAttend); ok {
			o = a.attendOp
		}
	}
	var values []G.Value
	for _, n := range in {
		values = append(values, n.Value())
	}
	for _, cu := range [][]int{c.cuQ, c.cuKV} {
		if cu != nil {
			values = append(values, tensor.New(tensor.WithBacking(append([]int(nil), cu...))))
		}
	}
	if c.step {
		values = append(values, G.NewI(3))
	}
	values = append(values, op.NewOf(dt, tensor.Shape{2, c.batch, c.heads, c.seqQ}))
	out, err := o.Do(values...)
	require.NoError(t, err)
	d := optest.Values(t, out)
	dOut := op.NewOf(dt, out.Shape())
	var weights []float64
	for i, n := range outs {
		size := n.Shape().TotalSize()
		all, d = append(all, d[:size]), d[size:]
		weights = append(weights, optest.Seeded("", uint64(90+i), size).Data...)
	}
	for i, w := range weights {
		if dt == tensor.Float64 {
			op.Memory[float64](dOut)[i] = w
		} else {
			op.Memory[float32](dOut)[i] = float32(w)
		}
	}
	dIn := make([]*tensor.Dense, len(values))
	for i := range in {
		dIn[i] = op.NewLike(values[i])
	}
	require.NoError(t, o.Backward(values, out, dOut, dIn))
	for _, x := range dIn[:len(in)] {
		all = append(all, optest.Values(t, x))
	}
	return all
}

func TestAttendOnTheCard(t *testing.T) {
	for i, c := range []cardCase{
		{batch: 1, seqQ: 1, seqKV: 1, heads: 1, kvHeads: 1, d: 1, dv: 1},
		{batch: 2, seqQ: 17, seqKV: 33, heads: 2, kvHeads: 1, d: 8, dv: 8, cfg: Config{Causal: true}},
		{batch: 2, seqQ: 33, seqKV: 33, heads: 4, kvHeads: 2, d: 8, dv: 8, cfg: Config{Causal: true}, sinks: true, biasBatch: 1, biasHeads: 4, joint: true},
		{batch: 1, seqQ: 70, seqKV: 97, heads: 4, kvHeads: 2, d: 19, dv: 11, cfg: Config{Causal: true, Window: Sliding(20)}, sinks: true},
		{batch: 1, seqQ: 40, seqKV: 35, heads: 2, kvHeads: 2, d: 16, dv: 72, cfg: Config{Causal: true, ALiBi: true, Softcap: 3}}, // rows that see no key
		{batch: 2, seqQ: 9, seqKV: 66, heads: 2, kvHeads: 1, d: 70, dv: 8, cfg: Config{Window: Window{Limited: true, Left: 5, Right: 30}}, biasBatch: 2, biasHeads: 2},
		{batch: 1, seqQ: 70, seqKV: 70, heads: 1, kvHeads: 1, d: 8, dv: 8, cfg: Config{Causal: true, Window: Sliding(2)}}, // row 64 alone of its tile sees key 63
		{batch: 2, seqQ: 9, seqKV: 12, heads: 2, kvHeads: 1, d: 8, dv: 8, sinks: true, lse: true, biasBatch: 1, biasHeads: 2},
		{batch: 2, seqQ: 7, seqKV: 5, heads: 2, kvHeads: 2, d: 8, dv: 8, cfg: Config{Softcap: 2}, lse: true, biasBatch: 2, biasHeads: 1},
		{batch: 1, seqQ: 5, seqKV: 9, heads: 1, kvHeads: 1, d: 130, dv: 200, lse: true, biasBatch: 1, biasHeads: 1},
		{batch: 2, seqQ: 9, seqKV: 40, heads: 4, kvHeads: 2, d: 8, dv: 12, cfg: Config{Causal: true, Dropout: 0.3, Seed: 5}, step: true, sinks: true},
		{batch: 1, seqQ: 37, seqKV: 37, heads: 2, kvHeads: 1, d: 8, dv: 8, cfg: Config{Causal: true}, cuQ: []int{0, 5, 5, 30}, lse: true},
		{batch: 1, seqQ: 11, seqKV: 40, heads: 2, kvHeads: 2, d: 8, dv: 40, cfg: Config{ALiBi: true, Dropout: 0.1, Softcap: 4, Window: Sliding(9)},
			cuQ: []int{0, 4, 11}, cuKV: []int{0, 1, 40}, sinks: true, biasBatch: 1, biasHeads: 1},
	} {
		c.onCard(t, tensor.Float32)
		if i%2 == 0 || c.cfg.Dropout > 0 || c.cuQ != nil {
			c.onCard(t, tensor.Float64)
		}
	}
}

// Attention in BF16 and on codes is that of the rounded numbers: on tensor cores within the roundings of what multiplies there, weights,
// dOut and gradients of logits, each by 2⁻⁹ of itself on average; elsewhere within roundings of its own numbers.
func TestNarrowPrecisionOnTheCard(t *testing.T) {
	for i, c := range []cardCase{
		{batch: 1, seqQ: 1, seqKV: 1, heads: 1, kvHeads: 1, d: 1, dv: 1},
		{batch: 2, seqQ: 70, seqKV: 97, heads: 4, kvHeads: 2, d: 19, dv: 35, cfg: Config{Causal: true, ALiBi: true}, sinks: true, lse: true},
		{batch: 1, seqQ: 40, seqKV: 35, heads: 2, kvHeads: 2, d: 64, dv: 72, cfg: Config{Causal: true, Softcap: 3}, biasBatch: 1, biasHeads: 2}, // rows that see no key
		{batch: 1, seqQ: 5, seqKV: 9, heads: 1, kvHeads: 1, d: 130, dv: 200, lse: true, biasBatch: 1, biasHeads: 1},
		{batch: 2, seqQ: 9, seqKV: 40, heads: 4, kvHeads: 2, d: 8, dv: 12, cfg: Config{Causal: true, Dropout: 0.3, Seed: 5}, step: true, sinks: true},
		{batch: 1, seqQ: 37, seqKV: 40, heads: 2, kvHeads: 1, d: 8, dv: 8, cfg: Config{Causal: true}, cuQ: []int{0, 5, 5, 30}, cuKV: []int{0, 7, 9, 40}, lse: true},
	} {
		for _, c.cfg.Precision = range roundings {
			c.onCardRounded(t, tensor.Float32)
			if i%2 == 0 {
				c.onCardRounded(t, tensor.Float64)
			}
		}
	}
}

// On a card of compute capability 9.0, BF16 goes to warpgroups where they take the problem.
func TestWarpgroupsOnTheCard(t *testing.T) {
	optest.Card(t)
	path := os.Getenv(cudamodules.LibraryVar)
	if !filepath.IsAbs(path) {
		t.Skip("a real card does not say what it has launched")
	}
	emulator.Become(t, path, 90)
	for _, c := range []struct {
		cardCase
		kernel string
	}{
		{cardCase{batch: 2, seqQ: 70, seqKV: 97, heads: 2, kvHeads: 1, d: 19, dv: 35, cfg: Config{Causal: true}, sinks: true, lse: true}, "attention_warpgroups_64_f32"},
		{cardCase{batch: 1, seqQ: 65, seqKV: 200, heads: 1, kvHeads: 1, d: 72, dv: 70, cfg: Config{Window: Sliding(80), Causal: true}}, "attention_warpgroups_128_f32"},
		{cardCase{batch: 1, seqQ: 63, seqKV: 64, heads: 1, kvHeads: 1, d: 8, dv: 8}, "attention_bf16_64_f32"},
		{cardCase{batch: 1, seqQ: 64, seqKV: 64, heads: 1, kvHeads: 1, d: 8, dv: 8, cfg: Config{ALiBi: true}}, "attention_bf16_64_f32"},
	} {
		c.cfg.Precision = BFloat16
		for mode, used := range map[string]bool{"on": true, "off": false} {
			t.Setenv(cudamodules.WarpgroupsVar, mode)
			before := emulator.Launches(path, c.kernel)
			c.onCardRounded(t, tensor.Float32)
			want := before
			if used || c.kernel == "attention_bf16_64_f32" {
				want++
			}
			require.Equal(t, want, emulator.Launches(path, c.kernel), "%s: %v", mode, c.cardCase)
		}
	}
}

// onCardRounded holds results and gradients on the card to the reference.
func (c cardCase) onCardRounded(t *testing.T, dt tensor.Dtype) {
	t.Run(fmt.Sprintf("%v,%v", dt, c), func(t *testing.T) {
		optest.Card(t)
		g, in, outs, loss := c.build(t, dt)
		grads, err := G.Grad(loss, in...)
		require.NoError(t, err)
		got := make([]G.Value, len(outs)+len(grads))
		for i, n := range append(append(G.Nodes{}, outs...), grads...) {
			_, onCard := n.Op().(G.CUDADoer)
			require.True(t, onCard, "%v is not on the card", n.Op())
			G.Read(n, &got[i])
		}
		vm := G.NewTapeMachine(g)
		defer vm.Close()
		require.NoError(t, vm.RunAll())
		bar := 1e-5 // 2⁻²⁴ of each of some hundred terms
		if dt == tensor.Float64 {
			bar = 1e-12 // some thousand roundings of its own
		} else if c.cfg.Dropout == 0 && c.cuQ == nil {
			bar = 0x1p-8
		}
		for i, want := range c.reference(t) {
			var e, size float64
			for n, x := range optest.Values(t, got[i]) {
				if math.IsInf(want[n], 0) {
					require.Equal(t, want[n], x)
					continue
				}
				e += (x - want[n]) * (x - want[n])
				size += want[n] * want[n]
			}
			// Gradients that cancel, as those of one key do, are held to that of a weight.
			require.LessOrEqual(t, math.Sqrt(e), bar*math.Max(math.Sqrt(size), 1), "value %d", i)
		}
	})
}

// reference is what solve says of results and gradients, in float64.
func (c cardCase) reference(t *testing.T) (all [][]float64) {
	_, in, outs, _ := c.build(t, tensor.Float64)
	cfg := c.cfg
	var values []G.Value
	for _, n := range in {
		values = append(values, n.Value())
	}
	for _, cu := range [][]int{c.cuQ, c.cuKV} {
		if cu != nil {
			values = append(values, tensor.New(tensor.WithBacking(append([]int(nil), cu...))))
		}
	}
	if c.step {
		values = append(values, G.NewI(3))
	}
	a, err := cfg.normal(c.d)
	require.NoError(t, err)
	a.HasSinks, a.HasBias, a.HasCuQ, a.HasCuKV, a.HasStep = c.sinks, c.biasBatch > 0, c.cuQ != nil, c.cuKV != nil, c.step
	p, err := fromValues[float64](a, values)
	require.NoError(t, err)
	g := &gradients[float64]{}
	var weights [][]float64
	for i, n := range outs {
		weights = append(weights, optest.Seeded("", uint64(90+i), n.Shape()...).Data)
	}
	g.dOut = Contiguous(weights[0], c.batch, c.seqQ, c.heads, c.dv)
	if c.lse {
		g.dLSE = weights[1]
	}
	r := solve(p, g)
	all = append(all, r.out)
	if c.lse {
		all = append(all, r.lse)
	}
	all = append(all, r.dQ, r.dK, r.dV)
	if c.sinks {
		all = append(all, r.dSinks)
	}
	if c.biasBatch > 0 {
		all = append(all, r.dBias)
	}
	return all
}

// Lengths that are out of range make NaN of the rows that depend on them, and of their gradients.
func TestBadLengthsOnTheCard(t *testing.T) {
	optest.Card(t)
	c := cardCase{batch: 1, seqQ: 4, seqKV: 4, heads: 1, kvHeads: 1, d: 2, dv: 2, cuQ: []int{0, 2, 4}, cuKV: []int{0, 2, 5}}
	g, in, outs, loss := c.build(t, tensor.Float32)
	grads, err := G.Grad(loss, in...)
	require.NoError(t, err)
	var out, dQ G.Value
	G.Read(outs[0], &out)
	G.Read(grads[0], &dQ)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	for _, v := range []G.Value{out, dQ} {
		for i, x := range optest.Values(t, v) {
			require.Equal(t, i >= 4, math.IsNaN(x), "element %d is %v", i, x)
		}
	}
}
