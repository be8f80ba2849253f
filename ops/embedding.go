package ops

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/parallel"
)

// EmbeddingConfig configures Embedding.
type EmbeddingConfig struct {
	// Padding says that PaddingID marks filler: its row is read like any other and gets no gradient.
	Padding   bool
	PaddingID int
}

// Embedding looks up rows of a table:
//
//	y[…, j] = table[ids[…], j]
//
// table is (vocab, dim), of floats; ids is (n) or (batch, seq), of integers in [0, vocab), others being an error when the graph
// runs. The result is (n, dim) or (batch, seq, dim), differentiable with respect to table. Learned positions are a table too,
// looked up by a vector of positions.
//
// The gradient costs what the rows named by ids cost, not what the table does: its memory is used again once the garbage
// collector finds the gradients of earlier runs unreachable, and only the rows that they touched are zeroed. It may be
// scaled or zeroed in place, as solvers do. A gradient that other nodes of the graph take as an input, as with a table
// that is an output layer as well, is a new tensor each time. Rows that occur more than once are summed in the order of
// ids.
func Embedding(table, ids *G.Node, cfg EmbeddingConfig) (*G.Node, error) {
	const fn = "ops.Embedding"
	at, ai := op.Arg{Name: "table", Node: table}, op.Arg{Name: "ids", Node: ids}
	if err := op.CheckArgs(fn, at, ai); err != nil {
		return nil, err
	}
	if err := op.CheckFloat(fn, at); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, at, 2); err != nil {
		return nil, err
	}
	if err := checkRows(fn, at); err != nil {
		return nil, err
	}
	if err := op.CheckInteger(fn, ai); err != nil {
		return nil, err
	}
	if err := op.CheckRank(fn, ai, 1, 2); err != nil {
		return nil, err
	}
	if err := checkRows(fn, ai); err != nil {
		return nil, err
	}
	vocab, dim := table.Shape()[0], table.Shape()[1]
	if !cfg.Padding && cfg.PaddingID != 0 {
		return nil, fmt.Errorf("%s: PaddingID: got %d without Padding, want 0", fn, cfg.PaddingID)
	}
	if cfg.Padding && (cfg.PaddingID < 0 || cfg.PaddingID >= vocab) {
		return nil, fmt.Errorf("%s: PaddingID: got %d, want 0 to %d", fn, cfg.PaddingID, vocab-1)
	}
	shape := append(ids.Shape().Clone(), dim)
	return op.Apply(&embedding{
		Base:  op.NewBase(fn, cfg, shape, table.Dtype(), table, ids),
		cfg:   cfg,
		dtype: table.Dtype(),
		vocab: vocab, dim: dim, n: ids.Shape().TotalSize(),
	}, table, ids)
}

// embedding has the inputs table and ids.
type embedding struct {
	op.Base
	cfg           EmbeddingConfig
	dtype         tensor.Dtype
	vocab, dim, n int
}

var _ G.SDOp = (*embedding)(nil)
var _ G.ADOp = (*embedding)(nil)

func (o *embedding) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	if err := o.CheckShapes(in); err != nil {
		return nil, err
	}
	if o.dtype == tensor.Float64 {
		return embeddingForward[float64](o, in)
	}
	return embeddingForward[float32](o, in)
}

// DiffWRT: table, not ids.
func (o *embedding) DiffWRT(int) []bool { return []bool{true, false} }

// SymDiff builds the gradient for a TapeMachine.
func (o *embedding) SymDiff(in G.Nodes, _, grad *G.Node) (G.Nodes, error) {
	if len(in) != 2 {
		return nil, fmt.Errorf("%s: got %d inputs, want 2", o.Name(), len(in))
	}
	d, err := newEmbeddingGrad(o, in[0], in[1], grad)
	if err != nil {
		return nil, err
	}
	return G.Nodes{d, nil}, nil
}

// DoDiff is the gradient on a LispMachine. It adds to the rows of table's gradient that ids name.
func (o *embedding) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) (err error) {
	defer op.Recover(o.Name(), &err)
	if len(in) != 2 {
		return fmt.Errorf("%s: got %d inputs, want 2", o.Name(), len(in))
	}
	dOut, err := out.Grad()
	if err != nil {
		return fmt.Errorf("%s: gradient of the output: %w", o.Name(), err)
	}
	dTable, err := in[0].Grad()
	if err != nil {
		return fmt.Errorf("%s: gradient of table: %w", o.Name(), err)
	}
	d, ok := dTable.(*tensor.Dense)
	if !ok || !op.Contiguous(d) {
		return fmt.Errorf("%s: table: got a gradient of type %T, want a contiguous *tensor.Dense", o.Name(), dTable)
	}
	if o.dtype == tensor.Float64 {
		return embeddingAccumulate[float64](o, d, in[1].Value(), dOut)
	}
	return embeddingAccumulate[float32](o, d, in[1].Value(), dOut)
}

func embeddingForward[T kernel.Float](o *embedding, in []G.Value) (G.Value, error) {
	table, err := op.Elements[T](o.Name(), "table", in[0], o.vocab*o.dim)
	if err != nil {
		return nil, err
	}
	ids, err := o.ids(in[1])
	if err != nil {
		return nil, err
	}
	out, y := op.NewUnset[T](o.OutShape())
	per := max(1, elementBlock/o.dim)
	parallel.Run((o.n+per-1)/per, func(_ *parallel.Worker, task int) {
		for i := task * per; i < min((task+1)*per, o.n); i++ {
			copy(y[i*o.dim:(i+1)*o.dim], table[ids[i]*o.dim:])
		}
	})
	return out, nil
}

// ids returns a copy of the ids, all of them in range.
func (o *embedding) ids(v G.Value) ([]int, error) {
	ids, err := op.Ints(v)
	if err != nil {
		return nil, fmt.Errorf("%s: ids: %w", o.Name(), err)
	}
	if len(ids) != o.n {
		return nil, fmt.Errorf("%s: ids: got %d elements, want %d", o.Name(), len(ids), o.n)
	}
	for i, id := range ids {
		if id < 0 || id >= o.vocab {
			return nil, fmt.Errorf("%s: ids: got %d at element %d, want 0 to %d", o.Name(), id, i, o.vocab-1)
		}
	}
	return ids, nil
}

// embeddingAccumulate adds dOut's rows to the rows of dTable.
func embeddingAccumulate[T kernel.Float](o *embedding, dTable *tensor.Dense, idsValue, dOut G.Value) error {
	ids, err := o.ids(idsValue)
	if err != nil {
		return err
	}
	dy, err := op.Elements[T](o.Name(), "gradient", dOut, o.n*o.dim)
	if err != nil {
		return err
	}
	d := op.Memory[T](dTable)
	if len(d) != o.vocab*o.dim {
		return fmt.Errorf("%s: table: got a gradient of %d elements, want %d", o.Name(), len(d), o.vocab*o.dim)
	}
	embeddingScatter(o, d, ids, dy)
	return nil
}

// embeddingScatter computes d[ids[i]] += dy[i] for i = 0, 1, … in this order.
func embeddingScatter[T kernel.Float](o *embedding, d []T, ids []int, dy []T) {
	embeddingColumns(o.dim, func(lo, hi int) {
		for i, id := range ids {
			if o.cfg.Padding && id == o.cfg.PaddingID {
				continue
			}
			row := d[id*o.dim+lo : id*o.dim+hi]
			kernel.Add(row, row, dy[i*o.dim+lo:i*o.dim+hi])
		}
	})
}

// embeddingColumns cuts rows into ranges of columns, one task each: tasks share no element even where two ids are equal,
// and each adds in the order of ids.
func embeddingColumns(dim int, body func(lo, hi int)) {
	const width = 128
	parallel.Run((dim+width-1)/width, func(_ *parallel.Worker, i int) {
		body(i*width, min((i+1)*width, dim))
	})
}
