//go:build cuda

package grounding

import (
	G "gorgonia.org/gorgonia"

	"stheno/internal/op"
)

// Pool on a card: scores of as many tokens as some memory holds, their softmax, the product with the values; then the next tokens. With
// gradients likewise.

var (
	_ G.CUDADoer        = (*poolOp)(nil)
	_ op.CUDABackwarder = (*poolOp)(nil)
)

// cardScores is how many scores there are at a time, or one token's.
var cardScores = 4 << 20

// cardPool is a piece of a problem: `rows` tokens from `first` on of each of `batch` items from `item` on. There are several items only
// where the piece has all of their tokens.
type cardPool struct {
	*poolOp
	c               *op.Card
	suffix          string
	u               cardUnits
	tokens, patches cardMask
	size            int

	item, batch int
	first, rows int
	s, ds       op.DevicePtr // maps, and the gradients of scores
}

// pieces calls f for all pieces; scratch is how many numbers a score takes.
func (o *poolOp) pieces(c *op.Card, in []G.Value, scratch int, f func(p *cardPool) error) error {
	tokens, patches := o.masksOnCard(in[3 : len(in)-1])
	return o.unitsOnCard(c, in[0], in[1], tokens, patches, func(u cardUnits) error {
		p := &cardPool{poolOp: o, c: c, suffix: op.Suffix(in[0]), u: u, tokens: tokens, patches: patches}
		p.size = op.SizeOf(p.suffix)
		each := o.pair.tokens * o.pair.patches
		items, rows := min(max(1, cardScores/each), o.pair.batch), o.pair.tokens
		if each > cardScores {
			rows = max(1, cardScores/o.pair.patches)
		}
		n := items * rows * o.pair.patches
		return c.Scratch(p.size*n*scratch, func(at op.DevicePtr) error {
			p.s, p.ds = at, at+op.DevicePtr(p.size*n)
			for p.item = 0; p.item < o.pair.batch; p.item += items {
				p.batch = min(items, o.pair.batch-p.item)
				for p.first = 0; p.first < o.pair.tokens; p.first += rows {
					p.rows = min(rows, o.pair.tokens-p.first)
					if err := f(p); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

// ofTokens and ofPatches are the piece's rows of a matrix (batch, tokens or patches, width).
func (p *cardPool) ofTokens(m op.DevicePtr, width int) op.CardMatrix {
	return op.Matrix(m+op.DevicePtr(p.size*(p.item*p.pair.tokens+p.first)*width), width, 1)
}

func (p *cardPool) ofPatches(m op.DevicePtr, width int) op.CardMatrix {
	return op.Matrix(m+op.DevicePtr(p.size*p.item*p.pair.patches*width), width, 1)
}

// masks are the parameters that say what is padding, and the sizes.
func (p *cardPool) masks() []any {
	t, k := p.tokens.from(p.item*p.pair.tokens+p.first), p.patches.from(p.item*p.pair.patches)
	return []any{t.data, t.bytes, k.data, k.bytes, p.batch * p.rows, p.rows, p.pair.patches, int(Attention)}
}

// maps makes the maps of the piece's tokens, in p.s.
func (p *cardPool) maps() error {
	err := p.c.Product(p.suffix, p.batch, p.rows, p.pair.patches, p.dim, 1/p.Temperature,
		op.Matrix(p.s, p.pair.patches, 1), p.ofTokens(p.u.q, p.dim), p.ofPatches(p.u.k, p.dim).T())
	if err != nil {
		return err
	}
	grid, block := warpGrid(p.batch * p.rows)
	return p.c.Launch("ground.ground_finish"+p.suffix, grid, block, 0, append(append([]any{p.s}, p.masks()...), 0.0)...)
}

func (o *poolOp) CallsExtern() bool { return true }

// CUDADo is Do on a card.
func (o *poolOp) CUDADo(ext G.External, dev G.Device, prealloc G.Value, in ...G.Value) (G.Value, error) {
	return op.Forward(o.Name(), ext, dev, prealloc, func(c *op.Card) error {
		return o.pieces(c, in, 1, func(p *cardPool) error {
			if err := p.maps(); err != nil {
				return err
			}
			return c.Product(p.suffix, p.batch, p.rows, o.width, p.pair.patches, 1, p.ofTokens(op.At(prealloc, 0), o.width),
				op.Matrix(p.s, p.pair.patches, 1), p.ofPatches(op.At(in[2], 0), o.width))
		})
	})
}

// CUDABackward is Backward on a card.
func (o *poolOp) CUDABackward(c *op.Card, in []G.Value, _, dOut G.Value, dIn []G.Value) error {
	return o.pieces(c, in, 2, func(p *cardPool) error {
		if err := p.maps(); err != nil {
			return err
		}
		s, ds := op.Matrix(p.s, p.pair.patches, 1), op.Matrix(p.ds, p.pair.patches, 1)
		dy, v := p.ofTokens(op.At(dOut, 0), o.width), p.ofPatches(op.At(in[2], 0), o.width)
		if err := c.Product(p.suffix, p.batch, p.rows, p.pair.patches, o.width, 1, ds, dy, v.T()); err != nil {
			return err
		}
		// In place: a lane reads what it writes.
		grid, block := warpGrid(p.batch * p.rows)
		if err := c.Launch("ground.ground_grad"+p.suffix, grid, block, 0, append(append([]any{p.ds, p.s, p.ds}, p.masks()...), 1/o.Temperature)...); err != nil {
			return err
		}
		if err := c.Product(p.suffix, p.batch, p.rows, o.dim, p.pair.patches, 1, p.ofTokens(op.At(dIn[0], 0), o.dim), ds, p.ofPatches(p.u.k, o.dim)); err != nil {
			return err
		}
		product := c.Product
		if p.first > 0 {
			product = c.AddProduct
		}
		if err := product(p.suffix, p.batch, p.pair.patches, o.dim, p.rows, 1, p.ofPatches(op.At(dIn[1], 0), o.dim), ds.T(), p.ofTokens(p.u.q, o.dim)); err != nil {
			return err
		}
		if err := product(p.suffix, p.batch, p.pair.patches, o.width, p.rows, 1, p.ofPatches(op.At(dIn[2], 0), o.width), s.T(), dy); err != nil {
			return err
		}
		if p.item+p.batch < o.pair.batch || p.first+p.rows < o.pair.tokens {
			return nil
		}
		return o.unitGrads(c, p.suffix, dIn[0], dIn[1], p.u)
	})
}
