package op

import (
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"slices"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Base carries the methods of gorgonia.Op that are alike for every op: embed it and add Do.
//
// Types and the output shape are concrete, taken from the input nodes when the op is made, so nothing is left for
// Gorgonia's type inference to guess, and every op has a static output shape.
type Base struct {
	name  string
	attrs string
	in    []hm.Type
	sizes []tensor.Shape // of the inputs
	out   hm.Type
	shape tensor.Shape
	begin func() // nil but for a Recycler
}

// NewBase describes an op called name (package.Function) that maps inputs to one value of the given shape and dtype.
//
// attrs is everything besides the inputs that the result depends on: it is printed with %+v into the hash, because
// Gorgonia merges nodes whose hashes, shapes and children agree. It must hold no pointers.
func NewBase(name string, attrs any, shape tensor.Shape, dtype tensor.Dtype, inputs ...*G.Node) Base {
	b := Base{name: name, shape: shape.Clone(), out: typeOf(shape, dtype)}
	if attrs != nil {
		b.attrs = fmt.Sprintf("%+v", attrs)
	}
	for _, n := range inputs {
		b.in = append(b.in, typeOf(n.Shape(), n.Dtype()))
		b.sizes = append(b.sizes, n.Shape().Clone())
	}
	return b
}

func typeOf(shape tensor.Shape, dtype tensor.Dtype) hm.Type {
	if shape.Dims() == 0 {
		return dtype
	}
	return G.TensorType{Dims: shape.Dims(), Of: dtype}
}

// Name is the op's name, package.Function.
func (b *Base) Name() string { return b.name }

// OutShape is the shape of the op's result.
func (b *Base) OutShape() tensor.Shape { return b.shape }

// OutDtype is the dtype of its elements.
func (b *Base) OutDtype() tensor.Dtype {
	if t, ok := b.out.(G.TensorType); ok {
		return t.Of.(tensor.Dtype)
	}
	return b.out.(tensor.Dtype)
}

// Arity is the number of inputs.
func (b *Base) Arity() int { return len(b.in) }

// onBegin has f called whenever the op's Do begins.
func (b *Base) onBegin(f func()) { b.begin = f }

// begins is called by each Do, by way of CheckShapes or itself, before it makes its result.
func (b *Base) begins() {
	if b.begin != nil {
		b.begin()
	}
}

// CheckShapes is the beginning of every Do. It reports a wrong number of inputs, and values that have the rank of their nodes and
// as many numbers, but another shape: one can be transposed or reshaped after it was bound, and would be read in the wrong order.
// Values of another size are left to those that read them, who know their names.
func (b *Base) CheckShapes(in []G.Value) error {
	b.begins()
	if len(in) != len(b.in) {
		return fmt.Errorf("%s: got %d inputs, want %d", b.name, len(in), len(b.in))
	}
	for i, v := range in {
		d, ok := v.(*tensor.Dense)
		if !ok || d == nil {
			continue
		}
		got, want := d.Shape(), b.sizes[i]
		if got.Dims() == want.Dims() && got.TotalSize() == want.TotalSize() && !slices.Equal(got, want) {
			return fmt.Errorf("%s: input %d: got a value of shape %v, want %v", b.name, i, got, want)
		}
	}
	return nil
}

// Type is a new function type on every call, because Gorgonia consumes the one it is given.
func (b *Base) Type() hm.Type {
	ts := make([]hm.Type, 0, len(b.in)+1)
	return hm.NewFnType(append(append(ts, b.in...), b.out)...)
}

// InferShape is the shape that was fixed when the op was made.
func (b *Base) InferShape(...G.DimSizer) (tensor.Shape, error) { return b.shape.Clone(), nil }

// ReturnsPtr says that the result may be edited in place by a later op: it is always fresh memory.
func (b *Base) ReturnsPtr() bool { return true }

// CallsExtern is false: no batched external calls.
func (b *Base) CallsExtern() bool { return false }

// FreshResult says that the result is memory from New or NewUnset that nothing else holds, so that a Recycler may have it. An op
// that hands on an input's memory, or lends its own, says no.
func (b *Base) FreshResult() bool { return true }

// OverwritesInput is -1: inputs are never written.
func (b *Base) OverwritesInput() int { return -1 }

// WriteHash writes name, attributes, types and shape.
func (b *Base) WriteHash(h hash.Hash) {
	fmt.Fprintf(h, "stheno/%s{%s}", b.name, b.attrs)
	for _, t := range b.in {
		fmt.Fprintf(h, ",%v", t)
	}
	fmt.Fprintf(h, "→%v%v", b.out, b.shape)
}

// Hashcode is the 32-bit FNV-1a of WriteHash.
func (b *Base) Hashcode() uint32 {
	h := fnv.New32a()
	b.WriteHash(h)
	return h.Sum32()
}

// String is what graphs print in dot files and errors.
func (b *Base) String() string {
	if b.attrs == "" {
		return b.name
	}
	return b.name + b.attrs
}

// Format prints String whatever the verb, so that Gorgonia's %v, %s and %d of an op agree.
func (b *Base) Format(s fmt.State, _ rune) { io.WriteString(s, b.String()) }
