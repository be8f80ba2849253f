package quantize

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// Packed is a quantized matrix of In×Out weights. Its tensors are ordinary ones, and the only copy of the weights.
//
// Codes lie in panels of 16 outputs, the order in which the kernels read them for one row of inputs as well as for many; the
// last panel and the last step of each are filled up. The layout does not depend on the processor.
//
//	Scheme  Codes
//	FP16    uint16 (⌈Out/16⌉, In, 16)         input p, output 16i+j at [i, p, j]
//	BF16    uint16 (⌈Out/16⌉, ⌈In/2⌉, 32)     at [i, p/2, 2j + p%2]
//	INT8    uint8  (⌈Out/16⌉, ⌈In/4⌉, 64)     at [i, p/4, 4j + p%4]
//	INT4    uint8  (⌈Out/16⌉, ⌈In/8⌉, 64)     at [i, p/8, 4j + p%4], the high nibble for p%8 ≥ 4
type Packed struct {
	Config  Config // with defaults filled in
	In, Out int

	Codes *tensor.Dense
	// Scales, float32, has shape (1) for PerTensor and (groups, Out) otherwise, with one group for PerChannel. Nil for FP16 and
	// BF16.
	Scales *tensor.Dense
	// Zeros are the zero points, uint8 of the shape of Scales; nil if symmetric.
	Zeros *tensor.Dense
}

// Bytes is the memory that the weights take: the size of the tensors' data.
func (p *Packed) Bytes() int {
	n := int(p.Codes.MemSize())
	if p.Scales != nil {
		n += int(p.Scales.MemSize())
	}
	if p.Zeros != nil {
		n += int(p.Zeros.MemSize())
	}
	return n
}

// layout is the shapes and dtypes that a format has.
type layout struct {
	codes, scales tensor.Shape // scales nil for FP16 and BF16
	dtype         tensor.Dtype // of codes
	zeros         bool
}

// layoutOf is the layout of a normal Config.
func layoutOf(c Config, in, out int) layout {
	coding := c.Scheme.coding()
	panels, steps := (out+kernel.PanelCols-1)/kernel.PanelCols, (in+coding.StepRows()-1)/coding.StepRows()
	l := layout{codes: tensor.Shape{panels, steps, coding.CodeLen(in, out) / (panels * steps)}, dtype: tensor.Uint16}
	if !c.Scheme.HasScales() {
		return l
	}
	l.dtype, l.zeros = tensor.Uint8, c.Asymmetric
	switch c.Granularity {
	case PerTensor:
		l.scales = tensor.Shape{1}
	case PerChannel:
		l.scales = tensor.Shape{1, out}
	default:
		l.scales = tensor.Shape{(in + c.GroupSize - 1) / c.GroupSize, out}
	}
	return l
}

// view is the matrix as kernels see it.
func view(c Config, in, out int, codes, scales, zeros G.Value) (*kernel.Quantized, error) {
	q := &kernel.Quantized{Coding: c.Scheme.coding(), K: in, N: out, Group: c.GroupSize}
	l := layoutOf(c, in, out)
	var err error
	if !c.Scheme.HasScales() {
		q.Halves, err = numbers[uint16]("codes", codes, l.codes.TotalSize())
		return q, err
	}
	if q.Codes, err = numbers[uint8]("codes", codes, l.codes.TotalSize()); err != nil {
		return nil, err
	}
	if q.Scales, err = numbers[float32]("scales", scales, l.scales.TotalSize()); err != nil {
		return nil, err
	}
	if l.zeros {
		q.Zeros, err = numbers[uint8]("zeros", zeros, l.scales.TotalSize())
	}
	return q, err
}

// view is the matrix as kernels see it.
func (p *Packed) view() (*kernel.Quantized, error) {
	values := make([]G.Value, 3)
	for i, d := range []*tensor.Dense{p.Codes, p.Scales, p.Zeros} {
		if d != nil {
			values[i] = d
		}
	}
	return view(p.Config, p.In, p.Out, values[0], values[1], values[2])
}

// numbers returns the n numbers of a tensor: its memory, or a copy of a view.
func numbers[T uint8 | uint16 | float32](name string, v G.Value, n int) ([]T, error) {
	d, ok := v.(*tensor.Dense)
	if !ok || d == nil {
		return nil, fmt.Errorf("%s: got a value of type %T, want *tensor.Dense", name, v)
	}
	var x []T
	switch data := d.Data().(type) {
	case []T:
		x = op.RowMajor(d, data)
	case T: // a view of one element
		x = []T{data}
	default:
		return nil, fmt.Errorf("%s: got a tensor of %v, want %T", name, d.Dtype(), *new(T))
	}
	if len(x) != n {
		return nil, fmt.Errorf("%s: got %d elements, want %d", name, len(x), n)
	}
	return x, nil
}
