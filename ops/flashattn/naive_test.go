package flashattn

import (
	"math"
	"math/rand/v2"

	"stheno/internal/kernel"
	"stheno/internal/optest"
)

// instance is one attention problem for tests, in float64; narrow makes the same in float32.
type instance struct {
	// searched is for the fuzzer, which finds gradients beyond the bars of the tables (docs/numerics.md says by how much): it holds them
	// to 1e-12 in float64 and to four times the bars in float32, and outputs to the bars themselves.
	searched                                  bool
	name                                      string
	batch, seqQ, seqKV, heads, kvHeads, d, dv int
	cfg                                       Config // without nodes
	sinks, bias                               bool
	biasBatch, biasHeads                      int
	cuQ, cuKV                                 []int
	dLSE                                      bool
	sigma                                     float64 // of q and k; 0 is 1
	raise                                     float64 // added to sinks and bias
	seed                                      uint64
}

// values holds the numbers of an instance in one precision.
type values[T kernel.Float] struct {
	q, k, v, sinks, bias, dOut, dLSE []T
}

func generate(c instance) values[float64] {
	sigma := c.sigma
	if sigma == 0 {
		sigma = 1
	}
	// Numbers that float32 holds exactly, so that both precisions solve one problem.
	gen := func(seed uint64, n int, sigma float64) []float64 {
		return optest.Float64s(optest.Normal[float32](c.seed*100+seed, n, sigma))
	}
	v := values[float64]{
		q:    gen(1, c.batch*c.seqQ*c.heads*c.d, sigma),
		k:    gen(2, c.batch*c.seqKV*c.kvHeads*c.d, sigma),
		v:    gen(3, c.batch*c.seqKV*c.kvHeads*c.dv, 1),
		dOut: gen(4, c.batch*c.seqQ*c.heads*c.dv, 1),
	}
	if c.sinks {
		v.sinks = gen(5, c.heads, 1)
	}
	if c.bias {
		v.bias = gen(6, max(1, c.biasBatch)*max(1, c.biasHeads)*c.seqQ*c.seqKV, 1)
		r := rand.New(rand.NewPCG(c.seed, 1))
		for i := range v.bias {
			if r.IntN(10) == 0 {
				v.bias[i] = math.Inf(-1)
			}
		}
	}
	for _, x := range [][]float64{v.sinks, v.bias} {
		for i := range x {
			x[i] = float64(float32(x[i] + c.raise))
		}
	}
	if c.dLSE {
		v.dLSE = gen(7, c.batch*c.seqQ*c.heads, 1)
	}
	return v
}

func narrow(x []float64) []float32 {
	if x == nil {
		return nil
	}
	out := make([]float32, len(x))
	for i, v := range x {
		out[i] = float32(v)
	}
	return out
}

func (v values[T]) narrow() values[float32] {
	f := func(x []T) []float32 {
		if x == nil {
			return nil
		}
		return narrow(optest.Float64s(x))
	}
	return values[float32]{f(v.q), f(v.k), f(v.v), f(v.sinks), f(v.bias), f(v.dOut), f(v.dLSE)}
}

// build makes a problem and what its gradients go into.
func build[T kernel.Float](c instance, v values[T]) (*problem[T], *gradients[T]) {
	a, err := c.cfg.normal(c.d)
	if err != nil {
		panic(err)
	}
	p := &problem[T]{attrs: a, sinks: v.sinks}
	p.q = Contiguous(v.q, c.batch, c.seqQ, c.heads, c.d)
	p.k = Contiguous(v.k, c.batch, c.seqKV, c.kvHeads, c.d)
	p.v = Contiguous(v.v, c.batch, c.seqKV, c.kvHeads, c.dv)
	p.out = Contiguous(make([]T, c.batch*c.seqQ*c.heads*c.dv), c.batch, c.seqQ, c.heads, c.dv)
	n := c.batch * c.seqQ * c.heads
	p.lse, p.rowMax, p.rowSum = make([]T, n), make([]T, n), make([]T, n)
	p.segs = segments(c.batch, c.seqQ, c.seqKV)
	if c.cuQ != nil {
		if p.segs, err = packedSegments(c.cuQ, c.cuKV, c.seqQ, c.seqKV); err != nil {
			panic(err)
		}
	}
	g := &gradients[T]{dOut: Contiguous(v.dOut, c.batch, c.seqQ, c.heads, c.dv), dLSE: v.dLSE}
	g.dQ, g.dK, g.dV = p.q, p.k, p.v
	g.dQ.Data, g.dK.Data, g.dV.Data = make([]T, len(v.q)), make([]T, len(v.k)), make([]T, len(v.v))
	if c.sinks {
		g.dSinks = make([]T, c.heads)
	}
	if c.bias {
		p.bias.data = v.bias
		p.bias.shape([]int{max(1, c.biasBatch), max(1, c.biasHeads), c.seqQ, c.seqKV})
		g.dBias = p.bias
		g.dBias.data = make([]T, len(v.bias))
	}
	p.prepare(0)
	return p, g
}

// naive is plain attention in float32, as one would write it: one row of scores at a time, sums from left to right.
func naive(p *problem[float32], g *gradients[float32]) (out, lse []float32) {
	scores, weights, drops := make([]float32, p.k.Seq), make([]float32, p.k.Seq), make([]float32, p.k.Seq)
	capped := make([]float32, p.k.Seq)
	out, lse = make([]float32, len(p.out.Data)), make([]float32, len(p.lse))
	fill(lse, float32(math.Inf(-1)))
	r := p.plainOperands()
	narrowed := func(x Heads[float64]) Heads[float32] {
		return Contiguous(narrow(x.Data), x.Batch, x.Seq, x.Heads, x.Dim)
	}
	scoreQ, scoreK, v, gradQ, gradK := narrowed(r.q), narrowed(r.k), narrowed(r.v), narrowed(r.gq), narrowed(r.gk)
	exp := func(x float32) float32 { return float32(math.Exp(float64(x))) }
	for s, seg := range p.segs {
		for h := range p.q.Heads {
			for i := seg.q0; i < seg.q1; i++ {
				q, kvHead, b := scoreQ.row(seg.batch, i, h), h/p.group, seg.batch
				var lift float32
				if r.mean != nil {
					for c, y := range r.mean[(s*p.k.Heads+kvHead)*p.k.Dim:][:p.k.Dim] {
						lift += p.q.row(b, i, h)[c] * float32(y)
					}
				}
				at := p.rowAt(b, h, i)
				lo, hi := seg.keys(i, p.sight)
				top := float32(math.Inf(-1))
				for j := lo; j < hi; j++ {
					x := lift
					for c, y := range scoreK.row(b, j, kvHead) {
						x += q[c] * y
					}
					x *= float32(p.Scale)
					if p.Softcap > 0 {
						t := float32(math.Tanh(float64(x / float32(p.Softcap))))
						capped[j] = t
						x = float32(p.Softcap) * t
					}
					if p.slopes != nil {
						x -= float32(Slopes(p.q.Heads)[h]) * float32(math.Abs(float64(i-seg.q0+seg.at-j)))
					}
					if p.bias.data != nil {
						x += p.bias.data[p.bias.at(b, h, i)+j]
					}
					scores[j] = x
					top = max(top, x)
				}
				if math.IsInf(float64(top), -1) {
					continue
				}
				if p.sinks != nil {
					top = max(top, p.sinks[h])
				}
				var sum float32
				for j := lo; j < hi; j++ {
					weights[j] = exp(scores[j] - top)
					sum += weights[j]
				}
				if p.sinks != nil {
					sum += exp(p.sinks[h] - top)
				}
				lse[at] = top + float32(math.Log(float64(sum)))
				o := out[((b*p.q.Seq+i)*p.q.Heads+h)*p.v.Dim:][:p.v.Dim]
				fill(drops, 1)
				if p.Dropout > 0 {
					kernel.DropoutRow(drops, drops, p.key, uint64(at)*uint64(p.k.Seq), 1-p.Dropout)
				}
				for j := lo; j < hi; j++ {
					weights[j] /= sum
					for c, y := range v.row(b, j, kvHead) {
						o[c] += weights[j] * drops[j] * y
					}
				}
				if g == nil {
					continue
				}
				dOut := g.dOut.row(b, i, h)
				var delta float32
				for c, y := range o {
					delta += y * dOut[c]
				}
				if g.dLSE != nil {
					delta -= g.dLSE[at]
				}
				if p.sinks != nil {
					g.dSinks[h] -= exp(p.sinks[h]-top) / sum * delta
				}
				dQ := g.dQ.row(b, i, h)
				for j := lo; j < hi; j++ {
					dK, dV := g.dK.row(b, j, kvHead), g.dV.row(b, j, kvHead)
					var dp float32
					for c, y := range v.row(b, j, kvHead) {
						dp += y * dOut[c]
						dV[c] += weights[j] * drops[j] * dOut[c]
					}
					ds := weights[j] * (dp*drops[j] - delta)
					if g.dBias.data != nil {
						g.dBias.data[g.dBias.at(b, h, i)+j] += ds
					}
					if p.Softcap > 0 {
						ds *= 1 - capped[j]*capped[j]
					}
					ds *= float32(p.Scale)
					for c, y := range gradK.row(b, j, kvHead) {
						dQ[c] += ds * y
						dK[c] += ds * gradQ.row(b, i, h)[c]
					}
				}
			}
		}
	}
	return out, lse
}
