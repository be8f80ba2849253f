package flashattn

import "math"

// roundingBars is how far results of two ways of multiplying in BF16 may be apart, of which only one rounds its weights: element by
// element, for the problem p with the gradient dOut. A weight, an element of dS and a sum of weights are off by u = 2⁻⁸ of
// themselves at most, so with P of the rounded q and k, and absolute values throughout,
//
//	out: 2u·P|v|    dV: 2u·Pᵀ|dOut|    dS: 2u·|P∘(dP − δ)| + P∘Δδ  with  Δδ = Σ_c |dOut|·(bar of out)
//	dQ: scale·(bar of dS)·|k|          dK: scale·(bar of dS)ᵀ·|q|
type roundingBars struct{ out, dQ, dK, dV []float64 }

func newRoundingBars(p *problem[float32], dOut Heads[float32]) roundingBars {
	const u = 1.0 / (1 << 8)
	scale := 1 / math.Sqrt(float64(p.q.Dim))
	dim, dv, heads := p.q.Dim, p.v.Dim, p.q.Heads
	b := roundingBars{
		make([]float64, p.q.Seq*heads*dv), make([]float64, p.q.Seq*heads*dim),
		make([]float64, p.k.Seq*p.k.Heads*dim), make([]float64, p.k.Seq*p.k.Heads*dv),
	}
	dot := func(x, y []float32) (s float64) {
		for c := range x {
			s += float64(x[c]) * float64(y[c])
		}
		return s
	}
	add := func(to []float64, by float64, x []float32) {
		for c := range to {
			to[c] += by * math.Abs(float64(x[c]))
		}
	}
	for _, seg := range p.segs {
		for i := seg.q0; i < seg.q1; i++ {
			lo, hi := seg.keys(i, p.sight)
			for h := range heads {
				n, q, do := i*heads+h, bf16s(p.q.row(0, i, h)), bf16s(dOut.row(0, i, h))
				w, dP, top, sum, delta, moved := make([]float64, hi-lo), make([]float64, hi-lo), math.Inf(-1), 0.0, 0.0, 0.0
				for j := range w {
					w[j] = scale * dot(q, bf16s(p.k.row(0, lo+j, h/p.group)))
					top = max(top, w[j])
				}
				for j := range w {
					w[j] = math.Exp(w[j] - top)
					sum += w[j]
				}
				out := b.out[n*dv:][:dv]
				for j := range w {
					w[j] /= sum
					v := bf16s(p.v.row(0, lo+j, h/p.group))
					dP[j] = dot(do, v)
					delta += w[j] * dP[j]
					add(out, 2*u*w[j], v)
				}
				for c, x := range out {
					moved += math.Abs(float64(do[c])) * x
				}
				for j := range w {
					key := (lo+j)*p.k.Heads + h/p.group
					dS := scale * w[j] * (2*u*math.Abs(dP[j]-delta) + moved)
					add(b.dV[key*dv:][:dv], 2*u*w[j], do)
					add(b.dQ[n*dim:][:dim], dS, bf16s(p.k.row(0, lo+j, h/p.group)))
					add(b.dK[key*dim:][:dim], dS, q)
				}
			}
		}
	}
	return b
}

// bf16s is x rounded to BF16, to nearest, ties to even.
func bf16s(x []float32) []float32 {
	out := make([]float32, len(x))
	for i, v := range x {
		b := math.Float32bits(v)
		out[i] = math.Float32frombits((b + 0x7fff + b>>16&1) &^ 0xffff)
	}
	return out
}
