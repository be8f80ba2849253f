package flashattn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/kernel"
	"stheno/internal/optest"
)

// check holds the tiles, in both precisions, to the reference.
//
// In float32 the bar is 2× the error of naive (3× with a softcap and for gradients), and a floor for where naive happens to
// be exact: 8 roundings of the largest result, or as many as a logit has, 2 of its size or √d of its summands', because every
// weight takes over its logit's error.
func (c instance) check(t *testing.T) {
	t.Helper()
	c.checkOn(t, generate(c))
}

// checkOn is check on other numbers.
func (c instance) checkOn(t *testing.T, v values[float64]) {
	t.Helper()
	p, g := build(c, v)
	want := solve(p, g)
	c.checkAlone(t, v, want)

	p.forward()
	p.backward(g)
	for what, pair := range c.results(p, g, want) {
		scale := 1e-12 * (1 + largest(pair.want)) * (1 + c.sigma*c.sigma)
		optest.Close(t, c.name+" float64 "+what, pair.got, pair.want, scale)
	}

	p32, g32 := build(c, v.narrow())
	p32.forward()
	p32.backward(g32)
	_, gn := build(c, v.narrow())
	outN, lseN := naive(p32, gn)
	factor := 2.0
	if c.cfg.Softcap > 0 {
		factor = 3
	}
	pn := *p32
	pn.out.Data, pn.lse = outN, lseN
	plain := c.results32(&pn, gn)
	rounded := c.roundedWeights(v)
	for what, got := range c.results32(p32, g32) {
		k := factor
		if what != "out" && what != "lse" {
			k = 3
		}
		ref := c.results(p, g, want)[what].want
		floor := 0x1p-24 * (1 + largest(ref)) * max(8, c.logits(want), math.Sqrt(float64(c.d)))
		if c.searched && what != "out" && what != "lse" {
			k, floor = 4*k, 4*floor
		}
		forgive(got, ref, rounded[what])
		if what == "dQ" || what == "dK" || what == "dBias" {
			c.requireCancelled(t, what, got, plain[what], ref, floor)
		}
		optest.Within(t, c.name+" float32 "+what, got, plain[what], ref, k, floor)
	}
}

// requireCancelled holds elements whose gradient is 0 to what cancellation may leave, or to the floor of a few roundings, and takes them out of the
// comparison with naive, which has no error there. Of 0 the reference, of float64, may leave roundings itself, where dropout scales what cancels.
func (c instance) requireCancelled(t *testing.T, what string, got, naive []float32, want []float64, floor float64) {
	t.Helper()
	bar := max(floor, c.cancelled())
	for i, w := range want {
		if !(math.Abs(w) <= 0x1p-45*max(1, c.sigma*c.sigma)) {
			continue
		}
		if e := math.Abs(float64(got[i])); !(e <= bar) {
			t.Fatalf("%s float32 %s: element %d: got %v, want 0 but for cancellation, %.3g", c.name, what, i, got[i], bar)
		}
		got[i], naive[i] = 0, 0
	}
}

// cancelled is what may be left of a gradient of scores that is 0 because its rows see one key each: dP − delta is then the
// difference of two equal sums of dv products. Naive takes both from the same sum; tiles take delta from dOut∘out, in another
// order. Partial sums of i products of N(0, 1) grow like √i and round by u·√i, together dv·u/√2 for each of the two, and the
// rows of a key, or the heads of a bias, add up like a random walk. Four standard deviations, because the largest of many counts.
func (c instance) cancelled() float64 {
	rows := max(c.seqQ*c.heads/c.kvHeads, c.batch*c.heads)
	return 4 * 0x1p-24 * float64(c.dv) * math.Sqrt(float64(rows)) * max(1, c.sigma*c.sigma)
}

// checkAlone holds the forward pass without a backward one, which may take other ways, to the reference.
func (c instance) checkAlone(t *testing.T, v values[float64], want *reference) {
	t.Helper()
	p, _ := build(c, v)
	p.rowMax, p.rowSum = nil, nil
	p.forward()
	optest.Close(t, c.name+" alone out", p.out.Data, want.out, 1e-12*(1+largest(want.out))*(1+c.sigma*c.sigma))
	p32, _ := build(c, v.narrow())
	p32.rowMax, p32.rowSum = nil, nil
	p32.forward()
	pn, _ := build(c, v.narrow())
	out, lse := naive(pn, nil)
	k, size := 2.0, max(8, c.logits(want), math.Sqrt(float64(c.d)))
	if c.cfg.Softcap > 0 {
		k = 3
	}
	forgive(p32.out.Data, want.out, c.roundedWeights(v)["out"])
	optest.Within(t, c.name+" float32 alone out", p32.out.Data, out, want.out, k, 0x1p-24*(1+largest(want.out))*size)
	optest.Within(t, c.name+" float32 alone lse", p32.lse, lse, want.lse, k, 0x1p-24*(1+largest(want.lse))*size)
}

// logits is twice the size of the logits, as far as they are rounded.
func (c instance) logits(want *reference) float64 {
	return 2 * math.Abs(largest(want.lse)-math.Abs(c.raise))
}

type pair struct{ got, want []float64 }

func (c instance) results(p *problem[float64], g *gradients[float64], want *reference) map[string]pair {
	m := map[string]pair{
		"out": {p.out.Data, want.out}, "lse": {p.lse, want.lse},
		"dQ": {g.dQ.Data, want.dQ}, "dK": {g.dK.Data, want.dK}, "dV": {g.dV.Data, want.dV},
	}
	if c.sinks {
		m["dSinks"] = pair{g.dSinks, want.dSinks}
	}
	if c.bias {
		m["dBias"] = pair{g.dBias.data, want.dBias}
	}
	return m
}

func (c instance) results32(p *problem[float32], g *gradients[float32]) map[string][]float32 {
	m := map[string][]float32{"out": p.out.Data, "lse": p.lse, "dQ": g.dQ.Data, "dK": g.dK.Data, "dV": g.dV.Data}
	if c.sinks {
		m["dSinks"] = g.dSinks
	}
	if c.bias {
		m["dBias"] = g.dBias.data
	}
	return m
}

func largest(x []float64) float64 {
	m := 0.0
	for _, v := range x {
		if v < 0 {
			v = -v
		}
		if v > m && v < 1e300 {
			m = v
		}
	}
	return m
}

// features are the axes of Config that combine freely.
const features = 8

// with switches features on by the bits of n.
func (c instance) with(n int) instance {
	on := func(bit int) bool { return n>>bit&1 == 1 }
	c.cfg.Causal = on(0)
	if on(1) {
		c.cfg.Window = Window{Limited: true, Left: c.seqKV / 3, Right: c.seqKV / 5}
	}
	if on(2) {
		c.cfg.Softcap = 1.5
	}
	c.cfg.ALiBi = on(3)
	c.sinks = on(4)
	c.bias = on(5)
	if on(6) {
		c.cfg.Dropout, c.cfg.Seed = 0.3, uint64(n)
	}
	c.dLSE = on(7)
	if c.bias {
		if n&1 == 1 {
			c.biasBatch = c.batch
		}
		if n>>3&1 == 1 {
			c.biasHeads = c.heads
		}
	}
	c.seed = uint64(n)
	c.name = fmt.Sprintf("%s features=%0*b", c.name, features, n)
	return c
}

// onAll runs f with every instruction set that is supported here.
func onAll(t *testing.T, f func(t *testing.T)) {
	for _, isa := range kernel.Supported() {
		t.Run(isa.String(), func(t *testing.T) {
			restore, err := kernel.Use(isa)
			require.NoError(t, err)
			defer restore()
			f(t)
		})
	}
}

func TestEveryCombinationOfFeatures(t *testing.T) {
	onAll(t, func(t *testing.T) {
		for n := range 1 << features {
			instance{name: "tiny", batch: 2, seqQ: 7, seqKV: 9, heads: 4, kvHeads: 2, d: 5, dv: 3}.with(n).check(t)
		}
	})
}

func TestShapesAndFeatures(t *testing.T) {
	shapes := []instance{
		{name: "one", batch: 1, seqQ: 1, seqKV: 1, heads: 1, kvHeads: 1, d: 1, dv: 1},
		{name: "decode", batch: 2, seqQ: 1, seqKV: 97, heads: 6, kvHeads: 2, d: 64, dv: 64},
		{name: "few rows", batch: 1, seqQ: 4, seqKV: 150, heads: 4, kvHeads: 2, d: 17, dv: 40},
		{name: "odd", batch: 1, seqQ: 59, seqKV: 59, heads: 2, kvHeads: 1, d: 59, dv: 17},
		{name: "long keys", batch: 1, seqQ: 33, seqKV: 257, heads: 2, kvHeads: 2, d: 16, dv: 8},
		{name: "long queries", batch: 1, seqQ: 129, seqKV: 31, heads: 3, kvHeads: 3, d: 8, dv: 33},
		{name: "mqa", batch: 2, seqQ: 65, seqKV: 97, heads: 5, kvHeads: 1, d: 40, dv: 40},
		{name: "wide", batch: 1, seqQ: 17, seqKV: 70, heads: 1, kvHeads: 1, d: 256, dv: 255},
		{name: "blocks", batch: 1, seqQ: 130, seqKV: 150, heads: 2, kvHeads: 1, d: 24, dv: 16, cfg: Config{BlockQ: 50, BlockKV: 40}},
		{name: "small blocks", batch: 1, seqQ: 40, seqKV: 50, heads: 1, kvHeads: 1, d: 9, dv: 7, cfg: Config{BlockQ: 1, BlockKV: 1}},
		{name: "packed", batch: 1, seqQ: 97, seqKV: 101, heads: 4, kvHeads: 2, d: 32, dv: 32,
			cuQ: []int{0, 1, 1, 40, 90}, cuKV: []int{0, 3, 10, 40, 100}},
	}
	onAll(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 3))
		for _, s := range shapes {
			for _, n := range append([]int{0, 1<<features - 1}, r.IntN(1<<features), r.IntN(1<<features), r.IntN(1<<features)) {
				s.with(n).check(t)
			}
		}
	})
}

func TestEveryHeadDimension(t *testing.T) {
	for d := 1; d <= maxDim; d++ {
		instance{name: fmt.Sprintf("d=%d", d), batch: 1, seqQ: 9, seqKV: 19, heads: 2, kvHeads: 1, d: d, dv: maxDim + 1 - d,
			seed: uint64(d)}.with(d % 4).check(t)
	}
}

func TestLongRows(t *testing.T) {
	instance{name: "1025", batch: 1, seqQ: 1025, seqKV: 1025, heads: 1, kvHeads: 1, d: 64, dv: 64, cfg: Config{Causal: true}}.check(t)
	instance{name: "1025", batch: 1, seqQ: 200, seqKV: 1025, heads: 2, kvHeads: 1, d: 64, dv: 64}.check(t)
	instance{name: "window", batch: 1, seqQ: 1025, seqKV: 1025, heads: 1, kvHeads: 1, d: 16, dv: 16,
		cfg: Config{Causal: true, Window: Sliding(100)}, sinks: true}.check(t)
}

// Scores of some 10⁴ leave single weights standing; the errors of the scores themselves decide.
func TestLargeScores(t *testing.T) {
	instance{name: "large", batch: 1, seqQ: 33, seqKV: 65, heads: 2, kvHeads: 1, d: 64, dv: 16, sigma: 100}.check(t)
}

// Bias and sinks of 10⁴ are exact in float32, and so are their differences, which alone decide where q·k is next to nothing: naive
// attention rounds none of them, and the tiles must not either.
func TestLargeBiasAndSinks(t *testing.T) {
	onAll(t, func(t *testing.T) {
		instance{name: "raised", batch: 1, seqQ: 40, seqKV: 70, heads: 2, kvHeads: 1, d: 16, dv: 16, sigma: 1e-30, raise: 1e4}.with(1<<4 | 1<<5).check(t)
		instance{name: "lowered", batch: 1, seqQ: 40, seqKV: 70, heads: 2, kvHeads: 1, d: 16, dv: 16, sigma: 1e-30, raise: -1e4}.with(1<<4 | 1<<5 | 1).check(t)
	})
}

// The gradient of the bias has no scale in it, however small that of the scores is.
func TestTinyScale(t *testing.T) {
	c := instance{name: "tiny scale", batch: 1, seqQ: 9, seqKV: 12, heads: 2, kvHeads: 1, d: 4, dv: 3, sinks: true, bias: true}
	c.cfg.Scale = 1e-42
	onAll(t, c.check)
}

// A large sink decides the maximum of its rows, which both passes must round alike. With values and dOut of 1 the outputs add up
// to the weights of the forward pass, and dV to those of the backward pass.
func TestLargeSinkHasTheSameWeightsForwardAndBackward(t *testing.T) {
	c := instance{name: "sink", batch: 1, seqQ: 9, seqKV: 12, heads: 2, kvHeads: 1, d: 4, dv: 1, sinks: true}
	v := generate(c)
	for i := range v.q {
		v.q[i] = 0
		if i%c.d == 0 {
			v.q[i] = 1e5
		}
	}
	for i := range v.k {
		if i%c.d == 0 {
			v.k[i] = 2
		}
	}
	fill(v.v, 1)
	fill(v.dOut, 1)
	v.sinks[0], v.sinks[1] = 1e5, 1e5+0.5
	p, g := build(c, v.narrow())
	p.forward()
	p.backward(g)
	var out, dV float64
	for _, x := range p.out.Data {
		out += float64(x)
	}
	for _, x := range g.dV.Data {
		dV += float64(x)
	}
	require.InEpsilon(t, out, dV, 1e-5)
}
