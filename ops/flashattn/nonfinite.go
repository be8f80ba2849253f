package flashattn

import (
	"math"

	"stheno/internal/kernel"
)

// A NaN or infinity in a value must not reach rows that do not see it. Products of whole tiles multiply it by the weight 0
// of a masked place, and 0·NaN is NaN. So tiles that hold one go the careful way, element by element, and leave out every
// place whose logit is −∞.

// finite reports whether x holds no NaN and no infinity. It may say no for numbers whose sum overflows, which only costs
// time.
func finite[T kernel.Float](x []T) bool {
	s := float64(kernel.Sum(x))
	return !math.IsNaN(s) && !math.IsInf(s, 0)
}

// careful is the second half of a forward tile, from the logits in u.s on; v holds the tile's values in
// rows of length ldv.
func (u *forwardUnit[T]) careful(t tile, v []T, ldv int) {
	dv := u.problem.v.Dim
	n := t.jz - t.ja
	weights := make([]T, n)
	for r := t.ra; r < t.rz; r++ {
		logits := u.s[(r-t.ra)*u.panel:][:n]
		copy(weights, logits)
		kernel.SoftmaxStep(weights, n, 1, n, u.rowMax[r:r+1], u.rowSum[r:r+1], u.alpha[:1])
		if u.Dropout > 0 {
			u.drop(&u.st, tile{ra: r, rz: r + 1, ja: t.ja, jz: t.jz}, weights, weights, n)
		}
		o := u.o[r*u.ld:][:dv]
		for c := range o {
			o[c] *= u.alpha[0]
		}
		for j, w := range weights {
			if math.IsInf(float64(logits[j]), -1) {
				continue
			}
			for c, x := range v[j*ldv:][:dv] {
				o[c] += w * x
			}
		}
	}
}

// careful is the second half of a backward tile, from the logits in u.s and the products dOut·v in u.ds on.
func (u *backwardUnit[T]) careful(t tile, r0, j0 int) {
	ld, n := u.panel, t.jz-t.ja
	masked := make([]bool, (t.rz-t.ra)*n)
	for r := t.ra; r < t.rz; r++ {
		s, ds, weights := u.s[(r-t.ra)*ld:][:n], u.ds[(r-t.ra)*ld:][:n], u.dropped[(r-t.ra)*ld:][:n]
		gone := masked[(r-t.ra)*n:][:n]
		for j, x := range s {
			gone[j] = math.IsInf(float64(x), -1)
		}
		kernel.ProbFromLSE(s, s, ld, 1, n, u.rowMax[r-r0:][:1])
		copy(weights, s)
		if u.Dropout > 0 {
			row := tile{ra: r, rz: r + 1, ja: t.ja, jz: t.jz}
			u.drop(&u.st, row, weights, s, ld)
			u.drop(&u.st, row, ds, ds, ld)
		}
		kernel.DScore(ds, s, ds, ld, 1, n, u.delta[r-r0:][:1])
		for j := range ds {
			if gone[j] {
				ds[j] = 0
			}
		}
	}
	u.addBias(t, u.ds)
	if u.Softcap > 0 {
		kernel.SoftcapGrad(u.ds, u.capped, ld, t.rz-t.ra, n, u.Softcap)
	}
	u.spread(t, r0, j0, masked)
}

// spread adds the tile's weights and dS to the gradients, place by place.
func (u *backwardUnit[T]) spread(t tile, r0, j0 int, masked []bool) {
	d, dv, n := u.problem.q.Dim, u.problem.v.Dim, t.jz-t.ja
	for r := t.ra; r < t.rz; r++ {
		q, dOut, dq := u.q[(r-r0)*u.ldq:][:d], u.dOut[(r-r0)*u.ldo:][:dv], u.dq[(r-r0)*u.lddq:][:d]
		for j := range n {
			if masked[(r-t.ra)*n+j] {
				continue
			}
			weight, ds := u.dropped[(r-t.ra)*u.panel+j], u.ds[(r-t.ra)*u.panel+j]
			at := t.ja - j0 + j
			axpy(u.dv[at*dv:], weight, dOut)
			axpy(u.dk[at*d:], ds, q)
			axpy(dq, ds, u.k[at*d:][:d])
		}
	}
}

// axpy adds a·x to y.
func axpy[T kernel.Float](y []T, a T, x []T) {
	for c, v := range x {
		y[c] += a * v
	}
}
