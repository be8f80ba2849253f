package flashattn

import (
	"math"

	"stheno/internal/kernel"
)

// roundedWeights is how far results of BF16 in tiles may be off because the weights that multiply values are rounded, each by half a
// step, 2⁻⁸ of itself: the output by 2⁻⁸·Σ_j w_j·|v_j|, and so delta = dOut·out by D = 2⁻⁸·Σ_j w_j·|v_j|·|dOut|, dS_j by w_j·D, and
// what is made of that likewise. It is nil where weights are not rounded.
func (c instance) roundedWeights(v values[float64]) map[string][]float64 {
	a, err := c.cfg.normal(c.d)
	if err != nil {
		panic(err)
	}
	if !roundsAsItGoes[float32](a, a.forwardBlocks(c.d, c.dv), c.bias) {
		return nil
	}
	const step = 0x1p-8
	abs := func(x []float64, scale float64) []float64 {
		to := make([]float64, len(x))
		for i, y := range x {
			to[i] = scale * math.Abs(y)
		}
		return to
	}
	weighed := v
	weighed.v = abs(v.v, step)
	p, _ := build(c, weighed)
	out := solve(p, nil).out

	// Weights times keys are an output, and weights times queries the gradient of values, of attention whose values are keys.
	other := c
	other.dv, other.dLSE = c.d, false
	x := v
	x.v, x.dLSE, x.dOut = abs(v.k, 1), nil, abs(v.q, 1)
	sinks, delta := make([]float64, c.heads), make([]float64, len(out)/c.dv)
	for row := range delta {
		for n := range c.dv {
			delta[row] += out[row*c.dv+n] * math.Abs(v.dOut[row*c.dv+n])
		}
		sinks[row%c.heads] += delta[row]
		kernel.Scale(x.dOut[row*c.d:][:c.d], x.dOut[row*c.d:][:c.d], delta[row]*a.Scale*(1+step))
	}
	p, g := build(other, x)
	want := solve(p, g)
	for i := range want.out {
		want.out[i] *= a.Scale * delta[i/c.d]
	}
	return map[string][]float64{"out": out, "dQ": want.out, "dK": want.dV, "dSinks": sinks}
}

// forgive takes from what is got up to so much of its distance to what is wanted.
func forgive(got []float32, want, most []float64) {
	for i, m := range most {
		if e := float64(got[i]) - want[i]; math.Abs(e) <= m {
			got[i] = float32(want[i])
		} else if e > 0 {
			got[i] -= float32(m)
		} else {
			got[i] += float32(m)
		}
	}
}
