package flashattn

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// The table of docs/numerics.md: what precisions add to the error, as the root mean square of the difference from exact attention over that
// of the result. Keys with an offset have one of four standard deviations in each channel, which all of them share.
func TestErrorThatPrecisionsAdd(t *testing.T) {
	type row struct{ out, lse, dQ, dK, dV float64 }
	bars := map[string]map[Precision]row{
		"normal": {
			Float32:  {1e-6, 1e-6, 1e-6, 1e-6, 1e-6},
			BFloat16: {0.0035, 0.0010, 0.0045, 0.0045, 0.0035},
			Int8:     {0.0090, 0.0022, 0.0090, 0.0090, 0.0090},
		},
		"offset": {
			Float32:  {5e-6, 5e-6, 1e-5, 5e-6, 5e-6},
			BFloat16: {0.0080, 0.0090, 0.0120, 0.0090, 0.0080},
			Int8:     {0.0090, 0.0022, 0.0090, 0.0090, 0.0090},
		},
	}
	for name, precisions := range bars {
		c := instance{batch: 1, seqQ: 512, seqKV: 512, heads: 2, kvHeads: 2, d: 64, dv: 64, seed: 3, cfg: Config{Causal: true}}
		v := generate(c)
		if name == "offset" {
			offset := generate(instance{batch: 1, seqQ: 1, seqKV: 1, heads: 2, kvHeads: 2, d: 64, dv: 64, seed: 9}).k
			for i := range v.k {
				v.k[i] = float64(float32(v.k[i] + 4*offset[i%len(offset)]))
			}
		}
		p, g := build(c, v)
		want := solve(p, g)
		for precision, bar := range precisions {
			c.cfg.Precision = precision
			p, g := build(c, v.narrow())
			p.forward()
			p.backward(g)
			lse := 0.0
			for i, x := range p.lse {
				lse += (float64(x) - want.lse[i]) * (float64(x) - want.lse[i])
			}
			got := row{relative(p.out.Data, want.out), math.Sqrt(lse / float64(len(p.lse))), relative(g.dQ.Data, want.dQ), relative(g.dK.Data, want.dK), relative(g.dV.Data, want.dV)}
			t.Logf("%s %v: out %.2g, lse (absolute) %.2g, dQ %.2g, dK %.2g, dV %.2g", name, precision, got.out, got.lse, got.dQ, got.dK, got.dV)
			for what, x := range map[string][2]float64{"out": {got.out, bar.out}, "lse": {got.lse, bar.lse}, "dQ": {got.dQ, bar.dQ}, "dK": {got.dK, bar.dK}, "dV": {got.dV, bar.dV}} {
				require.True(t, x[0] <= x[1], "%s %v: %s: got %.3g, want at most %.3g", name, precision, what, x[0], x[1])
			}
		}
	}
}

// relative is the root mean square of got − want over that of want.
func relative(got []float32, want []float64) float64 {
	var e, w float64
	for i, x := range want {
		e += (float64(got[i]) - x) * (float64(got[i]) - x)
		w += x * x
	}
	return math.Sqrt(e / w)
}

// Codes are off by half a step at most, and what they stand for by a rounding of float32 more.
func TestCodesAreWithinHalfAStep(t *testing.T) {
	c := instance{batch: 2, seqQ: 40, seqKV: 90, heads: 4, kvHeads: 2, d: 37, dv: 8, seed: 5, sigma: 3, cfg: Config{Precision: Int8}}
	p, _ := build(c, generate(c))
	r := p.plainOperands()
	within := func(x, rounded, mean []float64, what string) {
		t.Helper()
		largest := 0.0
		for i := range x {
			largest = max(largest, math.Abs(x[i]-mean[i]))
		}
		for i := range x {
			bar := largest/127/2 + 0x1p-22*largest
			require.True(t, math.Abs(x[i]-mean[i]-rounded[i]) <= bar, "%s: element %d: got %v for %v", what, i, rounded[i], x[i]-mean[i])
		}
	}
	for b := range c.batch {
		for h := range c.heads {
			for i := range c.seqQ {
				within(p.q.row(b, i, h), r.q.row(b, i, h), make([]float64, c.d), "q")
			}
		}
		for h := range c.kvHeads {
			for j := range c.seqKV {
				within(p.k.row(b, j, h), r.k.row(b, j, h), r.mean[(b*c.kvHeads+h)*c.d:], "k")
			}
		}
	}
}

// Each logit is within the bound that Int8's comment states: with windows of one key, the log-sum-exp is the logit.
func TestLogitsOfCodesAreWithinTheirBound(t *testing.T) {
	c := instance{batch: 1, seqQ: 120, seqKV: 120, heads: 2, kvHeads: 1, d: 64, dv: 8, seed: 6, cfg: Config{Window: Window{Limited: true}}}
	v := generate(c)
	exact, _ := build(c, v)
	want := solve(exact, nil)
	c.cfg.Precision = Int8
	p, _ := build(c, v)
	p.forward()
	mean := p.plainOperands().mean
	bigger := false
	for h := range c.heads {
		for i := range c.seqQ {
			var q, k float64
			for n, x := range p.q.row(0, i, h) {
				q, k = max(q, math.Abs(x)), max(k, math.Abs(p.k.row(0, i, 0)[n]-mean[n]))
			}
			s, u, d := q/127, k/127, float64(c.d)
			bar := p.Scale * d * ((s*k+u*q)/2 + s*u/4) * (1 + 0x1p-20)
			e := math.Abs(p.lse[h*c.seqQ+i] - want.lse[h*c.seqQ+i])
			require.True(t, e <= bar, "row %d of head %d: got an error of %v, want at most %v", i, h, e, bar)
			bigger = bigger || e > bar/1000
		}
	}
	require.True(t, bigger, "no logit was rounded")
}
