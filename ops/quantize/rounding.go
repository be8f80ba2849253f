package quantize

import (
	"fmt"
	"math"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
)

// Method is how codes are chosen for weights.
type Method int

// The methods.
const (
	// Nearest rounds each weight to the nearest code of a grid that reaches the largest weight.
	Nearest Method = iota
	// Clipped rounds to the nearest code too, of the grid with the least squared error: among those that reach 1, 63/64, … 20/64
	// of the largest weight.
	Clipped
	// GPTQ rounds the weights of an output one after the other, and makes good for the error of each with those still to come, so
	// that outputs err least on the inputs that the moments were taken of (Frantar et al. 2022, arXiv 2210.17323).
	GPTQ
	// Fixed rounds to the nearest code of given scales, such as FakeQuantize has learned.
	Fixed
)

// String returns the method's name.
func (m Method) String() string {
	switch m {
	case Nearest:
		return "nearest"
	case Clipped:
		return "clipped"
	case GPTQ:
		return "gptq"
	case Fixed:
		return "fixed"
	}
	return fmt.Sprintf("Method(%d)", int(m))
}

// Rounding configures QuantizeWith. The zero value rounds to nearest, as Quantize does.
type Rounding struct {
	Method Method

	// Moments of the layer's inputs, which GPTQ needs. With Clipped they are optional: the error of a weight then counts as much
	// as the mean square of its input.
	Moments *Moments

	// Damping, as a part of the mean of the moments' diagonal, is added to the diagonal in GPTQ. 0 means 0.01.
	Damping float64

	// ActOrder lets GPTQ go through the inputs from the largest moment to the smallest, instead of in their order. All scales are
	// then those of the weights as they were given.
	ActOrder bool

	// Clip chooses the scales of GPTQ as Clipped does.
	Clip bool

	// Scales of Fixed: float32 or float64 of the shape that Packed.Scales has, all positive.
	Scales *tensor.Dense
}

// check reports what does not fit together.
func (r Rounding) check(fn string, cfg Config, in int) error {
	switch {
	case r.Method < Nearest || r.Method > Fixed:
		return fmt.Errorf("%s: Method: got %d, want %d (%v) to %d (%v)", fn, int(r.Method), int(Nearest), Nearest, int(Fixed), Fixed)
	case r.Method != Nearest && !cfg.Scheme.HasScales():
		return fmt.Errorf("%s: Method: got %v with %v, want %v: it has no scales", fn, r.Method, cfg.Scheme, Nearest)
	case r.Method == GPTQ && r.Moments == nil:
		return fmt.Errorf("%s: Moments: got nil with %v, want those of the layer's inputs", fn, r.Method)
	case r.Moments != nil && r.Method != GPTQ && r.Method != Clipped:
		return fmt.Errorf("%s: Moments: got some with %v, want none", fn, r.Method)
	case r.Moments != nil && r.Moments.n != in:
		return fmt.Errorf("%s: Moments: got %d channels, want %d as the weights have inputs", fn, r.Moments.n, in)
	case r.Method != GPTQ && (r.Damping != 0 || r.ActOrder || r.Clip):
		return fmt.Errorf("%s: got Damping %v, ActOrder %v, Clip %v with %v, want none of them", fn, r.Damping, r.ActOrder, r.Clip, r.Method)
	case !(r.Damping >= 0 && r.Damping <= math.MaxFloat64):
		return fmt.Errorf("%s: Damping: got %v, want a finite number of 0 or more", fn, r.Damping)
	case (r.Method == Fixed) != (r.Scales != nil):
		return fmt.Errorf("%s: Scales: got %v with %v, want scales with %v and only there", fn, describe(r.Scales), r.Method, Fixed)
	case r.Method == Fixed && cfg.Asymmetric:
		return fmt.Errorf("%s: Method: got %v with Asymmetric, want it symmetric", fn, r.Method)
	}
	return nil
}

// QuantizeWith packs w as Quantize does, with codes chosen by another method. What it returns is of the same kind: formats,
// products and files do not know the method.
func QuantizeWith(w *tensor.Dense, cfg Config, r Rounding) (*Packed, error) {
	return quantizeWith("quantize.QuantizeWith", w, cfg, r)
}

// coder packs columns.
type coder struct {
	cfg        Config
	q          *kernel.Quantized
	clip       bool
	importance []float64 // of each input in Clipped's error, nil for equal
	fixed      []float64 // scales
	gptq       *compensation
}

func newCoder(fn string, cfg Config, r Rounding, q *kernel.Quantized) (*coder, error) {
	if err := r.check(fn, cfg, q.K); err != nil {
		return nil, err
	}
	if r.Moments != nil {
		if err := r.Moments.checkFinite(); err != nil {
			return nil, fmt.Errorf("%s: Moments: %w", fn, err)
		}
	}
	c := &coder{cfg: cfg, q: q, clip: r.Method == Clipped || r.Clip}
	var err error
	switch {
	case r.Method == Fixed:
		if c.fixed, err = fixedScales(r.Scales, layoutOf(cfg, q.K, q.N).scales); err != nil {
			return nil, fmt.Errorf("%s: Scales: %w", fn, err)
		}
		for i, s := range c.fixed {
			q.Scales[i] = float32(s)
		}
	case r.Method == GPTQ:
		if c.gptq, err = newCompensation(r); err != nil {
			return nil, fmt.Errorf("%s: %w", fn, err)
		}
	case r.Moments != nil:
		c.importance = make([]float64, q.K)
		for i := range c.importance {
			c.importance[i] = r.Moments.At(i, i)
		}
	}
	return c, nil
}

// fixedScales reads scales as float32 has them.
func fixedScales(d *tensor.Dense, shape tensor.Shape) ([]float64, error) {
	if d.Dtype() != tensor.Float32 && d.Dtype() != tensor.Float64 {
		return nil, fmt.Errorf("got dtype %v, want float32 or float64", d.Dtype())
	}
	if d.Dims() != shape.Dims() || !d.Shape().Eq(shape) {
		return nil, fmt.Errorf("got shape %v, want %v", d.Shape(), shape)
	}
	scales, err := float64s(d)
	if err != nil {
		return nil, err
	}
	for i, s := range scales {
		s = float64(float32(s))
		if !(s >= 0x1p-126 && s <= math.MaxFloat32) {
			return nil, fmt.Errorf("got %v at element %d, want positive normal numbers of float32", scales[i], i)
		}
		scales[i] = s
	}
	return scales, nil
}

// setGrid stores the scale and zero point of a group of output j.
func (c *coder) setGrid(group, j int, g grid) {
	at := group*c.q.N + j
	c.q.Scales[at] = float32(g.scale)
	if c.cfg.Asymmetric {
		c.q.Zeros[at] = uint8(g.zero)
	}
}

// gridAt is the grid that was stored.
func (c *coder) gridAt(group, j int) grid {
	at := group*c.q.N + j
	if c.cfg.Granularity == PerTensor {
		at = 0
	}
	g := c.cfg.symmetric(float64(c.q.Scales[at]))
	if c.cfg.Asymmetric {
		g.zero, g.least = int(c.q.Zeros[at]), 0
	}
	return g
}

// groupRows is the number of inputs that share scales.
func (c *coder) groupRows() int {
	if c.cfg.Granularity == PerGroup {
		return c.cfg.GroupSize
	}
	return c.q.K
}

// ownGrids reports whether each output chooses grids of its own.
func (c *coder) ownGrids() bool { return c.cfg.Granularity != PerTensor && c.fixed == nil }

// importanceOf is that of inputs p0 to p1.
func (c *coder) importanceOf(p0, p1 int) []float64 {
	if c.importance == nil {
		return nil
	}
	return c.importance[p0:p1]
}

// packColumn stores the codes of output j.
func (c *coder) packColumn(column []float64, j int) {
	size := c.groupRows()
	for p0 := 0; p0 < len(column); p0 += size {
		p1 := min(p0+size, len(column))
		if c.ownGrids() {
			c.setGrid(p0/size, j, c.choose(column[p0:p1], c.importanceOf(p0, p1), p1-p0))
		}
		g := c.gridAt(p0/size, j)
		for p := p0; p < p1; p++ {
			c.q.SetCode(p, j, g.code(column[p]))
		}
	}
}

const (
	clipSteps = 64 // the largest weight is divided into as many
	clipLeast = 20
)

// choose is the grid for weights that share one. importance is that of the first period weights, then of the next ones.
func (c *coder) choose(w, importance []float64, period int) grid {
	lo, hi := rangeOfNumbers(w)
	best := c.cfg.gridOf(lo, hi)
	if !c.clip {
		return best
	}
	least := squares(best, w, importance, period, math.Inf(1))
	for k := clipSteps - 1; k >= clipLeast; k-- {
		ratio := float64(k) / clipSteps
		g := c.cfg.gridOf(lo*ratio, hi*ratio)
		if e := squares(g, w, importance, period, least); e < least {
			best, least = g, e
		}
	}
	return best
}

// squares is the sum of squared errors, or more than enough once it is above enough.
func squares(g grid, w, importance []float64, period int, enough float64) float64 {
	var sum float64
	for p0 := 0; p0 < len(w) && !(sum > enough); p0 += period {
		for i, x := range w[p0:min(p0+period, len(w))] {
			d := float64(g.value(g.code(x))) - x
			if importance != nil {
				d *= d * importance[i]
			} else {
				d *= d
			}
			sum += d
		}
	}
	return sum
}
