//go:build cuda

package quantize

import (
	G "gorgonia.org/gorgonia"

	"stheno/cudamodules"
	"stheno/internal/op"
	"stheno/ops"
)

// The nodes that run on a card under the build tag cuda. CallsExtern makes the machine set memory aside for the result; the checks of Do
// are made when the graph is built, and a value on the card has its node's shape.

var (
	_ G.CUDADoer        = (*matMul)(nil)
	_ op.CUDABackwarder = (*matMul)(nil)
	_ G.CUDADoer        = (*embedding)(nil)
	_ G.CUDADoer        = (*matMuls)(nil)
)

// cardMatrix is a quantized matrix as kernels take it: codes, scales, zeros, and its sizes.
type cardMatrix struct {
	scheme        string
	codes         [3]any
	in, out       int
	group, shared int
}

// onCard finds the matrix among the inputs from in[0] on, and returns the inputs after it.
func onCard(c Config, inputs, outputs int, in []G.Value) (m cardMatrix, rest []G.Value) {
	m = cardMatrix{scheme: c.Scheme.String(), in: inputs, out: outputs, group: inputs, shared: 1}
	m.codes[0], rest = in[0], in[1:]
	if c.Scheme.HasScales() {
		m.codes[1], rest = rest[0], rest[1:]
		if c.Asymmetric {
			m.codes[2], rest = rest[0], rest[1:]
		}
	}
	switch c.Granularity {
	case PerGroup:
		m.group = c.GroupSize
	case PerTensor:
		m.shared = 0
	}
	return m, rest
}

// launch starts a kernel of module quantized: name_scheme_dtype, with the matrix between head and tail, and its sizes after count.
func (m cardMatrix) launch(c *op.Card, name, suffix string, grid, block [3]int, head []any, count []any, tail ...any) error {
	params := append(append(head, m.codes[:]...), count...)
	params = append(append(params, m.in, m.out, m.group, m.shared), tail...)
	return c.Launch("quantized."+name+"_"+m.scheme+suffix, grid, block, 0, params...)
}

// rowGrid is that of the kernels for a few rows: a block for a panel of 16 columns and four rows.
func (m cardMatrix) rowGrid(rows int) (grid, block [3]int) {
	return [3]int{(m.out + 15) / 16, (rows + 3) / 4}, [3]int{256}
}

// product is y = x·ŵ.
func (m cardMatrix) product(c *op.Card, suffix string, rows int, y, x any) error {
	if rows <= cudamodules.FewRows {
		grid, block := m.rowGrid(rows)
		return m.launch(c, "quantized_row", suffix, grid, block, []any{y, x}, []any{rows})
	}
	g := cudamodules.ProductGeometry(op.SizeOf(suffix), rows, m.out, 1)
	return m.launch(c, "quantized", suffix, g.Grid, g.Block, []any{y, x}, []any{rows})
}

// turned is dx = dz·ŵᵀ.
func (m cardMatrix) turned(c *op.Card, suffix string, rows int, dx, dz any) error {
	g := cudamodules.ProductGeometry(op.SizeOf(suffix), rows, m.in, 1)
	return m.launch(c, "quantized_turned", suffix, g.Grid, g.Block, []any{dx, dz}, []any{rows})
}

// rounded is y = x̂·ŵ with x rounded to 8 bits, by a scale for each row or the given one. The integers are a quarter of x.
func (m cardMatrix) rounded(c *op.Card, suffix string, rows int, y, x any, given float64) error {
	pitch := (m.in + 63) / 64 * 64
	return c.Scratch(rows*pitch, func(q op.DevicePtr) error {
		return c.Scratch(rows*op.SizeOf(suffix), func(scales op.DevicePtr) error {
			if err := c.Launch("quantized.round_rows"+suffix, [3]int{min(rows, 65535)}, [3]int{256}, 0,
				q, scales, x, rows, m.in, pitch, given); err != nil {
				return err
			}
			name, grid, block := "rounded", [3]int{(rows + 63) / 64, (m.out + 127) / 128}, [3]int{256}
			if rows <= cudamodules.FewRows {
				name = "rounded_row"
				grid, block = m.rowGrid(rows)
			}
			return m.launch(c, name, suffix, grid, block, []any{y, q, scales}, []any{rows}, pitch)
		})
	})
}

func (o *matMul) CallsExtern() bool { return true }

// CUDADo is Do on a card: the product, then bias and activation.
func (o *matMul) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		z := prealloc
		if o.keeps {
			z = in[len(in)-1]
		}
		return o.productOnCard(c, prealloc, z, in)
	})
}

// productOnCard is y, by way of z, which may be the same.
func (o *matMul) productOnCard(c *op.Card, y, z any, in []G.Value) error {
	m, rest := onCard(o.weights, o.in, o.out, in[1:])
	suffix := op.Suffix(in[0])
	var err error
	if o.input == InputINT8 {
		err = m.rounded(c, suffix, o.rows, z, in[0], o.inputScale)
	} else {
		err = m.product(c, suffix, o.rows, z, in[0])
	}
	if err != nil || !o.biased && o.activation == ops.ActNone {
		return err
	}
	var bias any
	if o.biased {
		bias = rest[0]
	}
	return c.Elementwise("act.bias_act"+suffix, o.rows*o.out, y, z, bias, o.out, int(o.activation))
}

func (o *matMuls) CallsExtern() bool { return true }

// CUDADo is Do on a card, product after product.
func (o *matMuls) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		return o.each(in, func(_ int, p *matMul, in []G.Value, at int) error {
			y := op.At(prealloc, at*op.SizeOf(op.Suffix(prealloc)))
			return p.productOnCard(c, y, y, in)
		})
	})
}

// CUDABackward is Backward on a card.
func (o *matMul) CUDABackward(c *op.Card, in []G.Value, out, dOut G.Value, dIn []G.Value) error {
	if o.activation == ops.ActNone {
		return o.gradientsOnCard(c, in, dOut, dIn)
	}
	z := out // of which ReLU's slope is a function, too
	if o.keeps {
		z = in[len(in)-1]
	}
	suffix, n := op.Suffix(dOut), o.rows*o.out
	return c.Scratch(n*op.SizeOf(suffix), func(dz op.DevicePtr) error {
		if err := c.Elementwise("act.bias_act_grad"+suffix, n, dz, z, dOut, int(o.activation)); err != nil {
			return err
		}
		return o.gradientsOnCard(c, in, dz, dIn)
	})
}

// gradientsOnCard computes the gradients from dz.
func (o *matMul) gradientsOnCard(c *op.Card, in []G.Value, dz any, dIn []G.Value) error {
	suffix := op.Suffix(in[0])
	m, _ := onCard(o.weights, o.in, o.out, in[1:])
	if err := m.turned(c, suffix, o.rows, dIn[0], dz); err != nil {
		return err
	}
	if o.inputScale > 0 {
		if err := c.Elementwise("quantized.clamped"+suffix, o.rows*o.in, dIn[0], in[0], o.inputScale); err != nil {
			return err
		}
	}
	if !o.biased {
		return nil
	}
	return c.Launch("act.column_sum"+suffix, [3]int{(o.out + 31) / 32}, [3]int{256}, 0, dIn[o.biasAt()], dz, o.rows, o.out)
}

func (o *embedding) CallsExtern() bool { return true }

// CUDADo is Do on a card. An id out of range makes NaN of its row there, where Do has an error.
func (o *embedding) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		m, _ := onCard(o.weights, o.in, o.out, in[1:])
		const threads, most = 256, 4096
		return m.launch(c, "quantized_lookup", "_f32", [3]int{min((o.n*o.in+threads-1)/threads, most)}, [3]int{threads},
			[]any{prealloc, in[0]}, []any{int(in[0].Dtype().Size()), o.n})
	})
}
