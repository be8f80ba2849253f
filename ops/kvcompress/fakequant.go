package kvcompress

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// FakeQuantizeKV returns the keys and values that a cache made with cfg stands for once it holds all tokens of k (batch, seq, kvHeads,
// headDim) and v (batch, seq, kvHeads, valueDim): by the same codec, sinks and recent tokens exact, the others coded and decoded. A
// model that is trained with attention over these learns to live with its cache.
//
// Gradients go straight through: those of k and v are those of the results (Bengio, Léonard and Courville 2013, arXiv 1308.3432).
// Numbers that FP16 cannot hold are errors of the run, as they are of Append. float32 and float64; codes are those of float32.
func FakeQuantizeKV(k, v *G.Node, cfg Config) (fakeK, fakeV *G.Node, err error) {
	const fn = "kvcompress.FakeQuantizeKV"
	ak, av := op.Arg{Name: "k", Node: k}, op.Arg{Name: "v", Node: v}
	if err := op.CheckArgs(fn, ak, av); err != nil {
		return nil, nil, err
	}
	if err := op.CheckFloat(fn, ak, av); err != nil {
		return nil, nil, err
	}
	for _, a := range []op.Arg{ak, av} {
		if err := op.CheckRank(fn, a, 4); err != nil {
			return nil, nil, err
		}
	}
	ks, vs := k.Shape(), v.Shape()
	if err := op.CheckShape(fn, av, ks[0], ks[1], ks[2], vs[3]); err != nil {
		return nil, nil, err
	}
	shape, err := Shape{Batch: ks[0], KVHeads: ks[2], HeadDim: ks[3], ValueDim: vs[3], Capacity: ks[1]}.normal()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", fn, err)
	}
	if cfg, err = cfg.normal(shape); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", fn, err)
	}
	if cfg.Window > 0 {
		return nil, nil, fmt.Errorf("%s: Config.Window: got %d, want 0: give the window to attention instead", fn, cfg.Window)
	}
	if cfg.Budget > 0 {
		return nil, nil, fmt.Errorf("%s: Config.Budget: got %d, want 0: what is evicted depends on attention, which these nodes do not see", fn, cfg.Budget)
	}
	if cfg.Ratio == 1 {
		return k, v, nil
	}
	cfg.Model = ""
	for i, x := range []*G.Node{k, v} {
		o := &fakeQuantize{layout: newLayout(shape, cfg), fp16: cfg.RecentFP16, keys: i == 0}
		o.Base = op.NewBase(fn, fmt.Sprintf("%+v keys=%t", cfg, o.keys), x.Shape(), x.Dtype(), x)
		n, err := op.Apply(o, x)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", fn, err)
		}
		if i == 0 {
			fakeK = n
		} else {
			fakeV = n
		}
	}
	return fakeK, fakeV, nil
}

// fakeQuantize codes and decodes keys, or values.
type fakeQuantize struct {
	op.Base
	layout layout
	fp16   bool
	keys   bool
}

var _ op.Backwarder = (*fakeQuantize)(nil)

func (o *fakeQuantize) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if in[0].Dtype() == tensor.Float64 {
		return fakeQuantized[float64](o, in[0])
	}
	return fakeQuantized[float32](o, in[0])
}

func fakeQuantized[T kernel.Float](o *fakeQuantize, in G.Value) (G.Value, error) {
	x, err := op.Data[T](in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name(), err)
	}
	out, y := op.New[T](o.OutShape())
	if len(x) != len(y) {
		return nil, fmt.Errorf("%s: got %d elements, want %d", o.Name(), len(x), len(y))
	}
	l, name, limit := &o.layout, "v", float64(kernel.MaxFloat16)
	if o.keys {
		name, limit = "k", float64(l.keyLimit())
	}
	for _, a := range x {
		if !(float64(a) <= limit && float64(a) >= -limit) {
			return nil, fmt.Errorf("%s: %s: got %v, want numbers of at most %v, which FP16 holds", o.Name(), name, a, limit)
		}
	}
	s := o.OutShape()
	batch, seq, heads, dim := s[0], s[1], s[2], s[3]
	coded := max(l.sinks, seq-l.recent)
	groups := (coded - l.sinks + l.group - 1) / l.group
	copy(y, x)
	parallel.Run(batch*heads, func(w *parallel.Worker, i int) {
		token := func(t int) int { return ((i/heads*seq+t)*heads + i%heads) * dim }
		for g := range groups {
			first := l.sinks + g*l.group
			fakeGroup(o, w, x, y, token, first, min(l.group, coded-first))
		}
		for t := coded; o.fp16 && t < seq; t++ {
			for c, a := range x[token(t):][:dim] {
				y[token(t)+c] = T(kernel.Float16Value(kernel.Float16Bits(float32(a))))
			}
		}
	})
	return out, nil
}

// fakeGroup codes and decodes count tokens of a head from the first of a group on; the scales of keys are those of the whole group.
func fakeGroup[T kernel.Float](o *fakeQuantize, w *parallel.Worker, x, y []T, token func(t int) int, first, count int) {
	l := &o.layout
	known, dim := count, l.dv
	if o.keys {
		known, dim = l.group, l.dk
	}
	rows := parallel.Scratch[float32](w, slotKeys, known*dim)
	for t := range known {
		for c, a := range x[token(first+t):][:dim] {
			rows[t*dim+c] = float32(a)
			if o.fp16 { // it was among the recent tokens
				rows[t*dim+c] = kernel.Float16Value(kernel.Float16Bits(float32(a)))
			}
		}
	}
	if o.keys {
		l.rotateRows(rows)
	}
	l.fake(w, rows, known, count, o.keys)
	if o.keys {
		l.rotateRows(rows[:count*dim])
	}
	for t := range count {
		for c, a := range rows[t*dim:][:dim] {
			y[token(first+t)+c] = T(a)
		}
	}
}

// fake replaces the first count of known rows by what their codes stand for.
func (l *layout) fake(w *parallel.Worker, rows []float32, known, count int, keys bool) {
	if l.bits == 16 {
		for i, x := range rows {
			rows[i] = kernel.Float16Value(kernel.Float16Bits(x))
		}
		return
	}
	n, half, r, cols := l.codesV, l.halvesV, l.group, l.padV
	if keys {
		n, half, r, cols = l.codesK, l.halvesK, l.padK, l.group
	}
	codes, halves := parallel.Scratch[uint8](w, slotScores, n), parallel.Scratch[uint16](w, slotFold, half)
	clear(codes)
	clear(halves)
	m := l.matrix(codes, halves, r, cols)
	if keys {
		l.scaleKeys(&m, rows[:known*l.dk])
		l.encodeKeys(&m, rows[:count*l.dk], 0)
		m.DequantizeCols(rows, l.dk, l.dk, 0, count)
		return
	}
	l.encodeValues(&m, rows[:count*l.dv], 0)
	m.DequantizeRows(rows, l.dv, l.dv, 0, count)
}

func (o *fakeQuantize) DiffWRT(n int) []bool {
	wrt := make([]bool, n)
	for i := range wrt {
		wrt[i] = true
	}
	return wrt
}

// SymDiff builds the gradient for a TapeMachine.
func (o *fakeQuantize) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

// DoDiff is the gradient on a LispMachine.
func (o *fakeQuantize) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

// Backward hands the gradient on.
func (o *fakeQuantize) Backward(_ []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	if dOut.Dtype() == tensor.Float64 {
		return passOn[float64](dOut, dIn[0])
	}
	return passOn[float32](dOut, dIn[0])
}

func passOn[T kernel.Float](from G.Value, to *tensor.Dense) error {
	x, err := op.Data[T](from)
	if err == nil && to != nil {
		copy(op.Memory[T](to), x)
	}
	return err
}
