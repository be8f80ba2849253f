package quantize

import (
	"math"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// Weights in float32 are rounded where they lie, columns side by side: a task takes the columns of fakeCols outputs. A transposed
// matrix is turned around for that, task by task. The numbers are those of the loops over float64, to the last bit.
const fakeCols = 64

// wholeClip reports whether one grid is sought for all weights: its errors are summed up in the order of outputs.
func (o *fakeQuantize) wholeClip() bool { return o.clip && o.cfg.Granularity == PerTensor }

// Scratch slots of a worker.
const (
	slotTurned = iota // x, dx, dy of a transposed matrix
	slotTurnedY
	slotTurnedD
	slotGrids
	slotInverse
	slotRange
	slotTried
	slotTriedInverse
	slotErrors
	slotCompact
)

// strip is the weights of some outputs, rows of inputs ld apart.
type strip struct {
	w            *parallel.Worker
	j0, cols, ld int
	x, y, dy     []float32 // y is written; dy may be nil
	grids        kernel.Grids
}

// overStrips calls body for the outputs of each task: y is what is written, dy another matrix that is read, or nil.
func overStrips(m matrix[float32], y, dy []float32, body func(s *strip)) {
	parallel.Run((m.out+fakeCols-1)/fakeCols, func(w *parallel.Worker, i int) {
		j0 := i * fakeCols
		cols := min(fakeCols, m.out-j0)
		s := strip{w: w, j0: j0, cols: cols, ld: m.out}
		if m.transposed {
			s.ld = cols
			n, at := cols*m.in, j0*m.in
			turned := func(slot int, from []float32) []float32 {
				t := parallel.Scratch[float32](w, slot, n)
				kernel.Transpose(t, cols, from[at:], m.in, cols, m.in, 1)
				return t
			}
			s.x, s.y = turned(slotTurned, m.data), parallel.Scratch[float32](w, slotTurnedY, n)
			if dy != nil {
				s.dy = turned(slotTurnedD, dy)
			}
		} else {
			s.x, s.y = m.data[j0:], y[j0:]
			if dy != nil {
				s.dy = dy[j0:]
			}
		}
		s.grids = makeGrids(w, cols, slotGrids, slotInverse)
		body(&s)
		if m.transposed {
			kernel.Transpose(y[j0*m.in:], m.in, s.y, cols, m.in, cols, 1)
		}
	})
}

// makeGrids returns grids in scratch.
func makeGrids(w *parallel.Worker, cols, floats, inverse int) kernel.Grids {
	return kernel.MakeGrids(cols, parallel.Scratch[float32](w, floats, kernel.GridFloats(cols)), parallel.Scratch[float64](w, inverse, cols))
}

// set makes g the grid of column j.
func (s *strip) set(j int, g grid) { s.grids.Set(j, float32(g.scale), g.least-g.zero, g.most-g.zero) }

// overGrids calls body for each group of rows of a strip, from p0 on, when the grids of its columns are known.
func (o *fakeQuantize) overGrids(m matrix[float32], scales []float32, y, dy []float32, body func(s *strip, group, p0, rows int)) {
	c := coder{cfg: o.cfg, clip: o.clip, q: &kernel.Quantized{K: m.in, N: m.out}}
	size := c.groupRows()
	var shared grid
	if o.cfg.Granularity == PerTensor {
		if o.learned {
			shared = o.cfg.symmetric(float64(scales[0]))
		} else {
			shared = o.cfg.gridOf(rangeOfAll(m.data))
		}
	}
	overStrips(m, y, dy, func(s *strip) {
		for p0 := 0; p0 < m.in; p0 += size {
			rows := min(size, m.in-p0)
			switch {
			case o.cfg.Granularity == PerTensor:
				if p0 == 0 {
					for j := range s.cols {
						s.set(j, shared)
					}
				}
			case o.learned:
				for j := range s.cols {
					s.set(j, o.cfg.symmetric(float64(scales[p0/size*m.out+s.j0+j])))
				}
			default:
				s.choose(&c, p0, rows)
			}
			body(s, p0/size, p0, rows)
		}
	})
}

// choose finds the grid of each column for rows from p0 on.
func (s *strip) choose(c *coder, p0, rows int) {
	ends := parallel.Scratch[float32](s.w, slotRange, 2*s.cols)
	clear(ends)
	lo, hi := ends[:s.cols], ends[s.cols:]
	x := s.x[p0*s.ld:]
	kernel.ColumnRange(lo, hi, x, s.ld, rows)
	for j := range lo {
		s.set(j, c.cfg.gridOf(float64(lo[j]), float64(hi[j])))
	}
	if !c.clip {
		return
	}
	ld := s.ld
	if ld != s.cols { // all candidates read it
		compact := parallel.Scratch[float32](s.w, slotCompact, rows*s.cols)
		for i := range rows {
			copy(compact[i*s.cols:][:s.cols], x[i*ld:])
		}
		x, ld = compact, s.cols
	}
	errors := parallel.Scratch[float64](s.w, slotErrors, 2*s.cols)
	clear(errors)
	least, sum := errors[:s.cols], errors[s.cols:]
	kernel.ColumnErrors(least, x, ld, rows, s.grids)
	tried := makeGrids(s.w, s.cols, slotTried, slotTriedInverse)
	for k := clipSteps - 1; k >= clipLeast; k-- {
		ratio := float64(k) / clipSteps
		for j := range lo {
			g := c.cfg.gridOf(float64(lo[j])*ratio, float64(hi[j])*ratio)
			tried.Set(j, float32(g.scale), g.least-g.zero, g.most-g.zero)
		}
		clear(sum)
		kernel.ColumnErrors(sum, x, ld, rows, tried)
		for j, e := range sum {
			if e < least[j] {
				least[j] = e
				s.grids.Scale[j], s.grids.Inverse[j], s.grids.Low[j], s.grids.High[j] = tried.Scale[j], tried.Inverse[j], tried.Low[j], tried.High[j]
			}
		}
	}
}

// overPieces calls body for pieces of n numbers at the same time.
func overPieces(n int, body func(lo, hi int)) {
	const piece = 1 << 16
	parallel.Run((n+piece-1)/piece, func(_ *parallel.Worker, i int) { body(i*piece, min((i+1)*piece, n)) })
}

// rangeOfAll is the smallest and the largest of x and 0.
func rangeOfAll(x []float32) (lo, hi float64) {
	const piece = 1 << 15
	parts := make([][2]float32, (len(x)+piece-1)/piece)
	parallel.Run(len(parts), func(_ *parallel.Worker, i int) {
		parts[i][0], parts[i][1] = kernel.RowRange(x[i*piece : min((i+1)*piece, len(x))])
	})
	for _, p := range parts {
		lo, hi = min(lo, float64(p[0])), max(hi, float64(p[1]))
	}
	return lo, hi
}

// fakeForward32 rounds x into y.
func fakeForward32(o *fakeQuantize, m matrix[float32], scales, y []float32) {
	if !o.cfg.Scheme.HasScales() {
		overPieces(len(y), func(lo, hi int) {
			var half [1 << 10]uint16
			for i := lo; i < hi; i += len(half) {
				end := min(i+len(half), hi)
				h := half[:end-i]
				if o.cfg.Scheme == FP16 {
					kernel.ToFloat16(h, m.data[i:end])
					kernel.FromFloat16(y[i:end], h)
				} else {
					kernel.ToBFloat16(h, m.data[i:end])
					kernel.FromBFloat16(y[i:end], h)
				}
			}
		})
		return
	}
	o.overGrids(m, scales, y, nil, func(s *strip, _, p0, rows int) {
		kernel.RoundColumns(s.y[p0*s.ld:], s.x[p0*s.ld:], s.ld, rows, s.grids)
	})
}

// clipBackward32 writes the gradient of x for scales that clip.
func clipBackward32(o *fakeQuantize, m matrix[float32], dy, dx []float32) {
	o.overGrids(m, nil, dx, dy, func(s *strip, _, p0, rows int) {
		at := p0 * s.ld
		kernel.PassColumns(s.y[at:], s.dy[at:], s.x[at:], s.ld, rows, s.grids)
	})
}

// learnedBackward32 is learnedBackward for weights in float32.
func learnedBackward32(o *fakeQuantize, m matrix[float32], scales, dy, dx, ds []float32) {
	q := float64(o.cfg.Scheme.levels()/2 - 1)
	perTensor := o.cfg.Granularity == PerTensor
	parts := make([]float64, m.out)
	o.overGrids(m, scales, dx, dy, func(s *strip, group, p0, rows int) {
		at, sums := p0*s.ld, parts[s.j0:][:s.cols]
		clear(sums)
		kernel.LearnColumns(s.y[at:], sums, s.dy[at:], s.x[at:], s.ld, rows, s.grids)
		if perTensor {
			return
		}
		for j, sum := range sums {
			ds[group*m.out+s.j0+j] = float32(sum / math.Sqrt(float64(rows)*q))
		}
	})
	if perTensor {
		ds[0] = float32(total(parts) / math.Sqrt(float64(len(m.data))*q))
	}
}
