package quantize

import (
	"fmt"
	"math"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// fakeArgs reads x and the scales.
func fakeArgs[T kernel.Float](o *fakeQuantize, in []G.Value) (x, scales []T, err error) {
	if x, err = op.Elements[T](o.Name(), "x", in[0], o.OutShape().TotalSize()); err != nil {
		return nil, nil, err
	}
	if !o.rows {
		if err := matrixOf(x, o.OutShape(), o.cfg.Transposed).checkFinite(o.Name(), o.cfg.Scheme); err != nil {
			return nil, nil, err
		}
	}
	if !o.learned {
		return x, nil, nil
	}
	if scales, err = op.Elements[T](o.Name(), "Scale", in[1], o.scales.TotalSize()); err != nil {
		return nil, nil, err
	}
	for i, s := range scales {
		if !(s >= 0x1p-126 && float64(s) <= math.MaxFloat32) {
			return nil, nil, fmt.Errorf("%s: Scale: got %v at element %d, want positive normal numbers of float32", o.Name(), s, i)
		}
	}
	return x, scales, nil
}

func fakeForward[T kernel.Float](o *fakeQuantize, in []G.Value) (G.Value, error) {
	x, scales, err := fakeArgs[T](o, in)
	if err != nil {
		return nil, err
	}
	out, y := op.NewUnset[T](o.OutShape())
	if o.rows {
		overRows(o, func(_, lo, hi, dim int) {
			for a := lo * dim; a < hi*dim; a += dim {
				if o.learned {
					roundStatic(y[a:a+dim], x[a:a+dim], scales[0])
				} else {
					roundDynamic(y[a:a+dim], x[a:a+dim])
				}
			}
		})
		return out, nil
	}
	m := matrixOf(x, o.OutShape(), o.cfg.Transposed)
	if m32, ok := any(m).(matrix[float32]); ok && !o.wholeClip() {
		fakeForward32(o, m32, any(scales).([]float32), any(y).([]float32))
		return out, nil
	}
	overGroups(o, m, scales, func(j, p0, _ int, g grid, group []float64) {
		for i, v := range group {
			at := (p0+i)*m.rowStride + j*m.colStride
			switch {
			case o.cfg.Scheme == FP16:
				y[at] = T(kernel.Float16Value(uint16(half(FP16, v))))
			case o.cfg.Scheme == BF16:
				y[at] = T(kernel.BFloat16Value(uint16(half(BF16, v))))
			case o.learned:
				y[at] = T(g.scale) * T(g.code(v)-g.zero)
			default:
				y[at] = T(g.value(g.code(v)))
			}
		}
	})
	return out, nil
}

// roundDynamic rounds a row to 8 bits with its own scale, in the arithmetic of kernel.GemmDynamic.
func roundDynamic[T kernel.Float](y, x []T) {
	largest := max(float64(kernel.AbsMax(x)), 0x1p-100)
	scale, inverse := T(largest/127), T(127/largest)
	if d := T(largest) - T(largest); d != 0 { // NaN and infinities
		scale, inverse = T(math.NaN()), 0
	}
	kernel.RoundToScale(y, x, scale, inverse, T(math.Inf(1)))
}

// roundStatic rounds numbers to codes of 8 bits with a given scale, in the arithmetic of kernel.GemmStatic.
func roundStatic[T kernel.Float](y, x []T, scale T) {
	kernel.RoundToScale(y, x, scale, 1/scale, 127*scale)
}

const fakeRows = 32 // rows of a task

// overRows calls body for the rows [lo, hi) of a task, each of dim numbers.
func overRows(o *fakeQuantize, body func(task, lo, hi, dim int)) {
	shape := o.OutShape()
	dim := shape[shape.Dims()-1]
	rows := shape.TotalSize() / dim
	parallel.Run((rows+fakeRows-1)/fakeRows, func(_ *parallel.Worker, i int) {
		body(i, i*fakeRows, min((i+1)*fakeRows, rows), dim)
	})
}

// overGroups calls body for each set of weights of one output that share a scale: group at of output j, which are inputs p0,
// p0+1, … Outputs of different panels of 16 are taken at the same time.
func overGroups[T kernel.Float](o *fakeQuantize, m matrix[T], scales []T, body func(j, p0, at int, g grid, group []float64)) {
	c := coder{cfg: o.cfg, clip: o.clip, q: &kernel.Quantized{K: m.in, N: m.out}}
	size := c.groupRows()
	var shared grid
	if o.cfg.Granularity == PerTensor && !o.learned {
		if o.clip {
			all := make([]float64, m.in*m.out)
			m.panel(all, 0, m.out)
			shared = c.choose(all, nil, m.in)
		} else {
			var lo, hi T
			for _, x := range m.data {
				lo, hi = min(lo, x), max(hi, x)
			}
			shared = o.cfg.gridOf(float64(lo), float64(hi))
		}
	}
	parallel.Run((m.out+kernel.PanelCols-1)/kernel.PanelCols, func(w *parallel.Worker, i int) {
		j0, j1 := i*kernel.PanelCols, min((i+1)*kernel.PanelCols, m.out)
		columns := parallel.Scratch[float64](w, 0, (j1-j0)*m.in)
		m.panel(columns, j0, j1)
		for j := j0; j < j1; j++ {
			column := columns[(j-j0)*m.in:][:m.in]
			for p0 := 0; p0 < m.in; p0 += size {
				group := column[p0:min(p0+size, m.in)]
				g, at := shared, 0
				if o.cfg.Granularity != PerTensor {
					at = p0/size*m.out + j
				}
				switch {
				case o.learned:
					g = o.cfg.symmetric(float64(scales[at]))
				case o.cfg.Scheme.HasScales() && o.cfg.Granularity != PerTensor:
					g = c.choose(group, nil, size)
				}
				body(j, p0, at, g, group)
			}
		}
	})
}

func fakeBackward[T kernel.Float](o *fakeQuantize, in []G.Value, dOut G.Value, dIn []*tensor.Dense) error {
	x, scales, err := fakeArgs[T](o, in)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, len(x))
	if err != nil {
		return err
	}
	dx := op.Memory[T](dIn[0])
	switch {
	case o.learned:
		learnedBackward(o, x, scales, dy, dx, op.Memory[T](dIn[1]))
	case !o.clip:
		overPieces(len(dx), func(lo, hi int) { copy(dx[lo:hi], dy[lo:]) })
	default:
		m := matrixOf(x, o.OutShape(), o.cfg.Transposed)
		if m32, ok := any(m).(matrix[float32]); ok && !o.wholeClip() {
			clipBackward32(o, m32, any(dy).([]float32), any(dx).([]float32))
			return nil
		}
		overGroups(o, m, scales, func(j, p0, _ int, g grid, group []float64) {
			for i, v := range group {
				at := (p0+i)*m.rowStride + j*m.colStride
				if r := v / g.scale; r >= float64(g.least-g.zero)-0.5 && r <= float64(g.most-g.zero)+0.5 {
					dx[at] = dy[at]
				}
			}
		})
	}
	return nil
}

// learnedBackward writes dx and ds. Sums are taken in float64, of scales that tasks share task by task.
func learnedBackward[T kernel.Float](o *fakeQuantize, x, scales, dy, dx, ds []T) {
	q := float64(o.cfg.Scheme.levels()/2 - 1)
	shape := o.OutShape()
	if o.rows {
		dim := shape[shape.Dims()-1]
		rows := len(x) / dim
		parts := make([]float64, (rows+fakeRows-1)/fakeRows)
		overRows(o, func(task, lo, hi, dim int) {
			for i := lo * dim; i < hi*dim; i++ {
				var s float64
				dx[i], s = kernel.Learn(float64(x[i])/float64(scales[0]), q, dy[i])
				parts[task] += s
			}
		})
		ds[0] = T(total(parts) / math.Sqrt(float64(dim)*q))
		return
	}
	m := matrixOf(x, shape, o.cfg.Transposed)
	if m32, ok := any(m).(matrix[float32]); ok {
		learnedBackward32(o, m32, any(scales).([]float32), any(dy).([]float32), any(dx).([]float32), any(ds).([]float32))
		return
	}
	perTensor := o.cfg.Granularity == PerTensor
	parts := make([]float64, m.out)
	overGroups(o, m, scales, func(j, p0, at int, g grid, group []float64) {
		var sum float64
		for i, v := range group {
			k := (p0+i)*m.rowStride + j*m.colStride
			var s float64
			dx[k], s = kernel.Learn(v/g.scale, q, dy[k])
			sum += s
		}
		if perTensor {
			parts[j] += sum
		} else {
			ds[at] = T(sum / math.Sqrt(float64(len(group))*q))
		}
	})
	if perTensor {
		ds[0] = T(total(parts) / math.Sqrt(float64(len(x))*q))
	}
}

func total(x []float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum
}
