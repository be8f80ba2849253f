//go:build cuda

package flashattn

import (
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// The nodes that run on a card under the build tag cuda. float32 without dropout and packed sequences goes to tensor cores, everything
// else to kernels of plain arithmetic. The checks of Do are made when the graph is built; cumulative lengths out of range make NaN of
// their rows, where Do has an error.

var (
	_ G.CUDADoer        = (*cudaAttend)(nil)
	_ G.CUDADoer        = (*takeOp)(nil)
	_ op.CUDABackwarder = (*cudaAttend)(nil)
	_ op.CUDABackwarder = (*takeOp)(nil)
)

// cudaAttend is attendOp on a card.
type cudaAttend struct{ *attendOp }

// attendFor is o on a card.
func attendFor(o *attendOp) op.Backwarder { return &cudaAttend{o} }

// CallsExtern makes the machine set memory aside for the result.
func (o *cudaAttend) CallsExtern() bool { return true }

// SymDiff serves the TapeMachine.
func (o *cudaAttend) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// Copies are the slopes of ALiBi.
func (o *cudaAttend) Copies() (sent int64, readBack []int) {
	if !o.ALiBi {
		return 0, nil
	}
	heads := o.QKV.Heads
	if heads == 0 {
		heads = o.floats[0][2]
	}
	return int64(heads) * int64(o.OutDtype().Size()), nil
}

// CUDADo is Do on a card.
func (o *cudaAttend) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		return o.onCard(c, in, func(p *cardProblem) error {
			var lse any
			if o.Packed {
				lse = op.At(prealloc, p.rows()*p.dv*p.size)
			}
			if p.Precision == Float32 {
				return p.forward(c, prealloc, lse)
			}
			n, err := p.narrow(c)
			if err != nil {
				return err
			}
			if n.ok {
				return n.forward(c, prealloc, lse)
			}
			return p.rounded(c, func(p *cardProblem) error { return p.forward(c, prealloc, lse) })
		})
	})
}

// forward is the output, the log-sum-exp if it is wanted, and the statistics.
func (p *cardProblem) forward(c *op.Card, out, lse any) error {
	shared, ok, err := p.tensorCores(c, func(pd, pv int) int { return 96*pd + 32*pv })
	if err != nil {
		return err
	}
	if !ok {
		return p.plain(c, "forward", p.rows(), p.dv, out, lse, p.stats)
	}
	params := append([]any{out, lse, p.stats, p.q, p.k, p.v, p.sinks, p.slopes}, p.tiledParams(false)...)
	return c.Launch("attention.attention"+p.most(p.dv)+"_f32", [3]int{tiles(p.seqQ), p.heads, p.batch}, [3]int{128}, shared, params...)
}

// CUDABackward is Backward on a card.
func (o *cudaAttend) CUDABackward(c *op.Card, in []G.Value, out, dOut G.Value, dIn []G.Value) error {
	return o.onCard(c, in, func(p *cardProblem) error {
		return c.Scratch(p.rows()*p.size, func(delta op.DevicePtr) error {
			var dLSE any
			if o.Packed {
				dLSE = op.At(dOut, p.rows()*p.dv*p.size)
			}
			grid := [3]int{min((p.rows()+3)/4, mostBlocks)}
			if err := c.Launch("attention_plain.attention_plain_delta"+p.suffix, grid, [3]int{128}, 0,
				delta, out, dOut, dLSE, p.batch, p.heads, p.seqQ, p.dv); err != nil {
				return err
			}
			bias := func(p *cardProblem, dBias G.Value) error {
				return p.plain(c, "bias", (dBias.Shape().TotalSize()+31)/32, 0, dBias, dOut, p.stats, delta)
			}
			if err := p.gradients(c, dOut, delta, o.mainsOnCard(dIn)); err != nil {
				return err
			}
			rest := dIn[o.mains():]
			if o.HasSinks {
				if err := c.Launch("attention_plain.attention_plain_sinks"+p.suffix, [3]int{p.heads}, [3]int{32}, 0,
					rest[0], p.sinks, p.stats, delta, p.batch, p.heads, p.seqQ); err != nil {
					return err
				}
				rest = rest[1:]
			}
			if !o.HasBias {
				return nil
			}
			if p.Precision == Float32 {
				return bias(p, rest[0])
			}
			return p.rounded(c, func(p *cardProblem) error { return bias(p, rest[0]) })
		})
	})
}

// gradients are dQ, dK and dV.
func (p *cardProblem) gradients(c *op.Card, dOut G.Value, delta op.DevicePtr, d [3]any) error {
	if p.Precision == Float32 {
		return p.exactGradients(c, dOut, delta, d)
	}
	n, err := p.narrow(c)
	if err != nil {
		return err
	}
	if n.ok {
		return n.gradients(c, dOut, delta, d)
	}
	return p.rounded(c, func(p *cardProblem) error { return p.exactGradients(c, dOut, delta, d) })
}

// exactGradients are those of the products of p.q, p.k and p.v.
func (p *cardProblem) exactGradients(c *op.Card, dOut G.Value, delta op.DevicePtr, d [3]any) error {
	tile := 16
	if max(p.d, p.dv) <= 64 {
		tile = 32
	}
	shared, ok, err := p.tensorCores(c, func(pd, pv int) int { return (64 + tile) * (pd + pv) })
	if err != nil {
		return err
	}
	if !ok {
		if err := p.plain(c, "rows", p.rows(), p.d, d[0], dOut, p.stats, delta); err != nil {
			return err
		}
		return p.plain(c, "keys", p.batch*p.kvHeads*p.seqKV, p.d+p.dv, d[1], d[2], dOut, p.stats, delta)
	}
	params := append([]any{dOut, p.stats, delta, p.q, p.k, p.v, p.slopes}, p.tiledParams(true)...)
	most := p.most(max(p.d, p.dv)) + "_f32"
	if err := c.Launch("attention_grad.attention_grad_rows"+most, [3]int{tiles(p.seqQ), p.heads, p.batch}, [3]int{128}, shared,
		append([]any{d[0]}, params...)...); err != nil {
		return err
	}
	return c.Launch("attention_grad.attention_grad_keys"+most, [3]int{tiles(p.seqKV), p.kvHeads, p.batch}, [3]int{128}, shared,
		append([]any{d[1], d[2]}, params...)...)
}

// mostBlocks bounds grids whose blocks take several pieces of work.
const mostBlocks = 65535

// tiles is the number of blocks of 64 rows.
func tiles(n int) int { return (n + 63) / 64 }

// cardProblem is the op's inputs on the card, nil for those that are not there, and the numbers that kernels are given.
type cardProblem struct {
	attrs
	q, k, v, sinks, bias, cuQ, cuKV, step, stats any // values, or nil
	slopes                                       any // of ALiBi
	gq, gk                                       any // what gradients multiply, where q and k are rounded
	lift                                         any // added to the products of a row, or nil
	suffix                                       string
	size                                         int // of a number in bytes

	batch, seqQ, seqKV, heads, kvHeads, d, dv int
	biasBatch, biasHead                       int // strides, 0 where a bias is repeated
	cuQBytes, cuKVBytes, stepBytes, sequences int
}

// rows is the number of (batch, head, query row).
func (p *cardProblem) rows() int { return p.batch * p.heads * p.seqQ }

// mainsOnCard are q, k and v, or their gradients.
func (o *attendOp) mainsOnCard(in []G.Value) [3]any {
	if o.mains() == 3 {
		return [3]any{in[0], in[1], in[2]}
	}
	size := int(in[0].Dtype().Size())
	q, k := size*o.QKV.Queries(), size*o.QKV.Keys()
	return [3]any{in[0], op.At(in[0], q), op.At(in[0], q+k)}
}

// onCard gives f the problem.
func (o *attendOp) onCard(c *op.Card, in []G.Value, f func(p *cardProblem) error) error {
	main := o.mainsOnCard(in)
	p := &cardProblem{
		attrs: o.attrs, q: main[0], k: main[1], v: main[2], gq: main[0], gk: main[1], stats: in[len(in)-1],
		suffix: op.Suffix(in[0]), size: int(in[0].Dtype().Size()),
	}
	if s := o.QKV; o.mains() == 1 {
		p.batch, p.seqQ, p.heads, p.d, p.seqKV, p.kvHeads, p.dv = s.Batch, s.Seq, s.Heads, s.HeadDim, s.Seq, s.KVHeads, s.HeadDim
	} else {
		q, k, v := in[0].Shape(), in[1].Shape(), in[2].Shape()
		p.batch, p.seqQ, p.heads, p.d, p.seqKV, p.kvHeads, p.dv = q[0], q[1], q[2], q[3], k[1], k[2], v[3]
	}
	rest := in[o.mains():]
	next := func(to *any, there bool) (v G.Value) {
		if there {
			v, rest = rest[0], rest[1:]
			*to = v
		}
		return v
	}
	next(&p.sinks, o.HasSinks)
	if b := next(&p.bias, o.HasBias); b != nil {
		var at bias[float32]
		at.shape(b.Shape())
		p.biasBatch, p.biasHead = at.batchStride, at.headStride
	}
	if cu := next(&p.cuQ, o.HasCuQ); cu != nil {
		p.sequences, p.cuQBytes = cu.Shape()[0]-1, int(cu.Dtype().Size())
		p.cuKV, p.cuKVBytes = cu, p.cuQBytes
	}
	if cu := next(&p.cuKV, o.HasCuKV); cu != nil {
		p.cuKVBytes = int(cu.Dtype().Size())
	}
	if step := next(&p.step, o.HasStep); step != nil {
		p.stepBytes = int(step.Dtype().Size())
	}
	if !o.ALiBi {
		return f(p)
	}
	return c.Scratch(p.heads*p.size, func(slopes op.DevicePtr) error {
		p.slopes = slopes
		if err := copySlopes(c, slopes, in[0].Dtype(), Slopes(p.heads)); err != nil {
			return err
		}
		return f(p)
	})
}

func copySlopes(c *op.Card, to op.DevicePtr, dt tensor.Dtype, slopes []float64) error {
	if dt == tensor.Float64 {
		return op.CopyIn(c, to, slopes)
	}
	narrow := make([]float32, len(slopes))
	for i, s := range slopes {
		narrow[i] = float32(s)
	}
	return op.CopyIn(c, to, narrow)
}

// tensorCores says whether the kernels on tensor cores can compute the problem, and how many bytes of shared memory they take: words,
// given the pitches of d and dv, times 4.
func (p *cardProblem) tensorCores(c *op.Card, words func(pd, pv int) int) (bytes int, ok bool, err error) {
	if p.suffix != "_f32" || p.Dropout > 0 || p.HasCuQ || p.gq != p.q {
		return 0, false, nil
	}
	bytes = 4 * words(pitch(p.d), pitch(p.dv))
	most, err := c.SharedMost()
	return bytes, bytes <= most, err
}

// pitch is the length of a row of d numbers in shared memory.
func pitch(d int) int { return (d+7)/8*8 + 4 }

// most names the instance of a kernel for heads of width d.
func (p *cardProblem) most(d int) string {
	switch {
	case d <= 64:
		return "_64"
	case d <= 128:
		return "_128"
	default:
		return "_256"
	}
}

// tiledParams are the parameters of kernels on tensor cores from bias on; the gradient has the batch among them.
func (p *cardProblem) tiledParams(gradient bool) []any {
	out := []any{p.bias, p.biasBatch, p.biasHead}
	if gradient {
		out = append(out, p.batch)
	}
	s := p.sight()
	return append(out, p.seqQ, p.seqKV, p.heads, p.kvHeads, p.d, p.dv, s.left, s.right, p.Scale, p.Softcap)
}

// plain launches a plain kernel whose warps have a piece of work each and some numbers of shared memory.
func (p *cardProblem) plain(c *op.Card, name string, pieces, shared int, first ...any) error {
	const warps = 4
	s, keep := p.sight(), 1-p.Dropout
	params := append(first, p.q, p.k, p.v, p.gq, p.gk, p.lift, p.sinks, p.slopes, p.bias, p.biasBatch, p.biasHead, p.batch, p.seqQ, p.seqKV, p.heads, p.kvHeads,
		p.d, p.dv, s.left, s.right, p.Scale, p.Softcap, p.cuQ, p.cuQBytes, p.cuKV, p.cuKVBytes, p.sequences,
		int(p.Seed), p.step, p.stepBytes, kernel.DropoutBound(keep), keep)
	return c.Launch("attention_plain.attention_plain_"+name+p.suffix, [3]int{min((pieces+warps-1)/warps, mostBlocks)}, [3]int{32 * warps},
		warps*shared*p.size, params...)
}

func (o *takeOp) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *takeOp) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		size := int(in[0].Dtype().Size())
		return c.CopyBytes(op.At(prealloc, 0), op.At(in[0], o.from*size), o.OutShape().TotalSize()*size)
	})
}

// CUDABackward is Backward on a card.
func (o *takeOp) CUDABackward(c *op.Card, _ []G.Value, _, dOut G.Value, dIn []G.Value) error {
	size, all, n := int(dOut.Dtype().Size()), dIn[0].Shape().TotalSize(), o.OutShape().TotalSize()
	if o.from > 0 {
		if err := c.Zero(dIn[0], op.At(dIn[0], 0), o.from); err != nil {
			return err
		}
	}
	if end := o.from + n; end < all {
		if err := c.Zero(dIn[0], op.At(dIn[0], end*size), all-end); err != nil {
			return err
		}
	}
	return c.CopyBytes(op.At(dIn[0], o.from*size), op.At(dOut, 0), n*size)
}
