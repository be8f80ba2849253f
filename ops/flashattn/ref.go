package flashattn

import (
	"math"

	"stheno/internal/kernel"
)

// reference is attention written down: the whole matrix of scores, every sum in float64. It is what the tiles are tested
// against, and names in code what doc.go says in formulas.
//
// For each row i of head h, of the numbers that Precision multiplies:
//
//	x_j = bias + ALiBi + softcap(scale·q·k_j)        for the keys j it sees
//	lse = log(Σ_j e^x_j + e^sink)
//	p_j = e^(x_j − lse)
//	o   = Σ_j z_j·p_j·v_j                            z: 0 or 1/(1−dropout)
//
// and backward, given dO and dLSE:
//
//	dP_j = z_j·dO·v_j,  delta = dO·o − dLSE,  dX_j = p_j·(dP_j − delta),  dS_j = dX_j·(1 − (x_j/softcap)²)
type reference struct {
	operands
	out, lse       []float64
	dQ, dK, dV     []float64
	dSinks, dBias  []float64
	problem        *problem[float64]
	weights, drops []float64 // of one row
	logits, capped []float64
	visible        []bool
}

// solve computes a problem and, if g is not nil, the gradients for g's dOut and dLSE. Results are contiguous.
func solve(p *problem[float64], g *gradients[float64]) *reference {
	n := p.q.Batch * p.q.Heads * p.q.Seq
	r := &reference{
		operands: p.plainOperands(), problem: p, out: make([]float64, n*p.v.Dim), lse: make([]float64, n),
		dQ: make([]float64, n*p.q.Dim), dSinks: make([]float64, p.q.Heads), dBias: make([]float64, len(p.bias.data)),
		dK: make([]float64, p.k.Batch*p.k.Seq*p.k.Heads*p.k.Dim), dV: make([]float64, p.k.Batch*p.k.Seq*p.k.Heads*p.v.Dim),
		weights: make([]float64, p.k.Seq), drops: make([]float64, p.k.Seq), logits: make([]float64, p.k.Seq),
		capped: make([]float64, p.k.Seq), visible: make([]bool, p.k.Seq),
	}
	fill(r.lse, math.Inf(-1))
	for s, seg := range p.segs {
		for h := range p.q.Heads {
			for i := seg.q0; i < seg.q1; i++ {
				r.forward(s, h, i)
				if g != nil {
					r.backward(seg, h, i, g)
				}
			}
		}
	}
	return r
}

func (r *reference) forward(s, h, i int) {
	p, seg := r.problem, r.problem.segs[s]
	q, kvHead := r.q.row(seg.batch, i, h), h/p.group
	lift := 0.0
	if r.mean != nil {
		for c, y := range r.mean[(s*p.k.Heads+kvHead)*p.k.Dim:][:p.k.Dim] {
			lift += float64(float32(p.q.row(seg.batch, i, h)[c])) * y
		}
	}
	lo, hi := seg.keys(i, p.sight)
	top := math.Inf(-1)
	for j := range r.logits {
		r.logits[j], r.capped[j], r.visible[j] = math.Inf(-1), 0, false
		if j < lo || j >= hi {
			continue
		}
		x := lift
		for c, y := range r.k.row(seg.batch, j, kvHead) {
			x += q[c] * y
		}
		x *= p.Scale
		if p.Softcap > 0 {
			x = p.Softcap * math.Tanh(x/p.Softcap)
			r.capped[j] = x / p.Softcap
		}
		if p.slopes != nil {
			x -= p.slopes[h] * math.Abs(float64(i-seg.q0+seg.at-j))
		}
		if p.bias.data != nil {
			x += p.bias.data[p.bias.at(seg.batch, h, i)+j]
		}
		r.logits[j] = x
		r.visible[j] = !math.IsInf(x, -1)
		if !(x <= top) {
			top = x
		}
	}
	at := p.rowAt(seg.batch, h, i)
	clear(r.weights)
	out := r.out[((seg.batch*p.q.Seq+i)*p.q.Heads+h)*p.v.Dim:][:p.v.Dim]
	if math.IsInf(top, -1) {
		return
	}
	if p.sinks != nil {
		top = max(top, p.sinks[h])
	}
	sum := 0.0
	for _, x := range r.logits {
		sum += math.Exp(x - top)
	}
	if p.sinks != nil {
		sum += math.Exp(p.sinks[h] - top)
	}
	r.lse[at] = top + math.Log(sum)
	fill(r.drops, 1)
	if p.Dropout > 0 {
		kernel.DropoutRow(r.drops, r.drops, p.key, uint64(at)*uint64(p.k.Seq), 1-p.Dropout)
	}
	for j, x := range r.logits {
		if !r.visible[j] {
			continue
		}
		r.weights[j] = math.Exp(x - r.lse[at])
		for c, y := range r.v.row(seg.batch, j, kvHead) {
			out[c] += r.weights[j] * r.drops[j] * y
		}
	}
}

// backward adds what row i of head h contributes; forward has just computed it.
func (r *reference) backward(seg segment, h, i int, g *gradients[float64]) {
	p := r.problem
	kvHead, row := h/p.group, (seg.batch*p.q.Seq+i)*p.q.Heads+h
	at := p.rowAt(seg.batch, h, i)
	if math.IsInf(r.lse[at], -1) {
		return
	}
	q, dOut := r.gq.row(seg.batch, i, h), g.dOut.row(seg.batch, i, h)
	delta := 0.0
	for c, y := range r.out[row*p.v.Dim:][:p.v.Dim] {
		delta += y * dOut[c]
	}
	if g.dLSE != nil {
		delta -= g.dLSE[at]
	}
	if p.sinks != nil {
		r.dSinks[h] -= math.Exp(p.sinks[h]-r.lse[at]) * delta
	}
	for j, w := range r.weights {
		if !r.visible[j] {
			continue
		}
		kv := (seg.batch*p.k.Seq+j)*p.k.Heads + kvHead
		dP := 0.0
		for c, y := range r.v.row(seg.batch, j, kvHead) {
			dP += y * dOut[c]
			r.dV[kv*p.v.Dim+c] += w * r.drops[j] * dOut[c]
		}
		ds := w * (dP*r.drops[j] - delta)
		if p.bias.data != nil {
			r.dBias[p.bias.at(seg.batch, h, i)+j] += ds
		}
		ds *= (1 - r.capped[j]*r.capped[j]) * p.Scale
		for c, y := range r.gk.row(seg.batch, j, kvHead) {
			r.dQ[row*p.q.Dim+c] += ds * y
			r.dK[kv*p.q.Dim+c] += ds * q[c]
		}
	}
}
