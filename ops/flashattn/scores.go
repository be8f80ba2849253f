package flashattn

import (
	"math"

	"stheno/internal/kernel"
)

// keyScale is the factor that packed keys carry, so that q·k is a logit. The softcap wants the plain product and scales itself.
func (p *problem[T]) keyScale() T {
	if p.Softcap > 0 {
		return 1
	}
	return T(p.Scale)
}

// scores turns the products s of rows t.ra… of st and keys t.ja… into logits. s has the row length ld and begins at
// (t.ra, t.ja). Under Int8, products are those of codes, and logits lower by problem.lift. capped, if not nil, takes a copy of the logits as the softcap leaves them, for its gradient.
func (p *problem[T]) scores(st *stacked, t tile, s []T, ld int, lo, hi []int32, capped []T) {
	rows, n := t.rz-t.ra, t.jz-t.ja
	if p.codes != nil {
		p.decode(st, t, s, ld)
	}
	if p.Softcap > 0 {
		kernel.Softcap(s, ld, rows, n, p.Scale, p.Softcap)
		if capped != nil {
			copy(capped, s[:(rows-1)*ld+n])
		}
	}
	if p.slopes != nil {
		for r := range rows {
			i, h := st.place(t.ra + r)
			p.penalize(s[r*ld:][:n], p.slopes[h], i-st.seg.q0+st.seg.at-t.ja)
		}
	}
	if p.bias.data != nil {
		for r := range rows {
			i, h := st.place(t.ra + r)
			from := p.bias.at(st.seg.batch, h, i) + t.ja
			kernel.Add(s[r*ld:][:n], s[r*ld:][:n], p.bias.data[from:][:n])
		}
	}
	if !t.full {
		mask(s, ld, rows, lo[t.ra:], hi[t.ra:], t.ja, n, T(math.Inf(-1)))
	}
}

// penalize is ALiBi on one row: s[j] −= slope·|at − j|.
func (p *problem[T]) penalize(s []T, slope T, at int) {
	for j := range s {
		s[j] -= slope * T(max(at-j, j-at))
	}
}

// mask sets s[r, j−j0] = x outside lo[r] ≤ j < hi[r].
func mask[T kernel.Float](s []T, ld, rows int, lo, hi []int32, j0, n int, x T) {
	for r := range rows {
		row := s[r*ld:][:n]
		a := min(max(int(lo[r])-j0, 0), n)
		z := min(max(int(hi[r])-j0, a), n)
		fill(row[:a], x)
		fill(row[z:], x)
	}
}

func fill[T kernel.Float](x []T, v T) {
	for i := range x {
		x[i] = v
	}
}

// drop applies dropout to rows of weights: dst = src·z/(1−Dropout) with z ∈ {0, 1} chosen by the weight's place in
// (batch, heads, seqQ, seqKV). dst may be src.
func (p *problem[T]) drop(st *stacked, t tile, dst, src []T, ld int) {
	for r := range t.rz - t.ra {
		i, h := st.place(t.ra + r)
		place := uint64((st.seg.batch*p.q.Heads+h)*p.q.Seq+i)*uint64(p.k.Seq) + uint64(t.ja)
		n := t.jz - t.ja
		kernel.DropoutRow(dst[r*ld:][:n], src[r*ld:][:n], p.key, place, 1-p.Dropout)
	}
}
