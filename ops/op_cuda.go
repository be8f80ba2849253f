//go:build cuda

package ops

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// The nodes that run on a card under the build tag cuda. CallsExtern makes the machine set memory aside for the result; the checks
// of Do are made when the graph is built, and a value on the card has its node's shape.

var (
	_ G.CUDADoer        = (*rmsNorm)(nil)
	_ G.CUDADoer        = (*layerNorm)(nil)
	_ G.CUDADoer        = (*activation)(nil)
	_ G.CUDADoer        = (*swiGLU)(nil)
	_ G.CUDADoer        = (*residual)(nil)
	_ G.CUDADoer        = (*linear)(nil)
	_ G.CUDADoer        = (*linears)(nil)
	_ G.CUDADoer        = (*rope)(nil)
	_ G.CUDADoer        = (*crossEntropy)(nil)
	_ G.CUDADoer        = (*embedding)(nil)
	_ G.CUDADoer        = (*cudaEmbeddingGrad)(nil)
	_ G.CUDADoer        = (*reshape)(nil)
	_ G.CUDADoer        = (*dropout)(nil)
	_ op.CUDABackwarder = (*rmsNorm)(nil)
	_ op.CUDABackwarder = (*layerNorm)(nil)
	_ op.CUDABackwarder = (*activation)(nil)
	_ op.CUDABackwarder = (*swiGLU)(nil)
	_ op.CUDABackwarder = (*residual)(nil)
	_ op.CUDABackwarder = (*linear)(nil)
	_ op.CUDABackwarder = (*linears)(nil)
	_ op.CUDABackwarder = (*rope)(nil)
	_ op.CUDABackwarder = (*crossEntropy)(nil)
	_ op.CUDABackwarder = (*reshape)(nil)
	_ op.CUDABackwarder = (*dropout)(nil)
)

// rowGrid gives each row a block, and rows beyond the limit of a grid their turn after.
func rowGrid(rows int) (grid, block [3]int) { return [3]int{min(rows, 65535)}, [3]int{256} }

// elementGrid has a thread for each of n elements, or several elements for each.
func elementGrid(n int) (grid, block [3]int) {
	const threads, most = 256, 4096
	return [3]int{min((n+threads-1)/threads, most)}, [3]int{threads}
}

// given is value i of in, or nil for a null pointer.
func given(in []G.Value, i int, there bool) any {
	if !there {
		return nil
	}
	return in[i]
}

func (o *rmsNorm) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *rmsNorm) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		grid, block := rowGrid(o.rows)
		return c.Launch("norm.rmsnorm"+op.Suffix(in[0]), grid, block, 0, prealloc, in[0], given(in, 1, len(in) > 1), o.rows, o.dim, o.eps)
	})
}

// CUDABackward is Backward on a card.
func (o *rmsNorm) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return normGradOnCard(c, in[0], dOut, given(in, 1, len(in) > 1), dIn[0], given(dIn, 1, len(in) > 1), nil, o.rows, o.dim, o.eps, false)
}

func (o *layerNorm) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *layerNorm) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		grid, block := rowGrid(o.rows)
		return c.Launch("norm.layernorm"+op.Suffix(in[0]), grid, block, 0, prealloc, in[0],
			given(in, 1, o.scaled), given(in, len(in)-1, o.shifted), o.rows, o.dim, o.eps)
	})
}

// CUDABackward is Backward on a card.
func (o *layerNorm) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return normGradOnCard(c, in[0], dOut, given(in, 1, o.scaled), dIn[0],
		given(dIn, 1, o.scaled), given(dIn, len(dIn)-1, o.shifted), o.rows, o.dim, o.eps, true)
}

func normGradOnCard(c *op.Card, x, dOut G.Value, gamma any, dx G.Value, dgamma, dbeta any, rows, dim int, eps float64, centred bool) error {
	suffix, flag := op.Suffix(x), 0
	if centred {
		flag = 1
	}
	// The mean and 1/√(variance + eps) of each row.
	return c.Scratch(2*rows*int(x.Dtype().Size()), func(stats op.DevicePtr) error {
		grid, block := rowGrid(rows)
		if err := c.Launch("norm.norm_grad"+suffix, grid, block, 0, dx, stats, x, dOut, gamma, rows, dim, eps, flag); err != nil {
			return err
		}
		if dgamma == nil && dbeta == nil {
			return nil
		}
		return c.Launch("norm.norm_grad_gamma"+suffix, [3]int{(dim + 31) / 32}, block, 0, dgamma, dbeta, stats, x, dOut, rows, dim)
	})
}

// kernelOf is the kernel of an activation, without its dtype.
func kernelOf(a Activation) string {
	switch a {
	case ActReLU:
		return "act.relu"
	case ActGELU:
		return "act.gelu"
	case ActGELUTanh:
		return "act.gelu_tanh"
	default:
		return "act.silu"
	}
}

func (o *activation) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *activation) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		return c.Elementwise(kernelOf(o.act)+op.Suffix(in[0]), o.OutShape().TotalSize(), prealloc, in[0])
	})
}

// CUDABackward is Backward on a card.
func (o *activation) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return c.Elementwise(kernelOf(o.act)+"_grad"+op.Suffix(in[0]), o.OutShape().TotalSize(), dIn[0], in[0], dOut)
}

func (o *swiGLU) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *swiGLU) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		return c.Elementwise("act.swiglu"+op.Suffix(in[0]), o.OutShape().TotalSize(), prealloc, in[0], in[1])
	})
}

// CUDABackward is Backward on a card.
func (o *swiGLU) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return c.Elementwise("act.swiglu_grad"+op.Suffix(in[0]), o.OutShape().TotalSize(), dIn[0], dIn[1], in[0], in[1], dOut)
}

func (o *residual) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *residual) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		return c.Elementwise("act.add"+op.Suffix(in[0]), o.OutShape().TotalSize(), prealloc, in[0], in[1])
	})
}

// CUDABackward is Backward on a card.
func (o *residual) CUDABackward(c *op.Card, _ []G.Value, _, dOut G.Value, dIn []G.Value) error {
	for _, d := range dIn {
		if err := c.Copy(d, dOut, o.OutShape().TotalSize()*int(dOut.Dtype().Size())); err != nil {
			return err
		}
	}
	return nil
}

// weightOnCard is W as an in × out matrix, however it is stored.
func (o *linear) weightOnCard(w any) op.CardMatrix {
	if o.cfg.TransposeWeight {
		return op.Matrix(w, o.in, 1).T()
	}
	return op.Matrix(w, o.out, 1)
}

func (o *linear) CallsExtern() bool { return true }

// CUDADo is Do on a card: the product, then bias and activation.
func (o *linear) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		z, suffix := prealloc, op.Suffix(in[0])
		if o.keeps {
			z = in[len(in)-1]
		}
		err := o.inputOnCard(c, nil, in[0], func(a any) error {
			return c.Product(suffix, 1, o.rows, o.out, o.in, 1, op.Matrix(z, o.out, 1), op.Matrix(a, o.in, 1), o.weightOnCard(in[1]))
		})
		if err != nil {
			return err
		}
		if !o.biased && o.cfg.Activation == ActNone {
			return nil
		}
		return c.Elementwise("act.bias_act"+suffix, o.rows*o.out, prealloc, z, given(in, 2, o.biased), o.out, int(o.cfg.Activation))
	})
}

// CUDABackward is Backward on a card.
func (o *linear) CUDABackward(c *op.Card, in []G.Value, out, dOut G.Value, dIn []G.Value) error {
	if o.cfg.Activation == ActNone {
		return o.productsOnCard(c, in, dOut, dIn)
	}
	z := out // of which ReLU's slope is a function, too
	if o.keeps {
		z = in[len(in)-1]
	}
	n := o.rows * o.out
	return c.Scratch(n*int(dOut.Dtype().Size()), func(dz op.DevicePtr) error {
		if err := c.Elementwise("act.bias_act_grad"+op.Suffix(in[0]), n, dz, z, dOut, int(o.cfg.Activation)); err != nil {
			return err
		}
		return o.productsOnCard(c, in, dz, dIn)
	})
}

// productsOnCard computes the gradients from dZ.
func (o *linear) productsOnCard(c *op.Card, in []G.Value, dz any, dIn []G.Value) error {
	suffix, dZ := op.Suffix(in[0]), op.Matrix(dz, o.out, 1)
	var dx any
	if dIn[0] != nil {
		dx = dIn[0]
	}
	if err := o.inputOnCard(c, dx, in[0], func(a any) error {
		return c.Product(suffix, 1, o.in, o.out, o.rows, 1, o.weightOnCard(dIn[1]), op.Matrix(a, o.in, 1).T(), dZ)
	}); err != nil {
		return err
	}
	if dx != nil {
		if err := c.Product(suffix, 1, o.rows, o.in, o.out, 1, op.Matrix(dx, o.in, 1), dZ, o.weightOnCard(in[1]).T()); err != nil {
			return err
		}
		if o.cfg.Input != ActNone {
			if err := c.Elementwise("act.bias_act_grad"+suffix, o.rows*o.in, dx, in[0], dx, int(o.cfg.Input)); err != nil {
				return err
			}
		}
	}
	if !o.biased {
		return nil
	}
	return c.Launch("act.column_sum"+suffix, [3]int{(o.out + 31) / 32}, [3]int{256}, 0, dIn[2], dz, o.rows, o.out)
}

// inputOnCard gives f what the product takes, in(x): in dx where there is that, which is computed afterwards.
func (o *linear) inputOnCard(c *op.Card, dx any, x G.Value, f func(a any) error) error {
	if o.cfg.Input == ActNone {
		return f(x)
	}
	n, suffix := o.rows*o.in, op.Suffix(x)
	fill := func(a any) error {
		if err := c.Elementwise(kernelOf(o.cfg.Input)+suffix, n, a, x); err != nil {
			return err
		}
		return f(a)
	}
	if dx != nil {
		return fill(dx)
	}
	return c.Scratch(n*op.SizeOf(suffix), func(a op.DevicePtr) error { return fill(a) })
}

func (o *linears) CallsExtern() bool { return true }

// CUDADo is Do on a card: each product, then its bias.
func (o *linears) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		suffix, x, at := op.Suffix(in[0]), op.Matrix(in[0], o.in, 1), 0
		for i, n := range o.outs {
			y := op.At(prealloc, at)
			if err := c.Product(suffix, 1, o.rows, n, o.in, 1, op.Matrix(y, n, 1), x, op.Matrix(in[1+i], n, 1)); err != nil {
				return err
			}
			if o.biased {
				if err := c.Elementwise("act.bias_act"+suffix, o.rows*n, y, y, in[1+len(o.outs)+i], n, int(ActNone)); err != nil {
					return err
				}
			}
			at += o.rows * n * op.SizeOf(suffix)
		}
		return nil
	})
}

// CUDABackward is Backward on a card.
func (o *linears) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	suffix, x, at := op.Suffix(in[0]), op.Matrix(in[0], o.in, 1), 0
	for i, n := range o.outs {
		dy := op.At(dOut, at)
		dY := op.Matrix(dy, n, 1)
		product := c.Product
		if i > 0 {
			product = c.AddProduct
		}
		if err := product(suffix, 1, o.rows, o.in, n, 1, op.Matrix(dIn[0], o.in, 1), dY, op.Matrix(in[1+i], n, 1).T()); err != nil {
			return err
		}
		if err := c.Product(suffix, 1, o.in, n, o.rows, 1, op.Matrix(dIn[1+i], n, 1), x.T(), dY); err != nil {
			return err
		}
		if o.biased {
			if err := c.Launch("act.column_sum"+suffix, [3]int{(n + 31) / 32}, [3]int{256}, 0, dIn[1+len(o.outs)+i], dy, o.rows, n); err != nil {
				return err
			}
		}
		at += o.rows * n * op.SizeOf(suffix)
	}
	return nil
}

// flag is a bool as a kernel takes it.
func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (o *rope) CallsExtern() bool { return true }

// CUDADo is Do on a card. A position out of range makes NaN of its rows there, where Do has an error.
func (o *rope) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error { return o.rotateOnCard(c, prealloc, in[0], in[1], false) })
}

// CUDABackward is Backward on a card.
func (o *rope) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return o.rotateOnCard(c, dIn[0], dOut, in[1], true)
}

// Copies are the frequencies.
func (o *rope) Copies() (sent int64, readBack []int) { return int64(8 * (o.cfg.Dim / 2)), nil }

func (o *rope) rotateOnCard(c *op.Card, y, x, pos G.Value, back bool) error {
	theta, amplitude := o.cfg.frequencies()
	starts := 1
	if pos.Shape().Dims() == 1 {
		starts = pos.Shape()[0]
	}
	return c.Scratch(8*len(theta), func(p op.DevicePtr) error {
		if err := op.CopyIn(c, p, theta); err != nil {
			return err
		}
		grid, block := elementGrid(o.batch * o.seq * (o.headDim - o.cfg.Dim/2))
		at, size := 0, int(x.Dtype().Size())
		for _, heads := range o.heads {
			if err := c.Launch("tokens.rope"+op.Suffix(x), grid, block, 0,
				op.At(y, at), op.At(x, at), pos, p, int(pos.Dtype().Size()), starts, o.batch, o.seq, heads, o.headDim, o.cfg.Dim,
				flag(o.cfg.Interleaved), flag(back), amplitude); err != nil {
				return err
			}
			at += o.batch * o.seq * heads * o.headDim * size
		}
		if o.rest == 0 {
			return nil
		}
		return c.CopyBytes(op.At(y, at), op.At(x, at), o.rest*size)
	})
}

func (o *crossEntropy) CallsExtern() bool { return true }

// CUDADo is Do on a card. A target out of range makes the loss NaN there, where Do has an error.
func (o *crossEntropy) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		suffix, bytes := op.Suffix(in[0]), int(in[1].Dtype().Size())
		grid, block := rowGrid(o.rows)
		return c.Scratch(8*o.rows, func(losses op.DevicePtr) error {
			if err := c.Launch("tokens.cross_entropy"+suffix, grid, block, 0, losses, in[2], in[0], in[1], bytes, o.rows, o.vocab,
				flag(o.cfg.Ignore), o.cfg.IgnoreIndex, o.cfg.LabelSmoothing, o.cfg.ZLoss); err != nil {
				return err
			}
			return c.Launch("tokens.cross_entropy_total"+suffix, [3]int{1}, block, 0, prealloc, losses, in[1], bytes, o.rows,
				flag(o.cfg.Ignore), o.cfg.IgnoreIndex, flag(o.cfg.Reduction == ReduceMean))
		})
	})
}

// CUDABackward is Backward on a card.
func (o *crossEntropy) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	grid, block := rowGrid(o.rows)
	return c.Launch("tokens.cross_entropy_grad"+op.Suffix(in[0]), grid, block, 0, dIn[0], in[0], in[2], dOut, in[1],
		int(in[1].Dtype().Size()), o.rows, o.vocab, flag(o.cfg.Ignore), o.cfg.IgnoreIndex, flag(o.cfg.Reduction == ReduceMean),
		o.cfg.LabelSmoothing, o.cfg.ZLoss)
}

func (o *embedding) CallsExtern() bool { return true }

// CUDADo is Do on a card. An id out of range makes NaN of its row there, where Do has an error.
func (o *embedding) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		grid, block := elementGrid(o.n * o.dim)
		return c.Launch("tokens.embedding"+op.Suffix(in[0]), grid, block, 0, prealloc, in[0], in[1], int(in[1].Dtype().Size()), o.vocab, o.dim, o.n)
	})
}

// cudaEmbeddingGrad is embeddingGrad on a card. It sums in the same order.
type cudaEmbeddingGrad struct {
	op.Base
	of *embedding
}

// embeddingGradFor is d, on a card.
func embeddingGradFor(d G.Op, base op.Base, of *embedding) G.Op { return &cudaEmbeddingGrad{base, of} }

func (d *cudaEmbeddingGrad) CallsExtern() bool { return true }

// Do is for machines that run on no card.
func (d *cudaEmbeddingGrad) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(d.Name(), &err)
	if err := d.CheckShapes(in); err != nil {
		return nil, err
	}
	out := op.NewOf(d.of.dtype, d.OutShape())
	if d.of.dtype == tensor.Float64 {
		return out, embeddingAccumulate[float64](d.of, out, in[0], in[1])
	}
	return out, embeddingAccumulate[float32](d.of, out, in[0], in[1])
}

// CUDADo is Do on a card.
func (d *cudaEmbeddingGrad) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(d.Name(), ext, dev, prealloc, func(c *op.Card) error {
		o, padding := d.of, -1
		if o.cfg.Padding {
			padding = o.cfg.PaddingID
		}
		if err := c.Zero(prealloc, op.At(prealloc, 0), o.vocab*o.dim); err != nil {
			return err
		}
		return c.Launch("tokens.embedding_grad"+op.Suffix(in[1]), [3]int{min(o.n, 65535)}, [3]int{128}, 0, prealloc, in[1], in[0],
			int(in[0].Dtype().Size()), o.vocab, o.dim, o.n, padding)
	})
}

// DiffWRT: second derivatives are not supported.
func (d *cudaEmbeddingGrad) DiffWRT(n int) []bool { return make([]bool, n) }

// SymDiff fails: second derivatives are not supported.
func (d *cudaEmbeddingGrad) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return nil, fmt.Errorf("%s: second derivatives are not supported", d.Name())
}

func (o *reshape) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *reshape) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		return c.Copy(prealloc, in[0], o.OutShape().TotalSize()*int(o.dtype.Size()))
	})
}

// CUDABackward is Backward on a card.
func (o *reshape) CUDABackward(c *op.Card, _ []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return c.Copy(dIn[0], dOut, o.OutShape().TotalSize()*int(o.dtype.Size()))
}

func (o *dropout) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *dropout) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error { return o.dropOnCard(c, prealloc, in[0], in[1]) })
}

// CUDABackward is Backward on a card.
func (o *dropout) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return o.dropOnCard(c, dIn[0], dOut, in[1])
}

func (o *dropout) dropOnCard(c *op.Card, y, x, step G.Value) error {
	keep := 1 - o.cfg.Rate
	return c.Elementwise("elements.dropout"+op.Suffix(x), o.OutShape().TotalSize(), y, x, int(o.cfg.Seed), step, int(step.Dtype().Size()),
		kernel.DropoutBound(keep), keep)
}
