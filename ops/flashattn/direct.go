package flashattn

import "stheno/internal/kernel"

// directRows is the number of rows up to which keys and values are used where they lie: packing them pays when several
// register tiles pass over them, and not for the few rows of a decoding step. Only the plain forward pass does so, because
// scores round differently here than in the backward pass.
const directRows = 8

// products computes the products of a tile into u.s from keys in place, with u.q scaled, and returns the tile's values in place
// and their stride.
func (u *forwardUnit[T]) products(t tile) (v []T, ldv int) {
	k, x, b, h := &u.k, &u.problem.v, u.st.seg.batch, u.st.kvHead
	n := t.jz - t.ja
	keys := k.Data[k.at(b, t.ja, h):]
	for r := t.ra; r < t.rz; r++ {
		kernel.MulVec(u.s[(r-t.ra)*u.panel:][:n], n, k.Dim, keys, k.SeqStride, u.q[r*k.Dim:][:k.Dim])
	}
	u.vFinite = true
	if !t.full || u.bias.data != nil { // otherwise every row sees all of it
		for j := t.ja; j < t.jz; j++ {
			u.vFinite = u.vFinite && finite(x.row(b, j, h))
		}
	}
	return x.Data[x.at(b, t.ja, h):], x.SeqStride
}

// accumulate adds the weighted values of a tile to the rescaled output.
func (u *forwardUnit[T]) accumulate(t tile, weights, v []T, ldv int) {
	dv, n := u.problem.v.Dim, t.jz-t.ja
	for r := t.ra; r < t.rz; r++ {
		o := u.o[r*u.ld:][:dv]
		if a := u.alpha[r-t.ra]; a != 1 {
			kernel.Scale(o, o, a)
		}
		kernel.AddVecMul(o, dv, n, weights[(r-t.ra)*u.panel:][:n], v, ldv)
	}
}
