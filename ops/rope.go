package ops

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// RoPEConfig configures RoPE.
type RoPEConfig struct {
	// Base is b in the frequencies θ_i = b^(−2i/Dim). 0 means 10000.
	Base float64
	// Dim is how many leading elements of each head are rotated, an even number; the others pass through. 0 means all.
	Dim int
	// Interleaved pairs elements (2i, 2i+1), as in the paper and GPT-J. False pairs (i, i+Dim/2), as in GPT-NeoX and LLaMA.
	Interleaved bool
	// Scaling stretches the positions that the model was trained on to longer sequences. The zero value changes nothing.
	Scaling RoPEScaling
}

// RoPE rotates pairs of elements of each head by angles that grow with the token's position:
//
//	(y_a, y_b) = (x_a·cos φ − x_b·sin φ, x_b·cos φ + x_a·sin φ),  φ = (pos + s)·θ_i,  θ_i = Base^(−2i/Dim)
//
// for token s of the sequence and pair i, so that the product of a rotated query and a rotated key depends on the distance of
// their positions only. Which elements a and b make up pair i is a matter of cfg.Interleaved.
//
// x is (batch, seq, heads, headDim). pos holds the position of each sequence's first token: an integer scalar for all
// sequences, or a vector (batch). It is an input like any other, so gorgonia.Let moves it on between runs. Positions are
// 0 to 2³¹−1; others are an error when the graph runs. The result has x's shape and is differentiable with respect to x.
//
// Angles are computed in float64 whatever x's dtype, then their sines and cosines are kept in x's dtype, in tables that
// nodes of like configuration share.
//
// Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021 (arXiv 2104.09864), equations
// 15 and 34.
func RoPE(x, pos *G.Node, cfg RoPEConfig) (*G.Node, error) {
	const fn = "ops.RoPE"
	ax := op.Arg{Name: "x", Node: x}
	if err := checkRoPE(fn, ax, pos, 4); err != nil {
		return nil, err
	}
	shape := x.Shape()
	o := &rope{batch: shape[0], seq: shape[1], headDim: shape[3], heads: []int{shape[2]}}
	return o.apply(fn, x, pos, cfg)
}

// RoPEQKV is RoPE for queries and keys in one vector with the values, which stay as they are: qkv and the result are vectors of
// size.Size() elements.
func RoPEQKV(qkv, pos *G.Node, size QKV, cfg RoPEConfig) (*G.Node, error) {
	const fn = "ops.RoPEQKV"
	ax := op.Arg{Name: "qkv", Node: qkv}
	if err := checkRoPE(fn, ax, pos, 1); err != nil {
		return nil, err
	}
	if err := size.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", fn, err)
	}
	if err := op.CheckShape(fn, ax, size.Size()); err != nil {
		return nil, err
	}
	o := &rope{batch: size.Batch, seq: size.Seq, headDim: size.HeadDim, heads: []int{size.Heads, size.KVHeads}, rest: size.Keys()}
	return o.apply(fn, qkv, pos, cfg)
}

func checkRoPE(fn string, x op.Arg, pos *G.Node, rank int) error {
	ap := op.Arg{Name: "pos", Node: pos}
	if err := op.CheckArgs(fn, x, ap); err != nil {
		return err
	}
	if err := op.CheckFloat(fn, x); err != nil {
		return err
	}
	if err := op.CheckRank(fn, x, rank); err != nil {
		return err
	}
	if err := checkRows(fn, x); err != nil {
		return err
	}
	if err := op.CheckInteger(fn, ap); err != nil {
		return err
	}
	return op.CheckRank(fn, ap, 0, 1)
}

// rope has the inputs x and pos. x is one (batch, seq, heads, headDim) after another, each with a number of heads of its own, then
// what passes through.
type rope struct {
	op.Base
	cfg                 RoPEConfig
	dtype               tensor.Dtype
	batch, seq, headDim int
	heads               []int
	rest                int
}

func (o *rope) apply(fn string, x, pos *G.Node, cfg RoPEConfig) (_ *G.Node, err error) {
	if pos.Shape().Dims() == 1 {
		if err := op.CheckShape(fn, op.Arg{Name: "pos", Node: pos}, o.batch); err != nil {
			return nil, err
		}
	}
	if o.cfg, err = cfg.normalise(fn, o.headDim); err != nil {
		return nil, err
	}
	attrs := struct {
		RoPEConfig
		Sizes [3]int
		Heads []int
	}{o.cfg, [3]int{o.batch, o.seq, o.headDim}, o.heads}
	o.Base, o.dtype = op.NewBase(fn, attrs, x.Shape(), x.Dtype(), x, pos), x.Dtype()
	return op.Apply(o, x, pos)
}

var _ op.Selective = (*rope)(nil)

func (o *rope) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return ropeForward[float64](o, in)
	}
	return ropeForward[float32](o, in)
}

// DiffWRT: x, not pos.
func (o *rope) DiffWRT(int) []bool { return []bool{true, false} }

// BackwardReads: the position.
func (o *rope) BackwardReads(i int) bool { return i == 1 }

// SymDiff builds the gradient for a TapeMachine.
func (o *rope) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *rope) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward rotates by the opposite angle, the transposed rotation.
func (o *rope) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if o.dtype == tensor.Float64 {
		return ropeBackward[float64](o, in, dOut, dIn)
	}
	return ropeBackward[float32](o, in, dOut, dIn)
}

func ropeForward[T kernel.Float](o *rope, in []G.Value) (G.Value, error) {
	x, err := op.Elements[T](o.Name(), "x", in[0], o.OutShape().TotalSize())
	if err != nil {
		return nil, err
	}
	start, err := o.positions(in[1])
	if err != nil {
		return nil, err
	}
	out, y := op.NewUnset[T](o.OutShape())
	ropeRotateAll(o, y, x, start, false)
	return out, nil
}

func ropeBackward[T kernel.Float](o *rope, in []G.Value, dOut G.Value, dIn []*tensor.Dense) error {
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, o.OutShape().TotalSize())
	if err != nil {
		return err
	}
	start, err := o.positions(in[1])
	if err != nil {
		return err
	}
	ropeRotateAll(o, op.Memory[T](dIn[0]), dy, start, true)
	return nil
}

// positions returns the position of the first token, one for all sequences or one for each.
func (o *rope) positions(v G.Value) ([]int, error) {
	start, err := op.Ints(v)
	if err != nil {
		return nil, fmt.Errorf("%s: pos: %w", o.Name(), err)
	}
	if len(start) != 1 && len(start) != o.batch {
		return nil, fmt.Errorf("%s: pos: got %d positions, want 1 or %d", o.Name(), len(start), o.batch)
	}
	for _, p := range start {
		if p < 0 || p > ropeMaxPosition-o.seq {
			return nil, fmt.Errorf("%s: pos: got %d for a sequence of %d, want positions from 0 to %d", o.Name(), p, o.seq, ropeMaxPosition-1)
		}
	}
	return start, nil
}

// ropeRotateAll rotates x into y, backwards for the transposed rotation.
func ropeRotateAll[T kernel.Float](o *rope, y, x []T, start []int, back bool) {
	for _, heads := range o.heads {
		n := o.batch * o.seq * heads * o.headDim
		ropeRotate(o, y[:n], x[:n], heads, start, back)
		y, x = y[n:], x[n:]
	}
	overElements(len(x), func(lo, hi int) { copy(y[lo:hi], x[lo:hi]) })
}

// ropeRotate rotates every head of every token of x into y.
func ropeRotate[T kernel.Float](o *rope, y, x []T, heads int, start []int, back bool) {
	var (
		width  = heads * o.headDim
		half   = o.cfg.Dim / 2
		tokens = o.batch * o.seq
		per    = max(1, elementBlock/width)
		freqs  = ropeTableOf[T](o.cfg)
		last   = 0
	)
	for _, p := range start {
		last = max(last, p)
	}
	known := freqs.upTo(last + o.seq)
	parallel.Run((tokens+per-1)/per, func(w *parallel.Worker, task int) {
		row := parallel.Scratch[T](w, 0, 2*half)
		minus := parallel.Scratch[T](w, 1, half)
		for t := task * per; t < min((task+1)*per, tokens); t++ {
			p := t % o.seq
			if len(start) == 1 {
				p += start[0]
			} else {
				p += start[t/o.seq]
			}
			cos, sin := known.row(p, row)
			if back && o.cfg.Interleaved {
				for i, s := range sin {
					minus[i] = -s
				}
				sin = minus
			}
			for at := t * width; at < (t+1)*width; at += o.headDim {
				ropeHead(o, y[at:at+o.headDim], x[at:at+o.headDim], cos, sin, back)
			}
		}
	})
}

// ropeHead rotates one head. sin comes negated for the transposed rotation of interleaved pairs; that of half-split ones
// is the same rotation with the halves exchanged.
func ropeHead[T kernel.Float](o *rope, y, x, cos, sin []T, back bool) {
	n, half := o.cfg.Dim, o.cfg.Dim/2
	switch {
	case o.cfg.Interleaved:
		kernel.RotateInterleaved(y[:n], x[:n], cos, sin)
	case back:
		kernel.Rotate(y[half:n], y[:half], x[half:n], x[:half], cos, sin)
	default:
		kernel.Rotate(y[:half], y[half:n], x[:half], x[half:n], cos, sin)
	}
	copy(y[n:], x[n:])
}
