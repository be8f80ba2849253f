//go:build cuda

package flashattn

import (
	G "gorgonia.org/gorgonia"

	"stheno/internal/op"
)

// Attention in BF16 and on integers of 8 bits on a card. float32 without dropout and packed sequences goes to tensor cores that multiply
// such numbers, as far as a block has the shared memory for it. Everything else goes to the kernels of Float32, over numbers that are
// rounded before.

// narrowProblem is a problem for these tensor cores.
type narrowProblem struct {
	*cardProblem
	ok bool // whether they can compute it

	name                      string // of kernels
	width, vWidth, qkWidth    int    // bytes of a row of q and k as they make scores, of v and dOut, and of q and k in BF16
	keys, gradKeys, gradRows  int    // how many pass at a time
	forwardShared, gradShared int    // bytes
	parts, columns            int    // of gradients
	codes                     bool
}

// What the kernels have; see attention_narrow.cu and attention_narrow_grad.cu.
const (
	narrowRows, narrowKept = 128, 64
	rowGap                 = 16
	rowBytes               = 20 // of a Row
)

// narrow is p for tensor cores.
func (p *cardProblem) narrow(c *op.Card) (n *narrowProblem, err error) {
	n = &narrowProblem{cardProblem: p, name: "bf16", keys: 64, gradKeys: 64, gradRows: 32, columns: 64, codes: p.Precision == Int8}
	n.vWidth, n.qkWidth = 2*ceilTo(p.dv, 16), 2*ceilTo(p.d, 16)
	n.width = n.qkWidth
	if n.codes {
		n.name, n.width = "int8", ceilTo(p.d, 32)
	}
	if p.dv > 128 {
		n.keys = 32
	}
	if max(p.d, p.dv) > 64 {
		n.columns, n.gradKeys = 128, 32
	}
	n.parts = (max(p.d, p.dv) + n.columns - 1) / n.columns
	each := n.width + n.vWidth + 2*rowGap
	n.forwardShared = narrowRows*(n.width+rowGap) + 2*n.keys*each
	n.gradShared = narrowKept * each
	if n.codes {
		each += n.qkWidth + rowGap
	}
	n.gradShared += 2 * max(n.gradKeys*each, n.gradRows*(each+rowBytes))
	if p.suffix != "_f32" || p.Dropout > 0 || p.HasCuQ {
		return n, nil
	}
	most, err := c.SharedMost()
	n.ok = max(n.forwardShared, n.gradShared) <= most
	return n, err
}

// operands gives f the parameters of kernels from q on to lift.
func (n *narrowProblem) operands(c *op.Card, f func(params []any) error) error {
	var q, k, v, qScales, kScales, lift, means any
	qRows, kRows := n.rows(), n.batch*n.kvHeads*n.seqKV
	parts := []lent{{&q, qRows * n.width}, {&k, kRows * n.width}, {&v, kRows * n.vWidth}}
	if n.codes {
		parts = append(parts, lent{&qScales, 4 * qRows}, lent{&kScales, 4 * kRows}, lent{&lift, 4 * qRows}, lent{&means, 4 * n.batch * n.kvHeads * n.d})
	}
	return lend(c, parts, func() error {
		if err := n.bf16(c, v, n.v, n.seqKV, n.kvHeads, n.dv, n.vWidth); err != nil {
			return err
		}
		if n.codes {
			if err := n.encode(c, q, qScales, lift, nil, k, kScales, nil, means, n.width); err != nil {
				return err
			}
		} else {
			if err := n.bf16(c, q, n.q, n.seqQ, n.heads, n.d, n.width); err != nil {
				return err
			}
			if err := n.bf16(c, k, n.k, n.seqKV, n.kvHeads, n.d, n.width); err != nil {
				return err
			}
		}
		return f([]any{q, k, v, n.width, n.vWidth, qScales, kScales, lift})
	})
}

// bf16 copies rows of x to `to`, in BF16.
func (p *cardProblem) bf16(c *op.Card, to, x any, seq, heads, d, width int) error {
	grid := [3]int{min((p.batch*heads*seq*width/4+255)/256, 4096)}
	return c.Launch("narrow.narrow_bf16_f32", grid, [3]int{256}, 0, to, x, p.batch, seq, heads, d, width/2)
}

// encode rounds queries and keys to codes, to what they stand for, or both; any of the results may be nil.
func (p *cardProblem) encode(c *op.Card, q, qScales, lift, qValues, k, kScales, kValues, means any, width int) error {
	sequences := p.batch
	if p.HasCuQ {
		sequences = p.sequences
	}
	if err := c.Launch("narrow.narrow_means"+p.suffix, [3]int{p.kvHeads, sequences}, [3]int{256}, 0,
		means, p.gk, p.seqKV, p.kvHeads, p.d, p.cuKV, p.cuKVBytes); err != nil {
		return err
	}
	grid := func(rows int) [3]int { return [3]int{min((rows+3)/4, mostBlocks)} }
	if err := c.Launch("narrow.narrow_codes"+p.suffix, grid(p.rows()), [3]int{128}, 0, q, qScales, lift, qValues, p.gq, means,
		p.batch, p.seqQ, p.heads, p.kvHeads, p.d, width, 0, p.cuQ, p.cuQBytes, p.sequences); err != nil {
		return err
	}
	return c.Launch("narrow.narrow_codes"+p.suffix, grid(p.batch*p.kvHeads*p.seqKV), [3]int{128}, 0, k, kScales, nil, kValues, p.gk, means,
		p.batch, p.seqKV, p.kvHeads, p.kvHeads, p.d, width, 1, p.cuKV, p.cuKVBytes, p.sequences)
}

// logits are the parameters of kernels from slopes on, with the sinks before them in the forward pass.
func (n *narrowProblem) logits() []any {
	s := n.sight()
	return []any{n.slopes, n.bias, n.biasBatch, n.biasHead, n.seqQ, n.seqKV, n.heads, n.kvHeads, n.d, n.dv, s.left, s.right, n.Scale, n.Softcap}
}

func (n *narrowProblem) forward(c *op.Card, out, lse any) error {
	if done, err := n.byWarpgroups(c, out, lse); done || err != nil {
		return err
	}
	return n.operands(c, func(params []any) error {
		params = append(append([]any{out, lse, n.stats}, params...), n.sinks)
		return c.Launch("attention_narrow.attention_"+n.name+n.most(n.dv)+"_f32", [3]int{(n.seqQ + narrowRows - 1) / narrowRows, n.heads, n.batch},
			[3]int{256}, n.forwardShared, append(params, n.logits()...)...)
	})
}

// gradients are dQ, dK and dV.
func (n *narrowProblem) gradients(c *op.Card, dOut G.Value, delta op.DevicePtr, d [3]any) error {
	return n.operands(c, func(params []any) error {
		var d16, q16, k16 any
		parts := []lent{{&d16, n.rows() * n.vWidth}}
		if n.codes {
			parts = append(parts, lent{&q16, n.rows() * n.qkWidth}, lent{&k16, n.batch * n.kvHeads * n.seqKV * n.qkWidth})
		} else {
			q16, k16 = params[0], params[1]
		}
		return lend(c, parts, func() error {
			if err := n.bf16(c, d16, dOut, n.seqQ, n.heads, n.dv, n.vWidth); err != nil {
				return err
			}
			if n.codes {
				if err := n.bf16(c, q16, n.gq, n.seqQ, n.heads, n.d, n.qkWidth); err != nil {
					return err
				}
				if err := n.bf16(c, k16, n.gk, n.seqKV, n.kvHeads, n.d, n.qkWidth); err != nil {
					return err
				}
			}
			params = append([]any{n.parts, d16, q16, k16, n.qkWidth, n.stats, delta, n.batch}, params...)
			params = append(params, n.logits()...)
			most := n.most(min(max(n.d, n.dv), n.columns)) + "_f32"
			if err := c.Launch("attention_narrow_grad.attention_grad_rows_"+n.name+most, [3]int{tiles(n.seqQ) * n.parts, n.heads, n.batch}, [3]int{128},
				n.gradShared, append([]any{d[0]}, params...)...); err != nil {
				return err
			}
			return c.Launch("attention_narrow_grad.attention_grad_keys_"+n.name+most, [3]int{tiles(n.seqKV) * n.parts, n.kvHeads, n.batch}, [3]int{128},
				n.gradShared, append([]any{d[1], d[2]}, params...)...)
		})
	})
}

// rounded gives f the problem whose products are those of rounded numbers.
func (p *cardProblem) rounded(c *op.Card, f func(p *cardProblem) error) error {
	x := *p
	nq, nk, nv := p.rows()*p.d, p.batch*p.seqKV*p.kvHeads*p.d, p.batch*p.seqKV*p.kvHeads*p.dv
	parts := []lent{{&x.q, nq * p.size}, {&x.k, nk * p.size}, {&x.v, nv * p.size}}
	var means any
	if p.Precision == Int8 {
		parts = append(parts, lent{&x.lift, p.rows() * p.size}, lent{&means, max(p.batch, p.sequences) * p.kvHeads * p.d * p.size})
	}
	return lend(c, parts, func() error {
		round := func(to, from any, n int) error { return c.Elementwise("narrow.narrow_round"+p.suffix, n, to, from) }
		if err := round(x.v, p.v, nv); err != nil {
			return err
		}
		if p.Precision == Int8 {
			if err := p.encode(c, nil, nil, x.lift, x.q, nil, nil, x.k, means, 0); err != nil {
				return err
			}
			return f(&x)
		}
		if err := round(x.q, p.q, nq); err != nil {
			return err
		}
		if err := round(x.k, p.k, nk); err != nil {
			return err
		}
		x.gq, x.gk = x.q, x.k
		return f(&x)
	})
}

// lent is a piece of scratch memory: where its address goes, and its size in bytes.
type lent struct {
	to *any
	n  int
}

// lend lends pieces of memory to f.
func lend(c *op.Card, parts []lent, f func() error) error {
	const line = 256
	all := line
	for _, p := range parts {
		all += ceilTo(p.n, line)
	}
	return c.Scratch(all, func(at op.DevicePtr) error {
		at = (at + line - 1) / line * line
		for _, p := range parts {
			*p.to = at
			at += op.DevicePtr(ceilTo(p.n, line))
		}
		return f()
	})
}
