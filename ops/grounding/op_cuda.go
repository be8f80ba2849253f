//go:build cuda

package grounding

import (
	"strings"

	G "gorgonia.org/gorgonia"

	"stheno/internal/op"
)

// The nodes that run on a card under the build tag cuda. CallsExtern makes the machine set memory aside for the result; the checks of Do
// are made when the graph is built, and a value on the card has its node's shape.

var (
	_ G.CUDADoer        = (*groundOp)(nil)
	_ op.CUDABackwarder = (*groundOp)(nil)
	_ G.CUDADoer        = (*cutOp)(nil)
	_ op.CUDABackwarder = (*cutOp)(nil)
	_ G.CUDADoer        = (*lossOp)(nil)
	_ op.CUDABackwarder = (*lossOp)(nil)
)

// warpGrid gives each row a warp, eight to a block, and rows beyond the limit of a grid their turn after.
func warpGrid(rows int) (grid, block [3]int) { return [3]int{min((rows+7)/8, 65535)}, [3]int{256} }

// cardMask is a mask as kernels take it, with the bytes of a number, negative for floats.
type cardMask struct {
	data  any
	bytes int
}

func maskOnCard(v G.Value) cardMask {
	n := int(v.Dtype().Size())
	if strings.HasPrefix(v.Dtype().String(), "float") {
		n = -n
	}
	return cardMask{v, n}
}

// masksOnCard are the masks of tokens and patches, null where there are none.
func (a attrs) masksOnCard(masks []G.Value) (tokens, patches cardMask) {
	if a.HasTokenMask {
		tokens, masks = maskOnCard(masks[0]), masks[1:]
	}
	if a.HasPatchMask {
		patches = maskOnCard(masks[0])
	}
	return tokens, patches
}

// from is the mask from its n-th number on.
func (m cardMask) from(n int) cardMask {
	if v, ok := m.data.(G.Value); ok {
		m.data = op.At(v, n*max(m.bytes, -m.bytes))
	}
	return m
}

// cardUnits are unit vectors of tokens and patches on the card, and inverse norms.
type cardUnits struct{ q, k, invQ, invK op.DevicePtr }

// unitsOnCard lends f the unit vectors of q and k.
func (o pair) unitsOnCard(c *op.Card, q, k G.Value, tokens, patches cardMask, f func(u cardUnits) error) error {
	suffix := op.Suffix(q)
	size, nq, nk := op.SizeOf(suffix), o.batch*o.tokens, o.batch*o.patches
	return c.Scratch(size*(nq+nk)*o.dim, func(unit op.DevicePtr) error {
		return c.Scratch(size*(nq+nk), func(inv op.DevicePtr) error {
			u := cardUnits{unit, unit + op.DevicePtr(size*nq*o.dim), inv, inv + op.DevicePtr(size*nq)}
			grid, block := warpGrid(nq)
			if err := c.Launch("ground.unit_rows"+suffix, grid, block, 0, u.q, u.invQ, q, tokens.data, tokens.bytes, nq, o.dim); err != nil {
				return err
			}
			grid, block = warpGrid(nk)
			if err := c.Launch("ground.unit_rows"+suffix, grid, block, 0, u.k, u.invK, k, patches.data, patches.bytes, nk, o.dim); err != nil {
				return err
			}
			return f(u)
		})
	})
}

func (o *groundOp) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *groundOp) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		suffix := op.Suffix(in[0])
		tokens, patches := o.masksOnCard(in[2:])
		return o.unitsOnCard(c, in[0], in[1], tokens, patches, func(u cardUnits) error {
			if err := c.Product(suffix, o.batch, o.tokens, o.patches, o.dim, 1/o.Temperature,
				op.Matrix(prealloc, o.patches, 1), op.Matrix(u.q, o.dim, 1), op.Matrix(u.k, o.dim, 1).T()); err != nil {
				return err
			}
			if o.Form == Similarity && !o.HasTokenMask && !o.HasPatchMask {
				return nil
			}
			rows := o.batch * o.tokens
			grid, block := warpGrid(rows)
			return c.Launch("ground.ground_finish"+suffix, grid, block, 0, prealloc, tokens.data, tokens.bytes, patches.data, patches.bytes,
				rows, o.tokens, o.patches, int(o.Form), o.Bias)
		})
	})
}

// CUDABackward is Backward on a card.
func (o *groundOp) CUDABackward(c *op.Card, in []G.Value, out, dOut G.Value, dIn []G.Value) error {
	suffix, rows := op.Suffix(in[0]), o.batch*o.tokens
	tokens, patches := o.masksOnCard(in[2:])
	return o.unitsOnCard(c, in[0], in[1], tokens, patches, func(u cardUnits) error {
		return c.Scratch(op.SizeOf(suffix)*rows*o.patches, func(ds op.DevicePtr) error {
			grid, block := warpGrid(rows)
			if err := c.Launch("ground.ground_grad"+suffix, grid, block, 0, ds, out, dOut, tokens.data, tokens.bytes, patches.data, patches.bytes,
				rows, o.tokens, o.patches, int(o.Form), 1/o.Temperature); err != nil {
				return err
			}
			dS := op.Matrix(ds, o.patches, 1)
			if err := c.Product(suffix, o.batch, o.tokens, o.dim, o.patches, 1, op.Matrix(dIn[0], o.dim, 1), dS, op.Matrix(u.k, o.dim, 1)); err != nil {
				return err
			}
			if err := c.Product(suffix, o.batch, o.patches, o.dim, o.tokens, 1, op.Matrix(dIn[1], o.dim, 1), dS.T(), op.Matrix(u.q, o.dim, 1)); err != nil {
				return err
			}
			return o.unitGrads(c, suffix, dIn[0], dIn[1], u)
		})
	})
}

// unitGrads takes gradients of unit vectors to those of the vectors.
func (o pair) unitGrads(c *op.Card, suffix string, dq, dk G.Value, u cardUnits) error {
	grid, block := warpGrid(o.batch * o.tokens)
	if err := c.Launch("ground.unit_grad"+suffix, grid, block, 0, dq, u.q, u.invQ, o.batch*o.tokens, o.dim); err != nil {
		return err
	}
	grid, block = warpGrid(o.batch * o.patches)
	return c.Launch("ground.unit_grad"+suffix, grid, block, 0, dk, u.k, u.invK, o.batch*o.patches, o.dim)
}

func (o *cutOp) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *cutOp) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error { return o.move(c, prealloc, in[0], 0) })
}

// CUDABackward is Backward on a card.
func (o *cutOp) CUDABackward(c *op.Card, _ []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return o.move(c, dIn[0], dOut, 1)
}

func (o *cutOp) move(c *op.Card, to, from G.Value, back int) error {
	n := o.OutShape().TotalSize()
	return c.Launch("ground.cut"+op.Suffix(from), [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, to, from, back, n,
		o.s.channels, o.s.height, o.s.width, o.s.ph, o.s.pw)
}

// cardLoss is a lossFunc on the card.
type cardLoss interface {
	// scratch is how many float64 prepare fills.
	scratch(n int) int
	// prepare does what value and grad share.
	prepare(c *op.Card, suffix string, sums op.DevicePtr, n int, in []G.Value) error
	value(c *op.Card, suffix string, loss G.Value, sums op.DevicePtr, n int) error
	slope(c *op.Card, suffix string, dx G.Value, sums op.DevicePtr, n int, in []G.Value, dOut G.Value) error
}

var (
	_ cardLoss = (*contrastive)(nil)
	_ cardLoss = (*alignment)(nil)
	_ cardLoss = (*margin)(nil)
)

func (o *lossOp) CallsExtern() bool { return true }

// onCard lends f what the loss and its gradient share.
func (o *lossOp) onCard(c *op.Card, in []G.Value, f func(l cardLoss, suffix string, sums op.DevicePtr) error) error {
	l, suffix := o.of.(cardLoss), op.Suffix(in[0])
	return c.Scratch(8*l.scratch(o.n), func(sums op.DevicePtr) error {
		if err := l.prepare(c, suffix, sums, o.n, in); err != nil {
			return err
		}
		return f(l, suffix, sums)
	})
}

// CUDADo is Do on a card.
func (o *lossOp) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		return o.onCard(c, in, func(l cardLoss, suffix string, sums op.DevicePtr) error {
			return l.value(c, suffix, prealloc, sums, o.n)
		})
	})
}

// CUDABackward is Backward on a card.
func (o *lossOp) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return o.onCard(c, in, func(l cardLoss, suffix string, sums op.DevicePtr) error {
		return l.slope(c, suffix, dIn[0], sums, o.n, in, dOut)
	})
}

var one, warp = [3]int{1}, [3]int{32}

// The log-sum-exp of each line, and the losses.
func (l *contrastive) scratch(int) int { return 4 * l.n }

func (l *contrastive) prepare(c *op.Card, suffix string, sums op.DevicePtr, _ int, in []G.Value) error {
	grid, block := warpGrid(2 * l.n)
	return c.Launch("ground.contrast"+suffix, grid, block, 0, sums, sums+op.DevicePtr(16*l.n), in[0], l.n)
}

func (l *contrastive) value(c *op.Card, suffix string, loss G.Value, sums op.DevicePtr, _ int) error {
	return c.Launch("ground.contrast_total"+suffix, one, warp, 0, loss, sums+op.DevicePtr(16*l.n), l.n)
}

func (l *contrastive) slope(c *op.Card, suffix string, dx G.Value, sums op.DevicePtr, n int, in []G.Value, dOut G.Value) error {
	return c.Launch("ground.contrast_grad"+suffix, [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, dx, in[0], sums, dOut, l.n)
}

// cardParts is how many parts of a sum the kernels of alignment take.
const cardParts = 64

func (l *alignment) scratch(int) int { return 2 * cardParts }

// weightsOnCard are the weights, or null.
func weightsOnCard(in []G.Value) any {
	if len(in) < 3 {
		return nil
	}
	return in[2]
}

func (l *alignment) prepare(c *op.Card, suffix string, sums op.DevicePtr, n int, in []G.Value) error {
	return c.Launch("ground.align"+suffix, [3]int{cardParts}, [3]int{256}, 0, sums, in[0], in[1], weightsOnCard(in), n, l.positive)
}

func (l *alignment) value(c *op.Card, suffix string, loss G.Value, sums op.DevicePtr, _ int) error {
	return c.Launch("ground.align_total"+suffix, one, one, 0, loss, sums)
}

func (l *alignment) slope(c *op.Card, suffix string, dx G.Value, sums op.DevicePtr, n int, in []G.Value, dOut G.Value) error {
	return c.Launch("ground.align_grad"+suffix, [3]int{min((n+255)/256, 4096)}, [3]int{256}, 0, dx, in[0], in[1], weightsOnCard(in), sums, dOut, n, l.positive)
}

// The loss of each map, and whether it counts.
func (m *margin) scratch(n int) int { return 2 * (n / m.patches) }

func (m *margin) prepare(c *op.Card, suffix string, sums op.DevicePtr, n int, in []G.Value) error {
	rows := n / m.patches
	grid, block := warpGrid(rows)
	return c.Launch("ground.margin"+suffix, grid, block, 0, sums, in[0], in[1], rows, m.patches,
		m.cfg.MaxMargin, m.cfg.MeanMargin, m.cfg.MaxWeight, m.cfg.MeanWeight)
}

func (m *margin) value(c *op.Card, suffix string, loss G.Value, sums op.DevicePtr, n int) error {
	return c.Launch("ground.margin_total"+suffix, one, warp, 0, loss, sums, n/m.patches)
}

func (m *margin) slope(c *op.Card, suffix string, dx G.Value, sums op.DevicePtr, n int, in []G.Value, dOut G.Value) error {
	rows := n / m.patches
	grid, block := warpGrid(rows)
	return c.Launch("ground.margin_grad"+suffix, grid, block, 0, dx, in[0], in[1], sums, dOut, rows, m.patches,
		m.cfg.MaxMargin, m.cfg.MeanMargin, m.cfg.MaxWeight, m.cfg.MeanWeight)
}
