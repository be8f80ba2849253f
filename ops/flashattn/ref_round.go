package flashattn

import (
	"math"

	"stheno/internal/kernel"
)

// operands are the numbers that a Precision multiplies, in plain loops and float64, where codes times their scale are exact.
type operands struct {
	q, k Heads[float64] // in scores
	v    Heads[float64]
	// gq and gk multiply dS.
	gq, gk Heads[float64]
	mean   []float64 // μ of segment s and key head h at (s·kvHeads + h)·d; nil for none
}

func (p *problem[T]) plainOperands() operands {
	float64s := func(x Heads[T]) Heads[float64] {
		to := Contiguous(make([]float64, x.size()), x.Batch, x.Seq, x.Heads, x.Dim)
		for b := range x.Batch {
			for i := range x.Seq {
				for h := range x.Heads {
					for c, v := range x.row(b, i, h) {
						to.row(b, i, h)[c] = float64(v)
					}
				}
			}
		}
		return to
	}
	r := operands{q: float64s(p.q), k: float64s(p.k), v: float64s(p.v)}
	bfloat16 := func(x []float64) {
		for i, v := range x {
			x[i] = float64(kernel.BFloat16Value(kernel.BFloat16Bits(float32(v))))
		}
	}
	switch p.Precision {
	case BFloat16:
		bfloat16(r.q.Data)
		bfloat16(r.k.Data)
		bfloat16(r.v.Data)
		r.gq, r.gk = r.q, r.k
	case Int8:
		bfloat16(r.v.Data)
		r.gq, r.gk = float64s(p.q), float64s(p.k)
		r.mean = make([]float64, len(p.segs)*p.k.Heads*p.k.Dim)
		for s, seg := range p.segs {
			for h := range p.k.Heads {
				mean := r.mean[(s*p.k.Heads+h)*p.k.Dim:][:p.k.Dim]
				plainMean(mean, &r.k, seg, h)
				for j := seg.k0; j < seg.k1; j++ {
					plainRound(r.k.row(seg.batch, j, h), mean)
				}
			}
			for h := range p.q.Heads {
				for i := seg.q0; i < seg.q1; i++ {
					plainRound(r.q.row(seg.batch, i, h), make([]float64, p.q.Dim))
				}
			}
		}
	default:
		r.gq, r.gk = r.q, r.k
	}
	return r
}

// plainMean is the mean of the finite keys of a head, summed in float32 from the first to the last.
func plainMean(mean []float64, k *Heads[float64], seg segment, h int) {
	sum, n := make([]float32, len(mean)), 0
	for j := seg.k0; j < seg.k1; j++ {
		row, bad := k.row(seg.batch, j, h), 0.0
		for _, x := range row {
			bad += float64(float32(x)) * 0
		}
		if bad != 0 { // a NaN
			continue
		}
		n++
		for c, x := range row {
			sum[c] += float32(x)
		}
	}
	bad := false
	for c := range mean {
		mean[c] = float64(sum[c] * (1 / float32(max(n, 1))))
		bad = bad || math.IsNaN(mean[c]) || math.IsInf(mean[c], 0)
	}
	if bad {
		clear(mean)
	}
}

// plainRound replaces a row less mean by codes times their scale.
func plainRound(row, mean []float64) {
	var largest float32
	bad := false
	for c, x := range row {
		y := float32(x) - float32(mean[c])
		row[c] = float64(y)
		bad = bad || math.IsNaN(row[c]) || math.IsInf(row[c], 0)
		largest = max(largest, float32(math.Abs(row[c])))
	}
	largest = max(largest, leastScale)
	scale, inv := largest/127, 127/largest
	for c, x := range row {
		row[c] = float64(scale) * math.RoundToEven(float64(float32(x)*inv))
		if bad {
			row[c] = math.NaN()
		}
	}
}
