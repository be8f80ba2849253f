package quantize

import (
	"fmt"
	"math"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/memory"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// Quantize packs w, a float32 or float64 matrix of (inputs, outputs), or (outputs, inputs) if cfg says that it is transposed, by
// rounding each weight to the nearest code. w is only read. A weight that is not finite is an error that names its place, and so
// is one that FP16 or BF16 could only store as an infinity or, with FP16, beyond 65,504.
func Quantize(w *tensor.Dense, cfg Config) (*Packed, error) {
	return quantizeWith("quantize.Quantize", w, cfg, Rounding{})
}

func quantizeWith(fn string, w *tensor.Dense, cfg Config, r Rounding) (*Packed, error) {
	cfg, err := cfg.normal(fn)
	if err != nil {
		return nil, err
	}
	if err := checkMatrix(fn, w); err != nil {
		return nil, err
	}
	if w.Dtype() == tensor.Float64 {
		return quantize[float64](fn, w, cfg, r)
	}
	return quantize[float32](fn, w, cfg, r)
}

// checkMatrix reports what is no matrix of floats.
func checkMatrix(fn string, w *tensor.Dense) error {
	switch {
	case w == nil:
		return fmt.Errorf("%s: w: got nil, want a matrix", fn)
	case w.Shape().Dims() != 2:
		return fmt.Errorf("%s: w: got shape %v of rank %d, want rank 2", fn, w.Shape(), w.Shape().Dims())
	case w.Shape().TotalSize() == 0:
		return fmt.Errorf("%s: w: got shape %v, want every dimension at least 1", fn, w.Shape())
	case w.Dtype() != tensor.Float32 && w.Dtype() != tensor.Float64:
		return fmt.Errorf("%s: w: got dtype %v, want float32 or float64", fn, w.Dtype())
	}
	return nil
}

// matrix is a strided view of the weights: input p, output j.
type matrix[T kernel.Float] struct {
	data                          []T
	in, out, rowStride, colStride int
	transposed                    bool
}

func (m matrix[T]) at(p, j int) T { return m.data[p*m.rowStride+j*m.colStride] }

// place names an element as the caller sees it.
func (m matrix[T]) place(p, j int) string {
	if m.transposed {
		p, j = j, p
	}
	return fmt.Sprintf("w[%d, %d]", p, j)
}

// matrixOf is the view of numbers of the given shape.
func matrixOf[T kernel.Float](data []T, shape tensor.Shape, transposed bool) matrix[T] {
	if transposed {
		return matrix[T]{data: data, in: shape[1], out: shape[0], rowStride: 1, colStride: shape[1], transposed: true}
	}
	return matrix[T]{data: data, in: shape[0], out: shape[1], rowStride: shape[1], colStride: 1}
}

// panel copies outputs j0 to j1 into dst, one after the other, each with all its inputs.
func (m matrix[T]) panel(dst []float64, j0, j1 int) {
	if m.transposed {
		for j := j0; j < j1; j++ {
			for p := range m.in {
				dst[(j-j0)*m.in+p] = float64(m.at(p, j))
			}
		}
		return
	}
	for p := range m.in {
		for j, x := range m.data[p*m.rowStride+j0 : p*m.rowStride+j1] {
			dst[j*m.in+p] = float64(x)
		}
	}
}

func quantize[T kernel.Float](fn string, w *tensor.Dense, cfg Config, r Rounding) (*Packed, error) {
	data, err := op.Data[T](w)
	if err != nil {
		return nil, fmt.Errorf("%s: w: %w", fn, err)
	}
	m := matrixOf(data, w.Shape(), cfg.Transposed)
	if m.in > kernel.MaxQuantizedRows {
		return nil, fmt.Errorf("%s: w: got %d inputs, want at most %d", fn, m.in, kernel.MaxQuantizedRows)
	}
	if err := m.checkFinite(fn, cfg.Scheme); err != nil {
		return nil, err
	}
	p := newPacked(cfg, m.in, m.out)
	q, err := p.view()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	c, err := newCoder(fn, cfg, r, q)
	if err != nil {
		return nil, err
	}
	if cfg.Granularity == PerTensor && c.fixed == nil {
		all := make([]float64, m.in*m.out)
		m.panel(all, 0, m.out)
		c.setGrid(0, 0, c.choose(all, c.importanceOf(0, m.in), m.in))
	}
	parallel.Run((m.out+kernel.PanelCols-1)/kernel.PanelCols, func(_ *parallel.Worker, i int) {
		j0, j1 := i*kernel.PanelCols, min((i+1)*kernel.PanelCols, m.out)
		columns := make([]float64, (j1-j0)*m.in) // weights are packed once: no scratch is kept for it
		m.panel(columns, j0, j1)
		switch {
		case !cfg.Scheme.HasScales():
			for j := j0; j < j1; j++ {
				for p, x := range columns[(j-j0)*m.in:][:m.in] {
					q.SetCode(p, j, half(cfg.Scheme, x))
				}
			}
		case c.gptq != nil:
			c.compensate(columns, j0, j1)
		default:
			for j := j0; j < j1; j++ {
				c.packColumn(columns[(j-j0)*m.in:][:m.in], j)
			}
		}
	})
	return p, nil
}

// newPacked allocates a matrix of codes that stand for zeros.
func newPacked(cfg Config, in, out int) *Packed {
	p := &Packed{Config: cfg, In: in, Out: out}
	l := layoutOf(cfg, in, out)
	if l.dtype == tensor.Uint16 {
		p.Codes = tensor.New(tensor.WithShape(l.codes...), tensor.WithBacking(memory.Make[uint16](l.codes.TotalSize())))
		return p
	}
	codes := memory.Make[uint8](l.codes.TotalSize())
	if !cfg.Asymmetric {
		middle := cfg.Scheme.coding().Middle()
		if cfg.Scheme == INT4 {
			middle |= middle << 4
		}
		for i := range codes {
			codes[i] = middle
		}
	}
	p.Codes = tensor.New(tensor.WithShape(l.codes...), tensor.WithBacking(codes))
	p.Scales = tensor.New(tensor.WithShape(l.scales...), tensor.WithBacking(memory.Make[float32](l.scales.TotalSize())))
	if l.zeros {
		p.Zeros = tensor.New(tensor.WithShape(l.scales...), tensor.WithBacking(make([]uint8, l.scales.TotalSize())))
	}
	return p
}

// half is the 16 bits of x. From float64 it rounds once.
func half(s Scheme, x float64) int {
	// A float32 that errs to the odd side in its last bit rounds on to 16 bits as x itself does.
	f := float32(x)
	if d := float64(f) - x; d != 0 && math.Float32bits(f)&1 == 0 {
		if d > 0 == (x > 0) {
			f = math.Float32frombits(math.Float32bits(f) - 1)
		} else {
			f = math.Float32frombits(math.Float32bits(f) + 1)
		}
	}
	if s == BF16 {
		return int(kernel.BFloat16Bits(f))
	}
	return int(kernel.Float16Bits(f))
}

// largestOf is the largest magnitude, a NaN if there is one.
func largestOf[T kernel.Float](x []T) float64 {
	const piece = 1 << 16
	parts := make([]T, (len(x)+piece-1)/piece)
	parallel.Run(len(parts), func(_ *parallel.Worker, i int) { parts[i] = kernel.AbsMax(x[i*piece : min((i+1)*piece, len(x))]) })
	return float64(kernel.AbsMax(parts))
}

// checkFinite reports the first weight that cannot be stored.
func (m matrix[T]) checkFinite(fn string, s Scheme) error {
	// Half of the range of float32: a code may stand for half a step more than the largest weight.
	limit, what := 0x1p126, "a finite number of at most 2^126 in magnitude"
	switch s {
	case FP16:
		limit, what = kernel.MaxFloat16, "at most 65504 in magnitude for fp16"
	case BF16:
		limit, what = 0x1.fep127, "at most 3.3895e38 in magnitude for bf16"
	}
	if largestOf(m.data) <= limit {
		return nil
	}
	bad, first := 0, ""
	for i, x := range m.data {
		if !(math.Abs(float64(x)) <= limit) {
			if bad++; bad == 1 {
				p, j := i/m.out, i%m.out
				if m.transposed {
					p, j = i%m.in, i/m.in
				}
				first = fmt.Sprintf("%s: got %v", m.place(p, j), x)
			}
		}
	}
	if bad > 1 {
		return fmt.Errorf("%s: %s, and %d more like it, want %s", fn, first, bad-1, what)
	}
	return fmt.Errorf("%s: %s, want %s", fn, first, what)
}

// Dequantize returns the weights that the codes stand for, float32 of shape (In, Out), or (Out, In) if the Config says that the
// matrix is transposed.
func (p *Packed) Dequantize() (*tensor.Dense, error) {
	const fn = "quantize.Dequantize"
	if p == nil || p.Codes == nil {
		return nil, fmt.Errorf("%s: got no codes, want what Quantize returns", fn)
	}
	q, err := p.view()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	w := make([]float32, p.In*p.Out)
	const rows = 64
	parallel.Run((p.In+rows-1)/rows, func(_ *parallel.Worker, i int) {
		end := min((i+1)*rows, p.In)
		kernel.DequantizeRows(w[i*rows*p.Out:end*p.Out], q, i*rows, end)
	})
	if !p.Config.Transposed {
		return tensor.New(tensor.WithShape(p.In, p.Out), tensor.WithBacking(w)), nil
	}
	t := make([]float32, len(w))
	kernel.Transpose(t, p.In, w, p.Out, p.In, p.Out, 1)
	return tensor.New(tensor.WithShape(p.Out, p.In), tensor.WithBacking(t)), nil
}
