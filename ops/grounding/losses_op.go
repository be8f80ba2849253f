package grounding

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// lossFunc is a scalar function of inputs of one size with a gradient for the first. It is computed in float64: a loss is a
// long sum, and little beside the scores it is taken of.
type lossFunc interface {
	loss(x []float64, rest [][]float64) float64
	// grad writes the gradient, every number of it.
	grad(dx, x []float64, rest [][]float64)
}

type lossOp struct {
	op.Base
	of    lossFunc
	diff  int
	dtype tensor.Dtype
	n     int
}

var _ op.Filler = (*lossOp)(nil)

// Fills marks an op.Filler.
func (o *lossOp) Fills() {}

func (o *lossOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	var l float64
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		var x [][]float64
		if x, err = o.widen(w, in); err == nil {
			l = o.of.loss(x[0], x[1:])
		}
	})
	if err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return op.NewScalar(l), nil
	}
	return op.NewScalar(float32(l)), nil
}

// widen reads the inputs as float64, into slots from 0 on.
func (o *lossOp) widen(w *parallel.Worker, in []G.Value) (all [][]float64, err error) {
	all = make([][]float64, len(in))
	for i, v := range in {
		name := fmt.Sprintf("input %d", i)
		if o.dtype == tensor.Float64 {
			all[i], err = op.Elements[float64](o.Name(), name, v, o.n)
		} else {
			var d []float32
			if d, err = op.Elements[float32](o.Name(), name, v, o.n); err == nil {
				all[i] = parallel.Scratch[float64](w, i, o.n)
				overRows(o.n, 1, func(lo, hi int) {
					for j, f := range d[lo:hi] {
						all[i][lo+j] = float64(f)
					}
				})
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// DiffWRT: the first inputs, not targets and weights.
func (o *lossOp) DiffWRT(n int) []bool { return firstTrue(n, o.diff) }

// SymDiff builds the gradient for a TapeMachine.
func (o *lossOp) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *lossOp) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward multiplies the function's gradient by the incoming one.
func (o *lossOp) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) (err error) {
	parallel.Run(1, func(w *parallel.Worker, _ int) {
		var x [][]float64
		if x, err = o.widen(w, in); err != nil {
			return
		}
		grad := parallel.Scratch[float64](w, len(in), o.n)
		o.of.grad(grad, x[0], x[1:])
		if o.dtype == tensor.Float64 {
			err = scaled[float64](o, grad, dOut, dIn[0])
		} else {
			err = scaled[float32](o, grad, dOut, dIn[0])
		}
	})
	return err
}

func scaled[T kernel.Float](o *lossOp, grad []float64, dOut G.Value, dIn *tensor.Dense) error {
	g, err := op.Elements[T](o.Name(), "gradient", dOut, 1)
	if err != nil {
		return err
	}
	dx, by := op.Memory[T](dIn), float64(g[0])
	overRows(o.n, 1, func(lo, hi int) {
		for i, d := range grad[lo:hi] {
			dx[lo+i] = T(d * by)
		}
	})
	return nil
}

// contrastive: dS = (P_rows + P_cols − 2·I)/2n.
type contrastive struct{ n int }

func (c *contrastive) loss(s []float64, _ [][]float64) float64 {
	sum := 0.0
	for i := range c.n {
		sum += c.line(s, nil, i*c.n, 1, i) + c.line(s, nil, i, c.n, i)
	}
	return sum / float64(2*c.n)
}

func (c *contrastive) grad(ds, s []float64, _ [][]float64) {
	clear(ds)
	for i := range c.n {
		c.line(s, ds, i*c.n, 1, i)
		c.line(s, ds, i, c.n, i)
	}
}

// line is the cross-entropy of n scores from start on, stride apart, against class target.
func (c *contrastive) line(s, grad []float64, start, stride, target int) float64 {
	top, sum := math.Inf(-1), 0.0
	for j := range c.n {
		top = math.Max(top, s[start+j*stride])
	}
	for j := range c.n {
		sum += math.Exp(s[start+j*stride] - top)
	}
	lse := top + math.Log(sum)
	for j := range c.n {
		if grad != nil {
			d := math.Exp(s[start+j*stride] - lse)
			if j == target {
				d--
			}
			grad[start+j*stride] += d / float64(2*c.n)
		}
	}
	return lse - s[start+target*stride]
}

type alignment struct{ positive float64 }

// total is the sum of the weights.
func (a *alignment) total(n int, rest [][]float64) float64 {
	if len(rest) < 2 {
		return float64(n)
	}
	return sumOver(n, func(lo, hi int) (sum float64) {
		for _, w := range rest[1][lo:hi] {
			sum += w
		}
		return sum
	})
}

func (a *alignment) loss(z []float64, rest [][]float64) float64 {
	total := a.total(len(z), rest)
	if total == 0 {
		return 0
	}
	return sumOver(len(z), func(lo, hi int) (sum float64) {
		for i := lo; i < hi; i++ {
			w, y, x := 1.0, rest[0][i], z[i]
			if len(rest) > 1 {
				w = rest[1][i]
			}
			if w == 0 {
				continue
			}
			// softplus(x) = ln(1 + eˣ) = [x]₊ + ln(1 + e^−|x|)
			l := math.Log1p(math.Exp(-math.Abs(x)))
			sum += w * (a.positive*y*(math.Max(-x, 0)+l) + (1-y)*(math.Max(x, 0)+l))
		}
		return sum
	}) / total
}

func (a *alignment) grad(dz, z []float64, rest [][]float64) {
	total := a.total(len(z), rest)
	overRows(len(z), 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			w, y := 1.0, rest[0][i]
			if len(rest) > 1 {
				w = rest[1][i]
			}
			dz[i] = 0
			if w != 0 && total != 0 {
				p := 1 / (1 + math.Exp(-z[i]))
				dz[i] = w / total * ((1-y)*p - a.positive*y*(1-p))
			}
		}
	})
}

// sumOver adds up what part returns for blocks of [0, n), in their order: the same at any number of threads.
func sumOver(n int, part func(lo, hi int) float64) float64 {
	sums := make([]float64, (n+rowBlock-1)/rowBlock)
	overRows(n, 1, func(lo, hi int) { sums[lo/rowBlock] = part(lo, hi) })
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total
}

type margin struct {
	cfg     MarginConfig
	patches int
}

// side is what a map shows inside or outside a region.
type side struct {
	n, at    int
	max, sum float64
}

func (s *side) add(i int, x float64) {
	if s.n == 0 || x > s.max || math.IsNaN(x) {
		s.max, s.at = x, i
	}
	s.n++
	s.sum += x
}

func (m *margin) loss(maps []float64, rest [][]float64) float64 { return m.both(nil, maps, rest[0]) }

func (m *margin) grad(dx, maps []float64, rest [][]float64) {
	clear(dx)
	m.both(dx, maps, rest[0])
}

// both returns the loss and, where grad is not nil, adds the gradient to it.
func (m *margin) both(grad, maps, regions []float64) float64 {
	var sides [][2]side
	for at := 0; at < len(maps); at += m.patches {
		var s [2]side // outside, inside
		for i := at; i < at+m.patches; i++ {
			switch {
			case regions[i] >= 0.5:
				s[1].add(i, maps[i])
			case regions[i] >= 0:
				s[0].add(i, maps[i])
			}
		}
		if s[0].n > 0 && s[1].n > 0 {
			sides = append(sides, s)
		}
	}
	sum := 0.0
	for _, s := range sides {
		share := 1 / float64(len(sides))
		byMax := s[0].max - s[1].max + m.cfg.MaxMargin
		mean := [2]float64{s[0].sum / float64(s[0].n), s[1].sum / float64(s[1].n)}
		byMean := mean[0] - mean[1] + m.cfg.MeanMargin
		if !(byMax <= 0) { // NaN is to be seen
			sum += share * m.cfg.MaxWeight * byMax
			if grad != nil {
				grad[s[0].at] += share * m.cfg.MaxWeight
				grad[s[1].at] -= share * m.cfg.MaxWeight
			}
		}
		if !(byMean <= 0) {
			sum += share * m.cfg.MeanWeight * byMean
			if grad != nil {
				m.spread(grad, regions, s, share*m.cfg.MeanWeight)
			}
		}
	}
	return sum
}

// spread adds the gradient of w·(mean_out − mean_in) of the token whose map s describes.
func (m *margin) spread(grad, regions []float64, s [2]side, w float64) {
	at := s[0].at / m.patches * m.patches
	for i := at; i < at+m.patches; i++ {
		switch {
		case regions[i] >= 0.5:
			grad[i] -= w / float64(s[1].n)
		case regions[i] >= 0:
			grad[i] += w / float64(s[0].n)
		}
	}
}
