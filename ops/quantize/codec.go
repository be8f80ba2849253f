package quantize

import (
	"fmt"
	"math"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// Quantize packs w, a float32 or float64 matrix of (inputs, outputs), or (outputs, inputs) if cfg says that it is transposed.
// w is only read. A weight that is not finite is an error that names its place, and so is one that FP16 or BF16 could only
// store as an infinity or, with FP16, beyond 65,504.
func Quantize(w *tensor.Dense, cfg Config) (*Packed, error) {
	const fn = "quantize.Quantize"
	cfg, err := cfg.normal(fn)
	if err != nil {
		return nil, err
	}
	switch {
	case w == nil:
		return nil, fmt.Errorf("%s: w: got nil, want a matrix", fn)
	case w.Shape().Dims() != 2:
		return nil, fmt.Errorf("%s: w: got shape %v of rank %d, want rank 2", fn, w.Shape(), w.Shape().Dims())
	case w.Shape().TotalSize() == 0:
		return nil, fmt.Errorf("%s: w: got shape %v, want every dimension at least 1", fn, w.Shape())
	}
	switch w.Dtype() {
	case tensor.Float32:
		return quantize[float32](fn, w, cfg)
	case tensor.Float64:
		return quantize[float64](fn, w, cfg)
	}
	return nil, fmt.Errorf("%s: w: got dtype %v, want float32 or float64", fn, w.Dtype())
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

func quantize[T kernel.Float](fn string, w *tensor.Dense, cfg Config) (*Packed, error) {
	data, err := op.Data[T](w)
	if err != nil {
		return nil, fmt.Errorf("%s: w: %w", fn, err)
	}
	m := matrix[T]{data: data, in: w.Shape()[0], out: w.Shape()[1], rowStride: w.Shape()[1], colStride: 1}
	if cfg.Transposed {
		m = matrix[T]{data: data, in: m.out, out: m.in, rowStride: 1, colStride: m.out, transposed: true}
	}
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
	var scale float64
	var zero int
	if cfg.Granularity == PerTensor {
		scale, zero = m.params(cfg, 0, m.in, 0, m.out)
		q.Scales[0] = float32(scale)
		if cfg.Asymmetric {
			q.Zeros[0] = uint8(zero)
		}
	}
	panels := p.Codes.Shape()[0]
	parallel.Run(panels, func(_ *parallel.Worker, i int) {
		for j := i * kernel.PanelCols; j < min((i+1)*kernel.PanelCols, m.out); j++ {
			if cfg.Scheme.HasScales() {
				m.packColumn(q, cfg, j, scale, zero)
				continue
			}
			for p := range m.in {
				q.SetCode(p, j, half(cfg.Scheme, float64(m.at(p, j))))
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
		p.Codes = tensor.New(tensor.WithShape(l.codes...), tensor.WithBacking(make([]uint16, l.codes.TotalSize())))
		return p
	}
	codes := make([]uint8, l.codes.TotalSize())
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
	p.Scales = tensor.New(tensor.WithShape(l.scales...), tensor.WithBacking(make([]float32, l.scales.TotalSize())))
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
	if float64(kernel.AbsMax(m.data)) <= limit {
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

// params chooses the scale and zero point of inputs p0 to p1, outputs j0 to j1. The scale is a float32, and a normal one, so
// that codes times it are as exact as can be.
func (m matrix[T]) params(cfg Config, p0, p1, j0, j1 int) (scale float64, zero int) {
	var lo, hi float64
	for p := p0; p < p1; p++ {
		for j := j0; j < j1; j++ {
			x := float64(m.at(p, j))
			lo, hi = min(lo, x), max(hi, x)
		}
	}
	levels := cfg.Scheme.levels()
	if !cfg.Asymmetric {
		return normalScale(max(-lo, hi) / float64(levels/2-1)), levels / 2
	}
	scale = normalScale((hi - lo) / float64(levels-1))
	return scale, min(int(math.RoundToEven(-lo/scale)), levels-1)
}

// normalScale is s rounded to float32, at least the smallest normal number.
func normalScale(s float64) float64 { return max(float64(float32(s)), 0x1p-126) }

// packColumn stores the codes of output j, with its own scales unless there is one for all.
func (m matrix[T]) packColumn(q *kernel.Quantized, cfg Config, j int, scale float64, zero int) {
	levels := cfg.Scheme.levels()
	least := 0
	if !cfg.Asymmetric {
		least = 1 // as far below the middle as above it
	}
	size := m.in
	if cfg.Granularity == PerGroup {
		size = cfg.GroupSize
	}
	for p0 := 0; p0 < m.in; p0 += size {
		p1 := min(p0+size, m.in)
		if cfg.Granularity != PerTensor {
			scale, zero = m.params(cfg, p0, p1, j, j+1)
			at := p0/size*m.out + j
			q.Scales[at] = float32(scale)
			if cfg.Asymmetric {
				q.Zeros[at] = uint8(zero)
			}
		}
		for p := p0; p < p1; p++ {
			c := int(math.RoundToEven(float64(m.at(p, j))/scale)) + zero
			q.SetCode(p, j, min(max(c, least), levels-1))
		}
	}
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
