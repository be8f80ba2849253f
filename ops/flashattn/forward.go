package flashattn

import (
	"fmt"
	"math"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
)

// Operands are the inputs of Forward besides q, k and v. The zero value has none, and aligns rows as Attend does.
type Operands[T kernel.Float] struct {
	// KeyLens is how many keys of each batch element there are, the others being room that is not read; nil for all.
	KeyLens []int
	// Positions is the key position that the first query row of each batch element stands at: row i sees what it would see at
	// Positions[b]+i. nil aligns the last query row with the last key.
	Positions []int
	// Sinks (heads) and Bias (batch or 1, heads or 1, seqQ, seqKV, row-major, with its leading sizes in BiasBatch and
	// BiasHeads) are as in Config; nil for none.
	Sinks, Bias          []T
	BiasBatch, BiasHeads int
	// Step is what the node Config.Step would hold.
	Step int
	// LSE (batch, heads, seqQ) takes the log-sum-exp of each row; nil if it is not wanted.
	LSE []T
}

// Forward computes attention on values, without a graph: dst (batch, seqQ, heads, dv) from q, k and v as in Attend. Views
// may have any strides; dst must not overlap the others. The nodes in cfg must be nil. Work is spread over the threads of
// the process.
func Forward[T kernel.Float](dst, q, k, v Heads[T], cfg Config, in Operands[T]) error {
	const fn = "flashattn.Forward"
	if cfg.Sinks != nil || cfg.Bias != nil || cfg.CuSeqlensQ != nil || cfg.CuSeqlensKV != nil || cfg.Step != nil {
		return fmt.Errorf("%s: got a Config with nodes, want values in Operands", fn)
	}
	for name, x := range map[string]*Heads[T]{"dst": &dst, "q": &q, "k": &k, "v": &v} {
		if err := x.check(name); err != nil {
			return fmt.Errorf("%s: %w", fn, err)
		}
	}
	if err := checkShapes(fn, q.shape(), k.shape(), v.shape()); err != nil {
		return err
	}
	if want := (tensor.Shape{q.Batch, q.Seq, q.Heads, v.Dim}); !dst.shape().Eq(want) {
		return fmt.Errorf("%s: dst: got shape %v, want %v", fn, dst.shape(), want)
	}
	a, err := cfg.normal(q.Dim)
	if err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	p := &problem[T]{attrs: a, q: q, k: k, v: v, out: dst, lse: in.LSE, sinks: in.Sinks}
	if err := in.check(p); err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	p.segs = segments(q.Batch, q.Seq, k.Seq)
	for b := range p.segs {
		s := &p.segs[b]
		if in.KeyLens != nil {
			s.k1 = in.KeyLens[b]
			s.at = s.k1 - q.Seq
		}
		if in.Positions != nil {
			s.at = in.Positions[b]
		}
	}
	p.prepare(in.Step)
	p.forward()
	return nil
}

func (x *Heads[T]) shape() tensor.Shape { return tensor.Shape{x.Batch, x.Seq, x.Heads, x.Dim} }

// check validates the operands against the sizes of p and gives p its bias.
func (in *Operands[T]) check(p *problem[T]) error {
	lens := func(name string, none bool, got, want int) error {
		if !none && got != want {
			return fmt.Errorf("%s: got %d elements, want %d", name, got, want)
		}
		return nil
	}
	rows := p.q.Batch * p.q.Heads * p.q.Seq
	for _, err := range []error{
		lens("KeyLens", in.KeyLens == nil, len(in.KeyLens), p.q.Batch), lens("Positions", in.Positions == nil, len(in.Positions), p.q.Batch),
		lens("Sinks", in.Sinks == nil, len(in.Sinks), p.q.Heads), lens("LSE", in.LSE == nil, len(in.LSE), rows),
		lens("Bias", in.Bias == nil, len(in.Bias), in.BiasBatch*in.BiasHeads*p.q.Seq*p.k.Seq),
	} {
		if err != nil {
			return err
		}
	}
	for b, n := range in.KeyLens {
		if n < 0 || n > p.k.Seq {
			return fmt.Errorf("KeyLens: got %d for batch element %d, want 0 to %d", n, b, p.k.Seq)
		}
	}
	for b, n := range in.Positions {
		if n < -far || n > math.MaxInt32 {
			return fmt.Errorf("Positions: got %d for batch element %d, want at most %d", n, b, math.MaxInt32)
		}
	}
	if in.Bias != nil {
		if in.BiasBatch != 1 && in.BiasBatch != p.q.Batch || in.BiasHeads != 1 && in.BiasHeads != p.q.Heads {
			return fmt.Errorf("Bias: got batch %d and heads %d, want 1 or %d and 1 or %d", in.BiasBatch, in.BiasHeads, p.q.Batch, p.q.Heads)
		}
		p.bias.data = in.Bias
		p.bias.shape(tensor.Shape{in.BiasBatch, in.BiasHeads, p.q.Seq, p.k.Seq})
	}
	return nil
}
