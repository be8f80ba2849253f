package grounding

import (
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// groundOp has the inputs q and patches, then the masks that attrs names.
type groundOp struct {
	op.Base
	attrs
	pair
	dtype tensor.Dtype
}

var _ op.Filler = (*groundOp)(nil)

// Fills marks an op.Filler.
func (o *groundOp) Fills() {}

// scratch slots; kernel.Gemm has 14 and 15.
const (
	slotQ = iota
	slotK
	slotInv
	slotScores
	slotKT
	slotTile
	slotTile2
	slotAcc
	slotVT
	slotPacked
	slotCut
)

func (o *groundOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return groundForward[float64](o, in)
	}
	return groundForward[float32](o, in)
}

// DiffWRT: q and patches, not the masks.
func (o *groundOp) DiffWRT(n int) []bool { return firstTrue(n, 2) }

func firstTrue(n, k int) []bool {
	t := make([]bool, n)
	for i := range min(k, n) {
		t[i] = true
	}
	return t
}

// SymDiff builds the gradient for a TapeMachine.
func (o *groundOp) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *groundOp) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: with dS the gradient with respect to the scores,
//
//	dQ̂ = dS·K̂/τ    dK̂ = dSᵀ·Q̂/τ
//
// and from there through the normalisation.
func (o *groundOp) Backward(in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return groundBackward[float64](o, in, out, dOut, dIn)
	}
	return groundBackward[float32](o, in, out, dOut, dIn)
}

// pairArgs reads q and k and the masks, which are nil where there are none.
func pairArgs[T kernel.Float](fn string, a attrs, p pair, in []G.Value) (q, k []T, tokenMask, patchMask []bool, err error) {
	if q, err = op.Elements[T](fn, "tokens", in[0], p.batch*p.tokens*p.dim); err != nil {
		return
	}
	if k, err = op.Elements[T](fn, "patches", in[1], p.batch*p.patches*p.dim); err != nil {
		return
	}
	next := 2
	if a.HasTokenMask {
		if tokenMask, err = maskOf(fn, "TokenMask", in[next], p.batch*p.tokens); err != nil {
			return
		}
		next++
	}
	if a.HasPatchMask {
		patchMask, err = maskOf(fn, "PatchMask", in[next], p.batch*p.patches)
	}
	return
}

// units is q and k as unit vectors, with the inverse norms, in a worker's scratch.
type units[T kernel.Float] struct{ q, k, invQ, invK []T }

// newUnits leaves out padding, which may hold anything, NaN included: its vectors are 0.
func newUnits[T kernel.Float](w *parallel.Worker, q, k []T, dim int, tokenMask, patchMask []bool) units[T] {
	nq, nk := len(q)/dim, len(k)/dim
	inv := parallel.Scratch[T](w, slotInv, nq+nk)
	u := units[T]{parallel.Scratch[T](w, slotQ, len(q)), parallel.Scratch[T](w, slotK, len(k)), inv[:nq], inv[nq:]}
	unitRows(u.q, u.invQ, q, dim)
	unitRows(u.k, u.invK, k, dim)
	clearPadding(u.q, u.invQ, tokenMask, dim)
	clearPadding(u.k, u.invK, patchMask, dim)
	return u
}

func clearPadding[T kernel.Float](unit, inv []T, mask []bool, dim int) {
	for r, real := range mask {
		if !real {
			clear(unit[r*dim : (r+1)*dim])
			inv[r] = 0
		}
	}
}

func groundForward[T kernel.Float](o *groundOp, in []G.Value) (G.Value, error) {
	q, k, tokenMask, patchMask, err := pairArgs[T](o.Name(), o.attrs, o.pair, in)
	if err != nil {
		return nil, err
	}
	out, s := op.NewUnset[T](o.OutShape())
	// A Run of one task lends the caller's scratch without taking the workers.
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		allCosines(w, s, o.pair, q, k, o.Temperature)
		nt, np := o.tokens, o.patches
		for b := range o.batch {
			finishRows(o, s[b*nt*np:(b+1)*nt*np], rowsAt(tokenMask, b, nt), rowsAt(patchMask, b, np))
		}
	})
	return out, nil
}

// rowsAt is item b of a mask of n flags an item; nil stays nil.
func rowsAt(mask []bool, b, n int) []bool {
	if mask == nil {
		return nil
	}
	return mask[b*n : (b+1)*n]
}

// finishRows turns scores into the op's form, for one item of the batch, and clears padding.
func finishRows[T kernel.Float](o *groundOp, s []T, tokenMask, patchMask []bool) {
	if o.Form == Similarity && tokenMask == nil && patchMask == nil {
		return
	}
	np := o.patches
	overRows(o.tokens, np, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			row := s[t*np : (t+1)*np]
			if tokenMask != nil && !tokenMask[t] {
				clear(row)
				continue
			}
			switch o.Form {
			case Attention:
				setMasked(row, patchMask, T(math.Inf(-1)))
				m := kernel.Max(row)
				kernel.SoftmaxRow(row, m, kernel.SumExp(row, m))
			case Relevance:
				kernel.AddScalar(row, row, T(o.Bias))
				kernel.Sigmoid(row, row)
			}
			setMasked(row, patchMask, 0)
		}
	})
}

func setMasked[T kernel.Float](row []T, mask []bool, x T) {
	for p, real := range mask {
		if !real {
			row[p] = x
		}
	}
}

func groundBackward[T kernel.Float](o *groundOp, in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	q, k, tokenMask, patchMask, err := pairArgs[T](o.Name(), o.attrs, o.pair, in)
	if err != nil {
		return err
	}
	nt, np, dim := o.tokens, o.patches, o.dim
	y, err := op.Elements[T](o.Name(), "result", out, o.batch*nt*np)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, o.batch*nt*np)
	if err != nil {
		return err
	}
	dq, dk := op.Memory[T](dIn[0]), op.Memory[T](dIn[1])
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		u := newUnits(w, q, k, dim, tokenMask, patchMask)
		ds := parallel.Scratch[T](w, slotScores, len(dy))
		overBatch(o.batch, func(_ *parallel.Worker, b int) {
			ds := ds[b*nt*np : (b+1)*nt*np]
			scoreGrad(o, ds, y[b*nt*np:], dy[b*nt*np:], rowsAt(tokenMask, b, nt), rowsAt(patchMask, b, np))
			dS := kernel.RowMajor(ds, nt, np)
			Q, K := kernel.RowMajor(u.q[b*nt*dim:], nt, dim), kernel.RowMajor(u.k[b*np*dim:], np, dim)
			kernel.Gemm(kernel.RowMajor(dq[b*nt*dim:], nt, dim), dS, K, false, kernel.Epilogue[T]{})
			kernel.Gemm(kernel.RowMajor(dk[b*np*dim:], np, dim), dS.T(), Q, false, kernel.Epilogue[T]{})
		})
		unitGrad(dq, u.q, u.invQ, dim)
		unitGrad(dk, u.k, u.invK, dim)
	})
	return nil
}

// scoreGrad writes the gradient with respect to q̂·ŷ, for one item of the batch.
func scoreGrad[T kernel.Float](o *groundOp, ds, y, dy []T, tokenMask, patchMask []bool) {
	np, scale := o.patches, T(1/o.Temperature)
	overRows(o.tokens, np, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			d, p, g := ds[t*np:(t+1)*np], y[t*np:(t+1)*np], dy[t*np:(t+1)*np]
			if tokenMask != nil && !tokenMask[t] {
				clear(d)
				continue
			}
			switch o.Form {
			case Similarity:
				kernel.Scale(d, g, scale)
			case Attention:
				mean := kernel.Dot(p, g)
				for j := range d {
					d[j] = scale * p[j] * (g[j] - mean)
				}
			case Relevance:
				for j := range d {
					d[j] = scale * p[j] * (1 - p[j]) * g[j]
				}
			}
			setMasked(d, patchMask, 0)
		}
	})
}
