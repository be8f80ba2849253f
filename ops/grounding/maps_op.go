package grounding

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

type mapsOp struct {
	op.Base
	cfg                                      MapsConfig
	dtype                                    tensor.Dtype
	batch, seq, heads, dim, patches, kvHeads int
}

var _ op.Backwarder = (*mapsOp)(nil)

func (o *mapsOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return mapsForward[float64](o, in)
	}
	return mapsForward[float32](o, in)
}

// DiffWRT: all inputs.
func (o *mapsOp) DiffWRT(n int) []bool { return firstTrue(n, 3) }

// SymDiff builds the gradient for a TapeMachine.
func (o *mapsOp) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *mapsOp) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward: with P the map of one head and g = dOut/heads, dS = P∘g, and
//
//	dq = Scale·Σ_p dS·k    dk = Scale·Σ_t dS·q    dlse = −Σ_p dS
func (o *mapsOp) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return mapsBackward[float64](o, in, dOut, dIn)
	}
	return mapsBackward[float32](o, in, dOut, dIn)
}

// chosen is what is kept of the inputs: the wanted rows of q and lse, ordered (batch, head, token), in base 2.
type chosen[T kernel.Float] struct {
	o      *mapsOp
	n      int
	q, lse []T
	k      []T
}

func choose[T kernel.Float](o *mapsOp, w *parallel.Worker, q, k, lse []T) *chosen[T] {
	n := len(o.cfg.Tokens)
	c := &chosen[T]{o, n, parallel.Scratch[T](w, slotQ, o.batch*o.heads*n*o.dim), parallel.Scratch[T](w, slotInv, o.batch*o.heads*n), k}
	for b := range o.batch {
		for i, t := range o.cfg.Tokens {
			for h := range o.heads {
				from, to := (b*o.seq+t)*o.heads+h, (b*o.heads+h)*n+i
				kernel.Scale(c.q[to*o.dim:(to+1)*o.dim], q[from*o.dim:(from+1)*o.dim], T(o.cfg.Scale))
				c.lse[to] = lse[(b*o.heads+h)*o.seq+t]
			}
		}
	}
	return c
}

// tile computes P of one head for patches [p0, p1) into s.
func (c *chosen[T]) tile(w *parallel.Worker, s []T, b, h, p0, p1 int) {
	o, n := c.o, p1-p0
	kT := parallel.Scratch[T](w, slotKT, o.dim*n)
	ld := o.kvHeads * o.dim
	kernel.Transpose(kT, n, c.k[(b*o.patches+p0)*ld+h/(o.heads/o.kvHeads)*o.dim:], ld, n, o.dim, 1)
	at := (b*o.heads + h) * c.n
	kernel.Tile(c.n, n, o.dim, c.q[at*o.dim:], o.dim, 1, kT, n, s, n, kernel.TileSet, nil)
	kernel.ProbFromLSE(s, s, n, c.n, n, c.lse[at:at+c.n])
}

func mapsArgs[T kernel.Float](o *mapsOp, in []G.Value) (q, k, lse []T, err error) {
	if q, err = op.Elements[T](o.Name(), "q", in[0], o.batch*o.seq*o.heads*o.dim); err != nil {
		return
	}
	if k, err = op.Elements[T](o.Name(), "k", in[1], o.batch*o.patches*o.kvHeads*o.dim); err != nil {
		return
	}
	lse, err = op.Elements[T](o.Name(), "lse", in[2], o.batch*o.seq*o.heads)
	return
}

// overTiles calls body for each item of the batch and tile of patches.
func (o *mapsOp) overTiles(body func(w *parallel.Worker, b, p0, p1 int)) {
	across := (o.patches + tilePatches - 1) / tilePatches
	parallel.Run(o.batch*across, func(w *parallel.Worker, i int) {
		p0 := i % across * tilePatches
		body(w, i/across, p0, min(p0+tilePatches, o.patches))
	})
}

func mapsForward[T kernel.Float](o *mapsOp, in []G.Value) (G.Value, error) {
	q, k, lse, err := mapsArgs[T](o, in)
	if err != nil {
		return nil, err
	}
	out, y := op.New[T](o.OutShape())
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		c := choose(o, w, q, k, lse)
		o.overTiles(func(w *parallel.Worker, b, p0, p1 int) {
			n := p1 - p0
			s := parallel.Scratch[T](w, slotTile, c.n*n)
			for h := range o.heads {
				c.tile(w, s, b, h, p0, p1)
				for i := range c.n {
					row := y[(b*c.n+i)*o.patches+p0:][:n]
					kernel.Axpy(row, T(1/float64(o.heads)), s[i*n:(i+1)*n])
				}
			}
		})
	})
	return out, nil
}

func mapsBackward[T kernel.Float](o *mapsOp, in []G.Value, dOut G.Value, dIn []*tensor.Dense) error {
	q, k, lse, err := mapsArgs[T](o, in)
	if err != nil {
		return err
	}
	n := len(o.cfg.Tokens)
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, o.batch*n*o.patches)
	if err != nil {
		return err
	}
	dq, dk, dlse := op.Memory[T](dIn[0]), op.Memory[T](dIn[1]), op.Memory[T](dIn[2])
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		c := choose(o, w, q, k, lse)
		o.overTiles(func(w *parallel.Worker, b, p0, p1 int) { c.patchGrads(w, dk, dy, b, p0, p1) })
		parallel.Run(o.batch*o.heads, func(w *parallel.Worker, i int) {
			c.tokenGrads(w, dq, dlse, dy, i/o.heads, i%o.heads)
		})
	})
	return nil
}

// grads makes dS of one head for patches [p0, p1).
func (c *chosen[T]) grads(w *parallel.Worker, dy []T, b, h, p0, p1 int) []T {
	n := p1 - p0
	s := parallel.Scratch[T](w, slotTile, c.n*n)
	c.tile(w, s, b, h, p0, p1)
	for i := range c.n {
		row := s[i*n : (i+1)*n]
		kernel.Mul(row, row, dy[(b*c.n+i)*c.o.patches+p0:][:n])
	}
	kernel.Scale(s, s, T(1/float64(c.o.heads)))
	return s
}

func (c *chosen[T]) patchGrads(w *parallel.Worker, dk, dy []T, b, p0, p1 int) {
	o, n := c.o, p1-p0
	ld := o.kvHeads * o.dim
	for h := range o.heads {
		ds := c.grads(w, dy, b, h, p0, p1)
		to := dk[(b*o.patches+p0)*ld+h/(o.heads/o.kvHeads)*o.dim:]
		kernel.Tile(n, o.dim, c.n, ds, 1, n, c.q[(b*o.heads+h)*c.n*o.dim:], o.dim, to, ld, kernel.TileAdd, nil)
	}
}

// tokenGrads adds up dq and dlse of one head over all patches. A token that was chosen twice gets both shares.
func (c *chosen[T]) tokenGrads(w *parallel.Worker, dq, dlse, dy []T, b, h int) {
	o := c.o
	sum := parallel.Scratch[T](w, slotAcc, c.n*(o.dim+1))
	clear(sum)
	rows, sums := sum[:c.n*o.dim], sum[c.n*o.dim:]
	ld := o.kvHeads * o.dim
	for p0 := 0; p0 < o.patches; p0 += tilePatches {
		n := min(tilePatches, o.patches-p0)
		ds := c.grads(w, dy, b, h, p0, p0+n)
		from := c.k[(b*o.patches+p0)*ld+h/(o.heads/o.kvHeads)*o.dim:]
		kernel.Tile(c.n, o.dim, n, ds, n, 1, from, ld, rows, o.dim, kernel.TileAdd, nil)
		for i := range c.n {
			sums[i] += kernel.Sum(ds[i*n : (i+1)*n])
		}
	}
	for i, t := range o.cfg.Tokens {
		to := (b*o.seq+t)*o.heads + h
		kernel.Axpy(dq[to*o.dim:(to+1)*o.dim], T(o.cfg.Scale), rows[i*o.dim:(i+1)*o.dim])
		dlse[(b*o.heads+h)*o.seq+t] -= sums[i]
	}
}
