package ops

import (
	"fmt"
	"reflect"
	"sync"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// embeddingGrad is the gradient of an embedding's table. Inputs: ids and the output's gradient.
type embeddingGrad[T kernel.Float] struct {
	op.Base
	of      *embedding
	node    *G.Node // where the op is in its graph
	buffers *embeddingBuffers[T]
	readers op.Readers
}

var (
	_ G.SDOp       = (*embeddingGrad[float32])(nil)
	_ op.Reclaimer = (*embeddingGrad[float32])(nil)
)

func newEmbeddingGrad(o *embedding, table, ids, grad *G.Node) (*G.Node, error) {
	if o.dtype == tensor.Float64 {
		return applyEmbeddingGrad[float64](o, table, ids, grad)
	}
	return applyEmbeddingGrad[float32](o, table, ids, grad)
}

func applyEmbeddingGrad[T kernel.Float](o *embedding, table, ids, grad *G.Node) (*G.Node, error) {
	d := &embeddingGrad[T]{
		Base:    op.NewBase(o.Name()+".Backward", o.cfg, table.Shape(), table.Dtype(), ids, grad),
		of:      o,
		buffers: &embeddingBuffers[T]{size: o.vocab * o.dim, dim: o.dim},
	}
	n, err := op.Apply(embeddingGradFor(d, d.Base, o), ids, grad)
	if err != nil {
		return nil, err
	}
	// ApplyOp may return an equal node that was there before.
	if d, ok := n.Op().(*embeddingGrad[T]); ok && d.node == nil {
		d.node = n
	}
	return n, nil
}

func (d *embeddingGrad[T]) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(d.Name(), &err)
	if err := d.CheckShapes(in); err != nil {
		return nil, err
	}
	if d.consumed() {
		out, _ := op.New[T](d.OutShape())
		return out, embeddingAccumulate[T](d.of, out, in[0], in[1])
	}
	ids, err := d.of.ids(in[0])
	if err != nil {
		return nil, err
	}
	dy, err := op.Elements[T](d.of.Name(), "gradient", in[1], d.of.n*d.of.dim)
	if err != nil {
		return nil, err
	}
	mem := d.buffers.lend(ids)
	embeddingScatter(d.of, mem, ids, dy)
	return tensor.New(tensor.WithShape(d.OutShape()...), tensor.WithBacking(mem)), nil
}

// FreshResult: what is consumed is; other memory goes back to embeddingBuffers.
func (d *embeddingGrad[T]) FreshResult() bool { return d.consumed() }

// Reclaim gives it back at once, where a machine's values are known to be read no longer.
func (d *embeddingGrad[T]) Reclaim(result *tensor.Dense) {
	if data, ok := result.Data().([]T); ok {
		d.buffers.reclaim(data)
	}
}

// DiffWRT: second derivatives are not supported.
func (d *embeddingGrad[T]) DiffWRT(n int) []bool { return make([]bool, n) }

// SymDiff fails: second derivatives are not supported.
func (d *embeddingGrad[T]) SymDiff(G.Nodes, *G.Node, *G.Node) (G.Nodes, error) {
	return nil, fmt.Errorf("%s: second derivatives are not supported", d.Name())
}

// consumed reports whether a node of the graph takes the gradient as an input, other than to read a copy of it. Gorgonia
// may then run that node in place, or hand out a view of the gradient, and rows of it change that no id names.
func (d *embeddingGrad[T]) consumed() bool {
	if d.node == nil {
		return true
	}
	return d.readers.Any(d.node, func(reader G.Op) bool { return reflect.TypeOf(reader) != embeddingReadType() })
}

// embeddingReadType is the type of the statements that gorgonia.Read makes, which has no name outside Gorgonia.
var embeddingReadType = sync.OnceValue(func() reflect.Type {
	var v G.Value
	return reflect.TypeOf(G.Read(G.NewScalar(G.NewGraph(), G.Float64, G.WithName("x")), &v).Op())
})
