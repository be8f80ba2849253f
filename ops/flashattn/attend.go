package flashattn

import (
	"fmt"
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/ops"
)

// Attend returns the attention of q (batch, seqQ, heads, d) over keys k (batch, seqKV, kvHeads, d) and values
// v (batch, seqKV, kvHeads, dv): a node of shape (batch, seqQ, heads, dv) and the dtype of q, float32 or float64. heads is
// a multiple of kvHeads; query head h uses key head h·kvHeads/heads. A row that sees no key gives zeros and no gradient.
//
// The node is differentiable with respect to q, k, v, cfg.Sinks and cfg.Bias, on Gorgonia's TapeMachine and LispMachine.
// Errors name what was got and what is wanted.
func Attend(q, k, v *G.Node, cfg Config) (*G.Node, error) {
	const fn = "flashattn.Attend"
	a, in, s, err := check(fn, apart(q, k, v), cfg)
	if err != nil {
		return nil, err
	}
	return apply(fn, a, in, s, s.out())
}

// AttendLSE is Attend together with the log-sum-exp of each row's logits, sinks included: a node of shape
// (batch, heads, seqQ), natural logarithm, −∞ on rows that see no key. Gradients flow through both nodes.
func AttendLSE(q, k, v *G.Node, cfg Config) (out, lse *G.Node, err error) {
	const fn = "flashattn.AttendLSE"
	a, in, s, err := check(fn, apart(q, k, v), cfg)
	if err != nil {
		return nil, nil, err
	}
	a.Packed = true
	so, sl := s.out(), s.lse()
	packed, err := apply(fn, a, in, s, tensor.Shape{so.TotalSize() + sl.TotalSize()})
	if err != nil {
		return nil, nil, err
	}
	if out, err = take(packed, 0, so); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", fn, err)
	}
	if lse, err = take(packed, so.TotalSize(), sl); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", fn, err)
	}
	return out, lse, nil
}

// sizes are the shapes of q, k and v.
type sizes struct{ q, k, v tensor.Shape }

func (s sizes) out() tensor.Shape { return tensor.Shape{s.q[0], s.q[1], s.q[2], s.v[3]} }

func (s sizes) lse() tensor.Shape { return tensor.Shape{s.q[0], s.q[2], s.q[1]} }

func apply(fn string, a attrs, in G.Nodes, s sizes, shape tensor.Shape) (*G.Node, error) {
	stats, err := op.SideFor(attendFor(&attendOp{attrs: a}), in[0], append(tensor.Shape{2}, s.lse()...), in[0].Dtype())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	in = append(in, stats)
	o := &attendOp{Base: op.NewBase("flashattn.Attend", a, shape, in[0].Dtype(), in...), attrs: a}
	for i, wrt := range o.DiffWRT(len(in)) {
		if wrt {
			o.floats = append(o.floats, in[i].Shape())
		}
	}
	n, err := op.Apply(attendFor(o), in...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	return n, nil
}

// source is where q, k and v come from.
type source struct {
	args  []op.Arg
	sizes func(fn string) (sizes, error) // of args that are nodes of floats
	joint ops.QKV                        // zero unless they are one vector
}

// apart is q, k and v of a node each.
func apart(q, k, v *G.Node) source {
	args := []op.Arg{{Name: "q", Node: q}, {Name: "k", Node: k}, {Name: "v", Node: v}}
	return source{args: args, sizes: func(fn string) (s sizes, err error) {
		for _, x := range args {
			if err := op.CheckRank(fn, x, 4); err != nil {
				return s, err
			}
		}
		return sizes{q.Shape(), k.Shape(), v.Shape()}, nil
	}}
}

// check validates the arguments of a graph function and returns the normal form of cfg, the op's inputs in order and the sizes.
func check(fn string, from source, cfg Config) (a attrs, in G.Nodes, s sizes, err error) {
	floats := slices.Clone(from.args)
	var ints []op.Arg
	if cfg.Sinks != nil {
		floats = append(floats, op.Arg{Name: "Sinks", Node: cfg.Sinks})
	}
	if cfg.Bias != nil {
		floats = append(floats, op.Arg{Name: "Bias", Node: cfg.Bias})
	}
	if cfg.CuSeqlensQ != nil {
		ints = append(ints, op.Arg{Name: "CuSeqlensQ", Node: cfg.CuSeqlensQ})
	}
	if cfg.CuSeqlensKV != nil {
		ints = append(ints, op.Arg{Name: "CuSeqlensKV", Node: cfg.CuSeqlensKV})
	}
	if cfg.Step != nil {
		ints = append(ints, op.Arg{Name: "Step", Node: cfg.Step})
	}
	all := append(slices.Clone(floats), ints...)
	if err = op.CheckArgs(fn, all...); err != nil {
		return a, nil, s, err
	}
	if err = op.CheckFloat(fn, floats...); err != nil {
		return a, nil, s, err
	}
	if err = op.CheckInteger(fn, ints...); err != nil {
		return a, nil, s, err
	}
	if s, err = from.sizes(fn); err != nil {
		return a, nil, s, err
	}
	if err = checkShapes(fn, s.q, s.k, s.v); err != nil {
		return a, nil, s, err
	}
	if a, err = cfg.normal(s.q[3]); err != nil {
		return a, nil, s, fmt.Errorf("%s: %w", fn, err)
	}
	if err = checkExtras(fn, s.q, s.k, cfg); err != nil {
		return a, nil, s, err
	}
	a.QKV = from.joint
	for _, x := range all {
		in = append(in, x.Node)
	}
	return a, in, s, nil
}

func checkShapes(fn string, q, k, v tensor.Shape) error {
	for i, name := range []string{"batch", "sequence length", "number of heads", "head dimension"} {
		for arg, s := range map[string]tensor.Shape{"q": q, "k": k, "v": v} {
			if s[i] < 1 {
				return fmt.Errorf("%s: %s: got shape %v, want a positive %s", fn, arg, s, name)
			}
		}
	}
	switch {
	case k[0] != q[0] || v[0] != q[0]:
		return fmt.Errorf("%s: got batches %d of q, %d of k and %d of v, want one batch", fn, q[0], k[0], v[0])
	case k[1] != v[1]:
		return fmt.Errorf("%s: v: got sequence length %d, want %d as in k", fn, v[1], k[1])
	case k[2] != v[2]:
		return fmt.Errorf("%s: v: got %d heads, want %d as in k", fn, v[2], k[2])
	case q[2]%k[2] != 0:
		return fmt.Errorf("%s: q: got %d heads, want a multiple of the %d heads of k", fn, q[2], k[2])
	case k[3] != q[3]:
		return fmt.Errorf("%s: k: got head dimension %d, want %d as in q", fn, k[3], q[3])
	case q[3] > maxDim:
		return fmt.Errorf("%s: q: got head dimension %d, want at most %d", fn, q[3], maxDim)
	case v[3] > maxDim:
		return fmt.Errorf("%s: v: got head dimension %d, want at most %d", fn, v[3], maxDim)
	}
	return nil
}

func checkExtras(fn string, q, k tensor.Shape, cfg Config) error {
	if cfg.Sinks != nil {
		if err := op.CheckShape(fn, op.Arg{Name: "Sinks", Node: cfg.Sinks}, q[2]); err != nil {
			return err
		}
	}
	if cfg.Bias != nil {
		if err := op.CheckRank(fn, op.Arg{Name: "Bias", Node: cfg.Bias}, 4); err != nil {
			return err
		}
		if s := cfg.Bias.Shape(); s[0] != 1 && s[0] != q[0] || s[1] != 1 && s[1] != q[2] || s[2] != q[1] || s[3] != k[1] {
			return fmt.Errorf("%s: Bias: got shape %v, want (1 or %d, 1 or %d, %d, %d)", fn, s, q[0], q[2], q[1], k[1])
		}
	}
	if cfg.CuSeqlensQ != nil {
		if q[0] != 1 {
			return fmt.Errorf("%s: q: got batch %d with CuSeqlensQ, want 1", fn, q[0])
		}
		if err := op.CheckRank(fn, op.Arg{Name: "CuSeqlensQ", Node: cfg.CuSeqlensQ}, 1); err != nil {
			return err
		}
		n := cfg.CuSeqlensQ.Shape()[0]
		if n < 2 {
			return fmt.Errorf("%s: CuSeqlensQ: got %d entries, want at least 2", fn, n)
		}
		if cfg.CuSeqlensKV != nil {
			return op.CheckShape(fn, op.Arg{Name: "CuSeqlensKV", Node: cfg.CuSeqlensKV}, n)
		}
	}
	if cfg.Step != nil {
		return op.CheckRank(fn, op.Arg{Name: "Step", Node: cfg.Step}, 0)
	}
	return nil
}
