package grounding

import (
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// poolOp has the inputs q, patches and values, then the masks that attrs names, then a side for the log-sum-exp of each
// token (base 2; −Inf where every patch is padding).
type poolOp struct {
	op.Base
	attrs
	pair
	width int // numbers in a value
	dtype tensor.Dtype
}

var _ op.Backwarder = (*poolOp)(nil)

func (o *poolOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return poolForward[float64](o, in)
	}
	return poolForward[float32](o, in)
}

// DiffWRT: q, patches and values.
func (o *poolOp) DiffWRT(n int) []bool { return firstTrue(n, 3) }

// SymDiff builds the gradient for a TapeMachine.
func (o *poolOp) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *poolOp) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: with P the maps, made again from Q, K and the log-sum-exp,
//
//	dV = Pᵀ·dOut    dP = dOut·Vᵀ    dS = P∘(dP − Σ_n dOut·out)
//
// in one pass over blocks of tokens for dQ and one over blocks of patches for dK and dV, so that no two tasks add to one
// number.
func (o *poolOp) Backward(in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return poolBackward[float64](o, in, out, dOut, dIn)
	}
	return poolBackward[float32](o, in, out, dOut, dIn)
}

// Sides of a tile of scores: 32×256 float32 are 32 KiB, a first-level cache.
const (
	tileTokens  = 32
	tilePatches = 256
)

// pool is one item of the batch: unit vectors, q scaled so that a product is a score.
type pool[T kernel.Float] struct {
	nt, np, dim, width   int
	q, k, v              []T // nt×dim, np×dim, np×width
	kT, vT               []T // dim×np, width×np; vT only in the backward pass
	tokenMask, patchMask []bool
	lse                  []T
}

// scores computes the tile of tokens [t0, t1) and patches [p0, p1), padding being −Inf.
func (p *pool[T]) scores(s []T, t0, t1, p0, p1 int) {
	n := p1 - p0
	kernel.Tile(t1-t0, n, p.dim, p.q[t0*p.dim:], p.dim, 1, p.kT[p0:], p.np, s, n, kernel.TileSet, nil)
	for j := p0; j < p1 && p.patchMask != nil; j++ {
		if !p.patchMask[j] {
			for i := j - p0; i < (t1-t0)*n; i += n {
				s[i] = T(math.Inf(-1))
			}
		}
	}
}

// forward computes the output of tokens [t0, t1) and their log-sum-exp.
func (p *pool[T]) forward(w *parallel.Worker, out []T, t0, t1 int) {
	rows := t1 - t0
	stats := parallel.Scratch[T](w, slotAcc, 3*rows)
	rowMax, rowSum, alpha := stats[:rows], stats[rows:2*rows], stats[2*rows:]
	for i := range rows {
		rowMax[i], rowSum[i] = T(math.Inf(-1)), 0
	}
	y := out[t0*p.width : t1*p.width]
	clear(y)
	s := parallel.Scratch[T](w, slotTile, rows*tilePatches)
	for p0 := 0; p0 < p.np; p0 += tilePatches {
		p1 := min(p0+tilePatches, p.np)
		p.scores(s, t0, t1, p0, p1)
		kernel.SoftmaxStep(s, p1-p0, rows, p1-p0, rowMax, rowSum, alpha)
		kernel.Tile(rows, p.width, p1-p0, s, p1-p0, 1, p.v[p0*p.width:], p.width, y, p.width, kernel.TileScaleAdd, alpha)
	}
	for i := range rows {
		row := y[i*p.width : (i+1)*p.width]
		if rowSum[i] == 0 || p.tokenMask != nil && !p.tokenMask[t0+i] {
			clear(row)
			p.lse[t0+i] = T(math.Inf(-1))
			continue
		}
		kernel.Scale(row, row, 1/rowSum[i])
		p.lse[t0+i] = rowMax[i] + T(math.Log(float64(rowSum[i])))
	}
}

// grads computes the maps P and dS of a tile, s and ds. dy and delta are those of all tokens.
func (p *pool[T]) grads(s, ds, dy, delta []T, t0, t1, p0, p1 int) {
	n := p1 - p0
	p.scores(s, t0, t1, p0, p1)
	kernel.ProbFromLSE(s, s, n, t1-t0, n, p.lse[t0:t1])
	kernel.Tile(t1-t0, n, p.width, dy[t0*p.width:], p.width, 1, p.vT[p0:], p.np, ds, n, kernel.TileSet, nil)
	kernel.DScore(ds, s, ds, n, t1-t0, n, delta[t0:t1])
}

func (p *pool[T]) tokenGrads(w *parallel.Worker, dq, dy, delta []T, t0, t1 int) {
	s := parallel.Scratch[T](w, slotTile, (t1-t0)*tilePatches)
	ds := parallel.Scratch[T](w, slotTile2, (t1-t0)*tilePatches)
	for p0 := 0; p0 < p.np; p0 += tilePatches {
		p1 := min(p0+tilePatches, p.np)
		p.grads(s, ds, dy, delta, t0, t1, p0, p1)
		kernel.Tile(t1-t0, p.dim, p1-p0, ds, p1-p0, 1, p.k[p0*p.dim:], p.dim, dq[t0*p.dim:], p.dim, kernel.TileAdd, nil)
	}
}

func (p *pool[T]) patchGrads(w *parallel.Worker, dk, dv, dy, delta []T, p0, p1 int) {
	s := parallel.Scratch[T](w, slotTile, tileTokens*(p1-p0))
	ds := parallel.Scratch[T](w, slotTile2, tileTokens*(p1-p0))
	for t0 := 0; t0 < p.nt; t0 += tileTokens {
		t1, n := min(t0+tileTokens, p.nt), p1-p0
		p.grads(s, ds, dy, delta, t0, t1, p0, p1)
		kernel.Tile(n, p.width, t1-t0, s, 1, n, dy[t0*p.width:], p.width, dv[p0*p.width:], p.width, kernel.TileAdd, nil)
		kernel.Tile(n, p.dim, t1-t0, ds, 1, n, p.q[t0*p.dim:], p.dim, dk[p0*p.dim:], p.dim, kernel.TileAdd, nil)
	}
}

// poolArgs reads the inputs.
func poolArgs[T kernel.Float](o *poolOp, in []G.Value) (q, k, v, lse []T, tokenMask, patchMask []bool, err error) {
	rest := append([]G.Value{in[0], in[1]}, in[3:len(in)-1]...)
	if q, k, tokenMask, patchMask, err = pairArgs[T](o.Name(), o.attrs, o.pair, rest); err != nil {
		return
	}
	if v, err = op.Elements[T](o.Name(), "values", in[2], o.batch*o.patches*o.width); err != nil {
		return
	}
	lse, err = op.Elements[T](o.Name(), "lse", in[len(in)-1], o.batch*o.tokens)
	return
}

func poolForward[T kernel.Float](o *poolOp, in []G.Value) (G.Value, error) {
	q, k, v, lse, tokenMask, patchMask, err := poolArgs[T](o, in)
	if err != nil {
		return nil, err
	}
	out, y := op.New[T](o.OutShape())
	nt, np, dim := o.tokens, o.patches, o.dim
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		u := newUnits(w, q, k, dim, tokenMask, patchMask)
		kernel.Scale(u.q, u.q, T(1/o.Temperature))
		kT := parallel.Scratch[T](w, slotKT, np*dim)
		for b := range o.batch {
			p := poolOf(o, u, v, lse, tokenMask, patchMask, b)
			p.kT = kT
			kernel.Transpose(kT, np, p.k, dim, np, dim, 1)
			overBlocks(nt, tileTokens, func(w *parallel.Worker, lo, hi int) {
				p.forward(w, y[b*nt*o.width:(b+1)*nt*o.width], lo, hi)
			})
		}
	})
	return out, nil
}

func poolOf[T kernel.Float](o *poolOp, u units[T], v, lse []T, tokenMask, patchMask []bool, b int) *pool[T] {
	nt, np, dim := o.tokens, o.patches, o.dim
	return &pool[T]{
		nt: nt, np: np, dim: dim, width: o.width,
		q: u.q[b*nt*dim : (b+1)*nt*dim], k: u.k[b*np*dim : (b+1)*np*dim], v: v[b*np*o.width : (b+1)*np*o.width],
		tokenMask: rowsAt(tokenMask, b, nt), patchMask: rowsAt(patchMask, b, np), lse: lse[b*nt : (b+1)*nt],
	}
}

// overBlocks calls body for blocks of size per that make up [0, n).
func overBlocks(n, per int, body func(w *parallel.Worker, lo, hi int)) {
	parallel.Run((n+per-1)/per, func(w *parallel.Worker, i int) { body(w, i*per, min((i+1)*per, n)) })
}

func poolBackward[T kernel.Float](o *poolOp, in []G.Value, out, dOut G.Value, dIn []*tensor.Dense) error {
	q, k, v, lse, tokenMask, patchMask, err := poolArgs[T](o, in)
	if err != nil {
		return err
	}
	nt, np, dim, width := o.tokens, o.patches, o.dim, o.width
	y, err := op.Elements[T](o.Name(), "result", out, o.batch*nt*width)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, o.batch*nt*width)
	if err != nil {
		return err
	}
	dq, dk, dv := op.Memory[T](dIn[0]), op.Memory[T](dIn[1]), op.Memory[T](dIn[2])
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		u := newUnits(w, q, k, dim, tokenMask, patchMask)
		kernel.Scale(u.q, u.q, T(1/o.Temperature))
		kT := parallel.Scratch[T](w, slotKT, np*dim)
		vT := parallel.Scratch[T](w, slotVT, np*width)
		delta := parallel.Scratch[T](w, slotScores, nt)
		for b := range o.batch {
			p := poolOf(o, u, v, lse, tokenMask, patchMask, b)
			p.kT, p.vT = kT, vT
			kernel.Transpose(kT, np, p.k, dim, np, dim, 1)
			kernel.Transpose(vT, np, p.v, width, np, width, 1)
			dy, y := dy[b*nt*width:(b+1)*nt*width], y[b*nt*width:(b+1)*nt*width]
			for t := range nt {
				delta[t] = kernel.Dot(dy[t*width:(t+1)*width], y[t*width:(t+1)*width])
			}
			overBlocks(nt, tileTokens, func(w *parallel.Worker, lo, hi int) {
				p.tokenGrads(w, dq[b*nt*dim:(b+1)*nt*dim], dy, delta, lo, hi)
			})
			overBlocks(np, tilePatches, func(w *parallel.Worker, lo, hi int) {
				p.patchGrads(w, dk[b*np*dim:(b+1)*np*dim], dv[b*np*width:(b+1)*np*width], dy, delta, lo, hi)
			})
		}
		// dq still lacks the factor 1/τ; dk had q scaled by it. unitGrad wants q̂ of length 1.
		kernel.Scale(dq, dq, T(1/o.Temperature))
		kernel.Scale(u.q, u.q, T(o.Temperature))
		unitGrad(dq, u.q, u.invQ, dim)
		unitGrad(dk, u.k, u.invK, dim)
	})
	return nil
}
