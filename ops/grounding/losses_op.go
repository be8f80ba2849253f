package grounding

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// lossFunc is a scalar function of inputs of one size with a gradient for the first. It is computed in float64: a loss is a
// long sum, and little beside the scores it is taken of.
type lossFunc interface {
	// loss returns the value and, where grad is not nil, adds the gradient to it.
	loss(x []float64, rest [][]float64, grad []float64) float64
}

type lossOp struct {
	op.Base
	of    lossFunc
	diff  int
	dtype tensor.Dtype
	n     int
}

var _ op.Backwarder = (*lossOp)(nil)

func (o *lossOp) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if len(in) != o.Arity() {
		return nil, fmt.Errorf("%s: got %d inputs, want %d", o.Name(), len(in), o.Arity())
	}
	x, rest, err := o.widen(in)
	if err != nil {
		return nil, err
	}
	l := o.of.loss(x, rest, nil)
	if o.dtype == tensor.Float64 {
		return op.NewScalar(l), nil
	}
	return op.NewScalar(float32(l)), nil
}

// widen reads the inputs as float64.
func (o *lossOp) widen(in []G.Value) (x []float64, rest [][]float64, err error) {
	all := make([][]float64, len(in))
	for i, v := range in {
		name := fmt.Sprintf("input %d", i)
		if o.dtype == tensor.Float64 {
			all[i], err = elements[float64](o.Name(), name, v, o.n)
		} else {
			var d []float32
			if d, err = elements[float32](o.Name(), name, v, o.n); err == nil {
				all[i] = make([]float64, len(d))
				for j, f := range d {
					all[i][j] = float64(f)
				}
			}
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return all[0], all[1:], nil
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
func (o *lossOp) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	x, rest, err := o.widen(in)
	if err != nil {
		return err
	}
	if o.dtype == tensor.Float64 {
		return scaled[float64](o, x, rest, dOut, dIn[0])
	}
	return scaled[float32](o, x, rest, dOut, dIn[0])
}

func scaled[T kernel.Float](o *lossOp, x []float64, rest [][]float64, dOut G.Value, dIn *tensor.Dense) error {
	g, err := elements[T](o.Name(), "gradient", dOut, 1)
	if err != nil {
		return err
	}
	grad := make([]float64, o.n)
	o.of.loss(x, rest, grad)
	for i, d := range grad {
		op.Memory[T](dIn)[i] = T(d * float64(g[0]))
	}
	return nil
}

// contrastive: dS = (P_rows + P_cols − 2·I)/2n.
type contrastive struct{ n int }

func (c *contrastive) loss(s []float64, _ [][]float64, grad []float64) float64 {
	sum := 0.0
	for i := range c.n {
		sum += c.line(s, grad, i*c.n, 1, i) + c.line(s, grad, i, c.n, i)
	}
	return sum / float64(2*c.n)
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

func (a *alignment) loss(z []float64, rest [][]float64, grad []float64) float64 {
	y, weight := rest[0], func(int) float64 { return 1 }
	if len(rest) > 1 {
		weight = func(i int) float64 { return rest[1][i] }
	}
	sum, total := 0.0, 0.0
	for i := range z {
		total += weight(i)
	}
	if total == 0 {
		return 0
	}
	for i, x := range z {
		w := weight(i)
		if w == 0 {
			continue
		}
		sum += w * (a.positive*y[i]*softplus(-x) + (1-y[i])*softplus(x))
		if grad != nil {
			p := 1 / (1 + math.Exp(-x))
			grad[i] = w / total * ((1-y[i])*p - a.positive*y[i]*(1-p))
		}
	}
	return sum / total
}

// softplus is ln(1 + eˣ).
func softplus(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

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

func (m *margin) loss(maps []float64, rest [][]float64, grad []float64) float64 {
	regions := rest[0]
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
