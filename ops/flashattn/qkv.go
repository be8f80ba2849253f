package flashattn

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/ops"
)

// AttendQKV is Attend of queries, keys and values that lie in one vector, as size says and ops.Linears makes it. The heads of its
// result are joined: (batch, seq, heads·headDim). The gradient of qkv is one vector, too.
func AttendQKV(qkv *G.Node, size ops.QKV, cfg Config) (*G.Node, error) {
	const fn = "flashattn.AttendQKV"
	arg := op.Arg{Name: "qkv", Node: qkv}
	a, in, s, err := check(fn, source{args: []op.Arg{arg}, joint: size, sizes: func(fn string) (s sizes, err error) {
		if err := size.Validate(); err != nil {
			return s, fmt.Errorf("%s: %w", fn, err)
		}
		if err := op.CheckRank(fn, arg, 1); err != nil {
			return s, err
		}
		keys := tensor.Shape{size.Batch, size.Seq, size.KVHeads, size.HeadDim}
		return sizes{tensor.Shape{size.Batch, size.Seq, size.Heads, size.HeadDim}, keys, keys}, op.CheckShape(fn, arg, size.Size())
	}}, cfg)
	if err != nil {
		return nil, err
	}
	return apply(fn, a, in, s, tensor.Shape{size.Batch, size.Seq, size.Heads * size.HeadDim})
}

// mains is the number of inputs that q, k and v are.
func (a *attrs) mains() int {
	if a.QKV != (ops.QKV{}) {
		return 1
	}
	return 3
}

// heads are q, k and v.
func heads[T kernel.Float](a attrs, in []G.Value) (out [3]Heads[T], err error) {
	if a.mains() == 3 {
		for i := range out {
			data, err := op.Data[T](in[i])
			if err != nil {
				return out, err
			}
			s := in[i].Shape()
			out[i] = Contiguous(data, s[0], s[1], s[2], s[3])
		}
		return out, nil
	}
	data, err := op.Data[T](in[0])
	if err != nil {
		return out, err
	}
	s := a.QKV
	for i, n := range [3]int{s.Heads, s.KVHeads, s.KVHeads} {
		out[i] = Contiguous(data[:s.Batch*s.Seq*n*s.HeadDim], s.Batch, s.Seq, n, s.HeadDim)
		data = data[len(out[i].Data):]
	}
	return out, nil
}

// gradientsOf gives the gradients of q, k and v, which are like x, their memory: nil where nobody wants one.
func gradientsOf[T kernel.Float](a attrs, x [3]Heads[T], dIn []*tensor.Dense) [3]Heads[T] {
	var all []T
	if a.mains() == 1 && dIn[0] != nil {
		all = op.Memory[T](dIn[0])
	}
	for i := range x {
		switch n := len(x[i].Data); {
		case all != nil:
			x[i].Data, all = all[:n:n], all[n:]
		case a.mains() == 3 && dIn[i] != nil:
			x[i].Data = op.Memory[T](dIn[i])
		default:
			x[i].Data = nil
		}
	}
	return x
}
