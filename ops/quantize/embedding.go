package quantize

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// Embedding looks up outputs of a quantized matrix as rows: those of a token table that was quantized as the output layer it
// also is (Config.Transposed), so that one packed copy serves both ends of a model.
//
//	y[…, p] = ŵ[p, ids[…]]
//
// ids is (n) or (batch, seq), of integers in [0, w.Out), others being an error when the graph runs. The result is (n, w.In) or
// (batch, seq, w.In), float32, the very numbers that Dequantize gives. There is no gradient.
func Embedding(w *Weights, ids *G.Node) (*G.Node, error) {
	const fn = "quantize.Embedding"
	if w == nil {
		return nil, fmt.Errorf("%s: w: got nil, want weights", fn)
	}
	if err := w.check(fn); err != nil {
		return nil, err
	}
	at := op.Arg{Name: "ids", Node: ids}
	args := append([]op.Arg{at}, w.args()...)
	if err := op.CheckArgs(fn, args...); err != nil {
		return nil, err
	}
	if err := op.CheckInteger(fn, at); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, at, 1, 2); err != nil {
		return nil, err
	}
	n := ids.Shape().TotalSize()
	if n < 1 {
		return nil, fmt.Errorf("%s: ids: got shape %v, want every dimension at least 1", fn, ids.Shape())
	}
	var in G.Nodes
	for _, a := range args {
		in = append(in, a.Node)
	}
	o := &embedding{weights: w.Config, in: w.In, out: w.Out, n: n}
	shape := append(ids.Shape().Clone(), w.In)
	o.Base = op.NewBase(fn, struct {
		Weights    Config
		In, Out    int
		Transposed bool // Config prints without
	}{w.Config, w.In, w.Out, w.Config.Transposed}, shape, tensor.Float32, in...)
	return op.Apply(o, in...)
}

// embedding has the inputs ids and the codes, then scales and zero points as far as the weights have them.
type embedding struct {
	op.Base
	weights    Config
	in, out, n int
}

var _ G.SDOp = (*embedding)(nil)

// Do looks the rows up.
func (o *embedding) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	ids, err := op.Ints(in[0])
	if err != nil {
		return nil, fmt.Errorf("%s: ids: %w", o.Name(), err)
	}
	if len(ids) != o.n {
		return nil, fmt.Errorf("%s: ids: got %d elements, want %d", o.Name(), len(ids), o.n)
	}
	for i, id := range ids {
		if id < 0 || id >= o.out {
			return nil, fmt.Errorf("%s: ids: got %d at element %d, want 0 to %d", o.Name(), id, i, o.out-1)
		}
	}
	parts := make([]G.Value, 3)
	copy(parts, in[1:])
	q, err := view(o.weights, o.in, o.out, parts[0], parts[1], parts[2])
	if err != nil {
		return nil, fmt.Errorf("%s: w: %w", o.Name(), err)
	}
	out, y := op.NewUnset[float32](o.OutShape())
	per := max(1, embeddingBlock/o.in)
	parallel.Run((o.n+per-1)/per, func(_ *parallel.Worker, task int) {
		for i := task * per; i < min((task+1)*per, o.n); i++ {
			lookUp(y[i*o.in:(i+1)*o.in], q, ids[i])
		}
	})
	return out, nil
}

const embeddingBlock = 1 << 13 // numbers of a task

func lookUp(dst []float32, q *kernel.Quantized, j int) {
	for p := range dst {
		dst[p] = q.Value(p, j)
	}
}

// DiffWRT: nothing.
func (o *embedding) DiffWRT(n int) []bool { return make([]bool, n) }

// SymDiff reports that there is no gradient.
func (o *embedding) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return nil, fmt.Errorf("%s: not differentiable", o.Name())
}
