//go:build cuda

package quantize

import (
	G "gorgonia.org/gorgonia"

	"stheno/internal/op"
)

// fakeOpFor is o on the card.
func fakeOpFor(o *fakeQuantize) G.Op { return &cudaFakeQuantize{o} }

// cudaFakeQuantize is fakeQuantize on a card. What Do has an error for, a weight that cannot be stored or a scale that is not positive,
// makes NaN there. The squares that Clip adds up for a whole matrix are summed column by column, and so are the sums: grids that err alike
// but for roundings may be taken one for the other.
type cudaFakeQuantize struct{ *fakeQuantize }

var (
	_ G.CUDADoer        = (*cudaFakeQuantize)(nil)
	_ op.CUDABackwarder = (*cudaFakeQuantize)(nil)
)

func (o *cudaFakeQuantize) CallsExtern() bool { return true }

// SymDiff builds the gradient for a TapeMachine.
func (o *cudaFakeQuantize) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// fakeMatrix is x as a matrix of weights on the card: its sizes and strides, and how many rows share a grid.
type fakeMatrix struct{ in, out, row, col, group, many, levels, asymmetric int }

func (o *cudaFakeQuantize) matrix() fakeMatrix {
	shape := o.OutShape()
	m := fakeMatrix{many: 1, levels: o.cfg.Scheme.levels()}
	switch {
	case o.rows: // a row is a column of weights, and all share one scale
		m.in = shape[shape.Dims()-1]
		m.out = shape.TotalSize() / m.in
		m.row, m.col = 1, m.in
	case o.cfg.Transposed:
		m.out, m.in = shape[0], shape[1]
		m.row, m.col = 1, m.in
	default:
		m.in, m.out = shape[0], shape[1]
		m.row, m.col = m.out, 1
	}
	m.group = m.in
	switch o.cfg.Granularity {
	case PerGroup:
		m.group = o.cfg.GroupSize
	case PerTensor:
		m.many = 0
	}
	if o.cfg.Asymmetric {
		m.asymmetric = 1
	}
	return m
}

func (m fakeMatrix) groups() int { return (m.in + m.group - 1) / m.group * m.out }

// grids lends f the grids of x: those of the scales that are learned, or those that x asks for.
func (o *cudaFakeQuantize) grids(c *op.Card, in []G.Value, f func(m fakeMatrix, grids op.DevicePtr) error) error {
	const size, threads, most = 16, 128, 4096 // a grid is two float64
	m, suffix := o.matrix(), op.Suffix(in[0])
	count := m.groups()
	if m.many == 0 {
		count = 1
	}
	launch := func(kernel string, n int, params ...any) error {
		return c.Launch("fake.fake_"+kernel, [3]int{min((n+threads-1)/threads, most)}, [3]int{threads}, 0, params...)
	}
	return c.Scratch(size*count, func(grids op.DevicePtr) error {
		var err error
		switch {
		case o.learned:
			err = launch("learned"+suffix, count, grids, in[1], count, m.levels)
		case m.many == 0:
			err = c.Scratch(size*m.out, func(ranges op.DevicePtr) error {
				if err := launch("range"+suffix, m.out, ranges, in[0], m.in, m.out, m.row, m.col); err != nil {
					return err
				}
				if o.clip {
					return o.clipped(c, m, in[0], grids, ranges)
				}
				return c.Launch("fake.fake_whole_f64", [3]int{1}, [3]int{32}, 0, grids, ranges, m.out, m.levels, m.asymmetric)
			})
		default:
			steps, least := 0, 0
			if o.clip {
				steps, least = clipSteps, clipLeast
			}
			err = launch("grid"+suffix, count, grids, in[0], m.in, m.out, m.row, m.col, m.group, m.levels, m.asymmetric, steps, least)
		}
		if err != nil {
			return err
		}
		return f(m, grids)
	})
}

// clipped finds the grid of all of x that errs least.
func (o *cudaFakeQuantize) clipped(c *op.Card, m fakeMatrix, x G.Value, grid, ranges op.DevicePtr) error {
	const size, tries = 16, clipSteps - clipLeast + 1
	return c.Scratch(size*tries, func(all op.DevicePtr) error {
		if err := c.Launch("fake.fake_tries_f64", [3]int{1}, [3]int{32}, 0, all, ranges, m.out, m.levels, m.asymmetric, clipSteps, clipLeast); err != nil {
			return err
		}
		return c.Scratch(8*tries*m.out, func(sums op.DevicePtr) error {
			if err := c.Launch("fake.fake_squares"+op.Suffix(x), [3]int{min((tries*m.out+127)/128, 4096)}, [3]int{128}, 0, sums, x, all, tries,
				m.in, m.out, m.row, m.col, m.levels, m.asymmetric); err != nil {
				return err
			}
			return c.Launch("fake.fake_best_f64", [3]int{1}, [3]int{32}, 0, grid, all, sums, tries, m.out)
		})
	})
}

// CUDADo is Do on a card.
func (o *cudaFakeQuantize) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		x, suffix, n := in[0], op.Suffix(in[0]), o.OutShape().TotalSize()
		switch {
		case o.rows && !o.learned:
			m := o.matrix()
			return c.Launch("fake.fake_rows"+suffix, [3]int{min(m.out, 65535)}, [3]int{256}, 0, prealloc, x, m.out, m.in)
		case o.cfg.Scheme == FP16:
			return c.Launch("fake.fake_half"+suffix, [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, prealloc, x, n, 10, -14, 65504.0)
		case o.cfg.Scheme == BF16:
			return c.Launch("fake.fake_half"+suffix, [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, prealloc, x, n, 7, -126, 0x1.fep127)
		}
		return o.grids(c, in, func(m fakeMatrix, grids op.DevicePtr) error {
			if o.rows {
				return c.Elementwise("fake.fake_static"+suffix, n, prealloc, x, grids)
			}
			learned := 0
			if o.learned {
				learned = 1
			}
			return c.Launch("fake.fake_codes"+suffix, [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, prealloc, x, grids,
				m.in, m.out, m.row, m.col, m.group, m.many, m.levels, m.asymmetric, learned)
		})
	})
}

// CUDABackward is Backward on a card.
func (o *cudaFakeQuantize) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	suffix, n := op.Suffix(dOut), o.OutShape().TotalSize()
	if !o.learned && !o.clip {
		return c.Copy(dIn[0], dOut, n*op.SizeOf(suffix))
	}
	return o.grids(c, in, func(m fakeMatrix, grids op.DevicePtr) error {
		if !o.learned {
			return c.Launch("fake.fake_within"+suffix, [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, dIn[0], in[0], dOut, grids,
				m.in, m.out, m.row, m.col, m.group, m.many, m.levels, m.asymmetric)
		}
		grid, block := [3]int{min((m.groups()+127)/128, 4096)}, [3]int{128}
		gradients := func(parts any) error {
			return c.Launch("fake.fake_grad"+suffix, grid, block, 0, dIn[0], dIn[1], parts, in[0], dOut, grids,
				m.in, m.out, m.row, m.col, m.group, m.many, m.levels)
		}
		if m.many == 1 {
			return gradients(nil)
		}
		return c.Scratch(8*m.out, func(parts op.DevicePtr) error {
			if err := gradients(parts); err != nil {
				return err
			}
			count := n // the numbers that share the scale; of Rows, the length of one
			if o.rows {
				count = m.in
			}
			return c.Launch("fake.fake_total"+suffix, [3]int{1}, [3]int{32}, 0, dIn[1], parts, m.out, count, m.levels)
		})
	})
}
