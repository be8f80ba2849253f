package op_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
)

// product is z = f·x·y elementwise: the smallest op with an attribute and two gradients.
type product struct {
	op.Base
	factor float64
}

func newProduct(x, y *G.Node, factor float64) (*G.Node, error) {
	o := &product{op.NewBase("op_test.product", struct{ Factor float64 }{factor}, x.Shape(), x.Dtype(), x, y), factor}
	return G.ApplyOp(o, x, y)
}

func (o *product) Do(in ...G.Value) (_ G.Value, err error) {
	defer op.Recover(o.Name(), &err)
	x, err := op.Data[float64](in[0])
	if err != nil {
		return nil, err
	}
	y, err := op.Data[float64](in[1])
	if err != nil {
		return nil, err
	}
	out, z := op.New[float64](o.OutShape())
	for i := range z {
		z[i] = o.factor * x[i] * y[i]
	}
	return out, nil
}

func (o *product) DiffWRT(int) []bool { return []bool{true, true} }

func (o *product) SymDiff(in G.Nodes, out, grad *G.Node) (G.Nodes, error) {
	return op.SymDiff(o, in, out, grad)
}

func (o *product) DoDiff(_ G.ExecutionContext, in G.Nodes, out *G.Node) error {
	return op.DoDiff(o, in, out)
}

func (o *product) Backward(in []G.Value, _, dOut G.Value, dIn []*tensor.Dense) error {
	g, err := op.Data[float64](dOut)
	if err != nil {
		return err
	}
	for i := range dIn {
		other, err := op.Data[float64](in[1-i])
		if err != nil {
			return err
		}
		for j, d := range op.Memory[float64](dIn[i]) {
			op.Memory[float64](dIn[i])[j] = d + o.factor*other[j]*g[j]
		}
	}
	return nil
}

func TestBackwarderOnBothMachines(t *testing.T) {
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("x", 1, 3, 4), optest.Seeded("y", 2, 3, 4)},
		Build:  func(in []*G.Node) (*G.Node, error) { return newProduct(in[0], in[1], 1.5) },
	}.CheckGradients(t, 1e-7)
}

func TestOneInputTwice(t *testing.T) {
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("x", 1, 5)},
		Build: func(in []*G.Node) (*G.Node, error) {
			sq, err := newProduct(in[0], in[0], 1)
			if err != nil {
				return nil, err
			}
			return newProduct(sq, in[0], 2)
		},
	}.CheckGradients(t, 1e-7)
}

func TestViewsAsInputs(t *testing.T) {
	optest.Graph{
		Inputs: []optest.Input{optest.Seeded("x", 1, 4, 3), optest.Seeded("y", 2, 3, 4)},
		Build: func(in []*G.Node) (*G.Node, error) {
			xt, err := G.Transpose(in[0], 1, 0)
			if err != nil {
				return nil, err
			}
			return newProduct(xt, in[1], 1)
		},
	}.CheckGradients(t, 1e-7)
}

func TestNodesDifferingInAnAttributeStayApart(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 4).Node(g, tensor.Float64)
	a, err := newProduct(x, x, 1)
	require.NoError(t, err)
	b, err := newProduct(x, x, 2)
	require.NoError(t, err)
	same, err := newProduct(x, x, 1)
	require.NoError(t, err)
	require.NotEqual(t, a.ID(), b.ID())
	require.Equal(t, a.ID(), same.ID(), "equal nodes merge")
}

func TestSidesStayApart(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 4).Node(g, tensor.Float64)
	a, err := op.Side(x, tensor.Shape{2}, tensor.Float32)
	require.NoError(t, err)
	b, err := op.Side(x, tensor.Shape{2}, tensor.Float32)
	require.NoError(t, err)
	require.NotEqual(t, a.ID(), b.ID())
}

func TestChecksNameGotAndWant(t *testing.T) {
	g, other := G.NewGraph(), G.NewGraph()
	x := optest.Seeded("x", 1, 2, 3).Node(g, tensor.Float32)
	y := optest.Seeded("y", 1, 2, 3).Node(other, tensor.Float32)
	d := optest.Seeded("d", 1, 2, 3).Node(g, tensor.Float64)
	i := optest.Input{Name: "i", Shape: []int{2}, Ints: []int{1, 2}}.Node(g, tensor.Float32)
	for want, err := range map[string]error{
		"f: x: got a nil node, want a node of the graph":        op.CheckArgs("f", op.Arg{"x", nil}),
		"f: x (x) and y (y): got nodes of two graphs, want one": op.CheckArgs("f", op.Arg{"x", x}, op.Arg{"y", y}),
		"f: i: got dtype int, want float32 or float64":          op.CheckFloat("f", op.Arg{"x", x}, op.Arg{"i", i}),
		"f: d: got dtype float64, want float32 as in x":         op.CheckFloat("f", op.Arg{"x", x}, op.Arg{"d", d}),
		"f: x: got dtype float32, want int, int32 or int64":     op.CheckInteger("f", op.Arg{"x", x}),
		"f: x: got shape (2, 3) of rank 2, want rank 3 or 4":    op.CheckRank("f", op.Arg{"x", x}, 3, 4),
		"f: x: got shape (2, 3), want (3, 2)":                   op.CheckShape("f", op.Arg{"x", x}, 3, 2),
		"op: got a tensor of float32, want float64":             second(op.Data[float64](x.Value())),
		"op: got no value, want a tensor of float32":            second(op.Data[float32](nil)),
		"op: got no value, want integers":                       second(op.Ints(nil)),
		"op: got a value of type *tensor.Dense, want integers":  second(op.Ints(x.Value())),
		"op: got 2 integers, want 1":                            second(op.Int(i.Value())),
	} {
		require.EqualError(t, err, want)
	}
	require.NoError(t, op.CheckArgs("f", op.Arg{"x", x}, op.Arg{"d", d}))
	row := optest.Seeded("row", 1, 1, 3).Node(g, tensor.Float32)
	require.EqualError(t, op.CheckShape("f", op.Arg{"row", row}, 3), "f: row: got shape (1, 3), want (3)")
}

func second[T any](_ T, err error) error { return err }

func TestRecoverMakesAnErrorOfAPanic(t *testing.T) {
	f := func() (err error) {
		defer op.Recover("pkg.Op", &err)
		panic(errors.New("broken invariant"))
	}
	err := f()
	require.ErrorContains(t, err, "pkg.Op: internal error: broken invariant")
}

func TestDataCopiesOnlyViews(t *testing.T) {
	d, mem := op.New[float32](tensor.Shape{3, 4})
	for i := range mem {
		mem[i] = float32(i)
	}
	got, err := op.Data[float32](d)
	require.NoError(t, err)
	require.Same(t, &mem[0], &got[0])

	col, err := d.Slice(nil, G.S(1))
	require.NoError(t, err)
	got, err = op.Data[float32](col.(*tensor.Dense))
	require.NoError(t, err)
	require.Equal(t, []float32{1, 5, 9}, got)

	rows, err := d.Slice(G.S(1, 3))
	require.NoError(t, err)
	got, err = op.Data[float32](rows.(*tensor.Dense))
	require.NoError(t, err)
	require.Equal(t, mem[4:12], got)

	tr := d.Clone().(*tensor.Dense)
	require.NoError(t, tr.T())
	got, err = op.Data[float32](tr)
	require.NoError(t, err)
	require.Equal(t, []float32{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}, got)
	require.Equal(t, "float32", fmt.Sprint(tr.Dtype()))
}

// Every way to slice, transpose and lay out a tensor, against At.
func TestViewsAreReadInRowMajorOrderWhateverTheirLayout(t *testing.T) {
	layouts := map[string]func(backing any) *tensor.Dense{
		"row-major":    func(b any) *tensor.Dense { return tensor.New(tensor.WithShape(2, 3, 4), tensor.WithBacking(b)) },
		"column-major": func(b any) *tensor.Dense { return tensor.New(tensor.WithShape(2, 3, 4), tensor.AsFortran(b)) },
	}
	slices := map[string][]tensor.Slice{
		"whole": nil, "first": {G.S(1)}, "middle": {nil, G.S(1)}, "last": {nil, nil, G.S(1)},
		"range": {nil, G.S(1, 3)}, "one of each": {G.S(1, 2), nil, G.S(1, 2)}, "vector": {G.S(1), nil, G.S(2)},
		"column": {G.S(0), nil, G.S(1, 2)}, "row": {G.S(0), G.S(1, 2)}, "step": {nil, G.S(0, 3, 2)}, "number": {G.S(1), G.S(2), G.S(0)},
	}
	for layout, make := range layouts {
		for _, axes := range [][]int{nil, {2, 0, 1}, {0, 2, 1}, {2, 1, 0}} {
			for cut, by := range slices {
				floats, ints := tensor.Range(tensor.Float32, 0, 24), tensor.Range(tensor.Int, 0, 24)
				for _, backing := range []any{floats, ints} {
					d := make(backing)
					if axes != nil {
						require.NoError(t, d.T(axes...))
					}
					if by != nil {
						v, err := d.Slice(by...)
						if err != nil {
							continue // out of the range of the transposed shape
						}
						d = v.(*tensor.Dense)
					}
					checkOrder(t, fmt.Sprint(layout, axes, cut, d.Shape()), d)
				}
			}
		}
	}
}

func checkOrder(t *testing.T, name string, d *tensor.Dense) {
	t.Helper()
	var want []int
	number := func(x any) int {
		if f, ok := x.(float32); ok {
			return int(f)
		}
		return x.(int)
	}
	idx := make([]int, d.Dims())
	for range d.Shape().TotalSize() {
		if d.Dims() == 0 {
			want = append(want, number(d.Data()))
			break
		}
		x, err := d.At(idx...)
		require.NoError(t, err, name)
		want = append(want, number(x))
		for k := len(idx) - 1; k >= 0; k-- {
			if idx[k]++; idx[k] < d.Shape()[k] {
				break
			}
			idx[k] = 0
		}
	}
	var got []int
	if d.Dtype() == tensor.Int {
		var err error
		got, err = op.Ints(d)
		require.NoError(t, err, name)
	} else {
		x, err := op.Data[float32](d)
		require.NoError(t, err, name)
		for _, v := range x {
			got = append(got, int(v))
		}
	}
	require.Equal(t, want, got, name)
}

func TestStatementIsRefused(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 2, 3).Node(g, tensor.Float32)
	var v G.Value
	require.ErrorContains(t, op.CheckArgs("f", op.Arg{"x", G.Read(x, &v)}), "got a statement, want a node with a value")
}

// A slice of a transposed matrix is a view although RequiresIterator says no.
func TestContiguous(t *testing.T) {
	d := tensor.New(tensor.WithShape(2, 3), tensor.WithBacking([]float32{1, 2, 3, 4, 5, 6}))
	require.True(t, op.Contiguous(d))
	turned := d.Clone().(*tensor.Dense)
	require.NoError(t, turned.T())
	require.False(t, op.Contiguous(turned))
	column, err := turned.Slice(G.S(0, 2), nil)
	require.NoError(t, err)
	require.False(t, op.Contiguous(column.(*tensor.Dense)))
}
