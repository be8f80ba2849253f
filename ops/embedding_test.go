package ops_test

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
	"stheno/internal/optest"
	"stheno/ops"
)

func refEmbedding[T kernel.Float](table []T, dim int, ids []int) []T {
	var out []T
	for _, id := range ids {
		out = append(out, table[id*dim:(id+1)*dim]...)
	}
	return out
}

func embeddingCase(cfg ops.EmbeddingConfig, vocab, dim int, ids []int, shape ...int) nodeCase {
	c := nodeCase{
		name:   fmt.Sprintf("vocab=%d/dim=%d/ids=%v", vocab, dim, shape),
		inputs: []optest.Input{optest.Seeded("table", 1, vocab, dim), {Name: "ids", Shape: shape, Ints: ids}},
		build:  func(in []*G.Node) (*G.Node, error) { return ops.Embedding(in[0], in[1], cfg) },
		want:   func(in [][]float64) []float64 { return refEmbedding(in[0], dim, ids) },
		naive:  func(in [][]float32) []float32 { return refEmbedding(in[0], dim, ids) },
	}
	if len(shape) == 1 && !cfg.Padding {
		c.plain = func(in []*G.Node) (*G.Node, error) { return G.ByIndices(in[0], in[1], 0) }
	}
	return c
}

func TestEmbedding(t *testing.T) {
	embeddingCase(ops.EmbeddingConfig{}, 5, 3, []int{4, 0, 0, 2, 4, 4}, 2, 3).check(t)
	embeddingCase(ops.EmbeddingConfig{}, 5, 3, []int{1, 3, 1, 1}, 4).check(t)
	embeddingCase(ops.EmbeddingConfig{}, 2, 2, []int{0}, 1).check(t)
	embeddingCase(ops.EmbeddingConfig{}, 59, 1, []int{58, 0, 58}, 3).check(t)
	embeddingCase(ops.EmbeddingConfig{}, 97, 257, optest.Ints(3, 64, 97), 4, 16).check(t)
	embeddingCase(ops.EmbeddingConfig{}, 3, 1025, optest.Ints(3, 59, 3), 59).check(t)
}

// The padding row is read, and its gradient is zero on both machines. (Finite differences would not agree.)
func TestEmbeddingPadding(t *testing.T) {
	c := embeddingCase(ops.EmbeddingConfig{Padding: true, PaddingID: 2}, 4, 3, []int{2, 1, 2, 0, 1}, 5)
	out := c.run(t, tensor.Float64, c.build)
	require.Equal(t, c.want(c.data64()), out[0])
	full := embeddingCase(ops.EmbeddingConfig{}, 4, 3, []int{2, 1, 2, 0, 1}, 5)
	want := full.run(t, tensor.Float64, full.build)[1]
	clear(want[2*3 : 3*3])
	require.Equal(t, want, out[1])

	g := G.NewGraph()
	table := c.inputs[0].Node(g, tensor.Float64)
	y, err := c.build([]*G.Node{table, c.inputs[1].Node(g, tensor.Float64)})
	require.NoError(t, err)
	G.Must(G.Sum(y))
	vm := G.NewLispMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	grad, err := table.Grad()
	require.NoError(t, err)
	require.Equal(t, []float64{1, 1, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0}, grad.Data())
}

func TestEmbeddingOfPositions(t *testing.T) {
	positions := optest.Input{Name: "ids", Shape: []int{4}, Ints: []int{0, 1, 2, 3}}
	table := optest.Seeded("table", 1, 6, 5)
	got := optest.Graph{Inputs: []optest.Input{table, positions}, Build: func(in []*G.Node) (*G.Node, error) {
		return ops.Embedding(in[0], in[1], ops.EmbeddingConfig{})
	}}.Run(t, tensor.Float64)
	require.Equal(t, table.Data[:20], got)
}

// embeddingTrainer runs one graph again and again with other ids; the gradient goes to the caller as Node.Grad gives it.
type embeddingTrainer struct {
	table, ids *G.Node
	vm         G.VM
}

// newEmbeddingTrainer differentiates Σ y² of a table of ones; extra adds terms to that cost.
func newEmbeddingTrainer(t testing.TB, vocab, dim, n int, extra func(table, ids *G.Node) *G.Node) *embeddingTrainer {
	g := G.NewGraph()
	ones := make([]float64, vocab*dim)
	for i := range ones {
		ones[i] = 1
	}
	tr := &embeddingTrainer{
		table: optest.Input{Name: "table", Shape: []int{vocab, dim}, Data: ones}.Node(g, tensor.Float64),
		ids:   optest.Input{Name: "ids", Shape: []int{n}, Ints: make([]int, n)}.Node(g, tensor.Float64),
	}
	y, err := ops.Embedding(tr.table, tr.ids, ops.EmbeddingConfig{})
	require.NoError(t, err)
	cost := G.Must(G.Sum(G.Must(G.Square(y))))
	if extra != nil {
		cost = G.Must(G.Add(cost, extra(tr.table, tr.ids)))
	}
	_, err = G.Grad(cost, tr.table)
	require.NoError(t, err)
	tr.vm = G.NewTapeMachine(g)
	return tr
}

func (tr *embeddingTrainer) run(ids []int) (*tensor.Dense, error) {
	tr.vm.Reset()
	if err := G.Let(tr.ids, tensor.New(tensor.WithBacking(append([]int(nil), ids...)))); err != nil {
		return nil, err
	}
	if err := tr.vm.RunAll(); err != nil {
		return nil, err
	}
	grad, err := tr.table.Grad()
	if err != nil {
		return nil, err
	}
	return grad.(*tensor.Dense), nil
}

// counts is the gradient of Σ y² for a table of ones: 2 for each occurrence of an id.
func counts(vocab, dim int, ids []int) []float64 {
	want := make([]float64, vocab*dim)
	for _, id := range ids {
		for j := range dim {
			want[id*dim+j] += 2
		}
	}
	return want
}

// collect lets buffers that nobody holds come back.
func collect() {
	for range 2 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
}

func TestEmbeddingGradientMemoryIsReusedAndClean(t *testing.T) {
	const vocab, dim, n = 5000, 16, 4 // few of the rows are among those that the pool looks at itself
	tr := newEmbeddingTrainer(t, vocab, dim, n, nil)
	defer tr.vm.Close()
	const runs = 30
	addresses := map[uintptr]bool{}
	for i := range runs {
		ids := optest.Ints(uint64(i), n, vocab)
		grad, err := tr.run(ids)
		require.NoError(t, err)
		require.Equal(t, counts(vocab, dim, ids), grad.Data(), "run %d", i)
		addresses[grad.Uintptr()] = true
		collect()
	}
	require.LessOrEqual(t, len(addresses), 8, "%d runs use few buffers", runs)
}

// TestEmbeddingGradientsThatAreReclaimed: with a Recycler, one piece of memory serves all runs, and no collection takes it away or
// hands it out again.
func TestEmbeddingGradientsThatAreReclaimed(t *testing.T) {
	const vocab, dim, n = 5000, 16, 4
	tr := newEmbeddingTrainer(t, vocab, dim, n, nil)
	defer tr.vm.Close()
	results := op.NewRecycler(tr.table.Graph(), nil, nil)
	addresses := map[uintptr]bool{}
	for i := range 10 {
		ids := optest.Ints(uint64(i), n, vocab)
		grad, err := tr.run(ids)
		require.NoError(t, err)
		if i%3 == 2 {
			collect()
		}
		require.Equal(t, counts(vocab, dim, ids), grad.Data(), "run %d", i)
		addresses[grad.Uintptr()] = true
		results.Release()
		results.Release()
	}
	require.Len(t, addresses, 1)
}

func TestEmbeddingGradientsThatAreHeldStay(t *testing.T) {
	const vocab, dim, n = 50, 16, 8
	tr := newEmbeddingTrainer(t, vocab, dim, n, nil)
	defer tr.vm.Close()
	var slices [][]float64
	var views []tensor.View
	var wants [][]float64
	for i := range 12 {
		ids := optest.Ints(uint64(i), n, vocab)
		grad, err := tr.run(ids)
		require.NoError(t, err)
		// Neither keeps the tensor, both keep its memory.
		slices = append(slices, grad.Float64s())
		view, err := grad.Slice(G.S(0, vocab))
		require.NoError(t, err)
		views = append(views, view)
		wants = append(wants, counts(vocab, dim, ids))
		collect()
	}
	for i, want := range wants {
		require.Equal(t, want, slices[i], "run %d", i)
		require.Equal(t, want, views[i].Data(), "run %d", i)
	}
}

// A gradient that was scaled, regularised or zeroed in place leaves no trace in later ones.
func TestEmbeddingGradientEditedInPlace(t *testing.T) {
	const vocab, dim, n = 700, 33, 9
	tr := newEmbeddingTrainer(t, vocab, dim, n, nil)
	defer tr.vm.Close()
	edits := []func(g []float64){
		func(g []float64) { clear(g) },
		func(g []float64) {
			for i := range g {
				g[i] *= 0.5
			}
		},
		func(g []float64) {
			for i := range g {
				g[i] += 0.1
			}
		},
		func(g []float64) { g[0] = math.NaN() },
	}
	for i := range 24 {
		ids := append(optest.Ints(uint64(i), n-1, vocab), 0)
		grad, err := tr.run(ids)
		require.NoError(t, err)
		require.Equal(t, counts(vocab, dim, ids), grad.Data(), "run %d", i)
		edits[i%len(edits)](grad.Float64s())
		collect()
	}
}

// One table in two embeddings, in a penalty and in a product: Gorgonia adds the gradients up in place.
func TestEmbeddingGradientWithOtherTerms(t *testing.T) {
	const vocab, dim, n = 4000, 8, 6
	for name, extra := range map[string]func(table, ids *G.Node) *G.Node{
		"penalty": func(table, _ *G.Node) *G.Node { return G.Must(G.Sum(G.Must(G.Square(table)))) },
		"twice": func(table, ids *G.Node) *G.Node {
			more := optest.Input{Name: "more", Shape: []int{2}, Ints: []int{vocab - 2, 3}}.Node(table.Graph(), tensor.Float64)
			y, err := ops.Embedding(table, more, ops.EmbeddingConfig{})
			require.NoError(t, err)
			return G.Must(G.Sum(G.Must(G.Square(y))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newEmbeddingTrainer(t, vocab, dim, n, extra)
			defer tr.vm.Close()
			for i := range 12 {
				ids := optest.Ints(uint64(i), n, vocab)
				grad, err := tr.run(ids)
				require.NoError(t, err)
				want := counts(vocab, dim, ids)
				if name == "twice" {
					want = counts(vocab, dim, append(ids, vocab-2, 3))
				} else {
					for j := range want {
						want[j] += 2
					}
				}
				require.Equal(t, want, grad.Data(), "run %d", i)
				collect()
			}
		})
	}
}

// Two machines on two graphs of one process, and two on the gradient op of one graph.
func TestEmbeddingGradientsOfConcurrentMachines(t *testing.T) {
	const vocab, dim, n = 97, 64, 12
	shared := newEmbeddingTrainer(t, vocab, dim, n, nil)
	defer shared.vm.Close()
	var gradOp G.Op
	for _, node := range shared.table.Graph().AllNodes() {
		if node.Op() != nil && strings.Contains(node.Op().String(), "Embedding.Backward") {
			gradOp = node.Op()
		}
	}
	require.NotNil(t, gradOp)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 20 {
				ids := optest.Ints(uint64(100*worker+i), n, vocab)
				dOut := make([]float64, n*dim)
				for i := range dOut {
					dOut[i] = 2
				}
				v, err := gradOp.Do(tensor.New(tensor.WithBacking(ids)), tensor.New(tensor.WithShape(n, dim), tensor.WithBacking(dOut)))
				if err != nil {
					t.Error(err)
					return
				}
				if e, _ := optest.MaxError(v.Data().([]float64), counts(vocab, dim, ids)); e != 0 {
					t.Errorf("worker %d, run %d: error %v", worker, i, e)
				}
				if i%5 == 0 {
					collect()
				}
			}
		})
	}
	wg.Wait()
}

// The pool that finalizers hold on to does not hold on to the graph.
func TestEmbeddingGraphIsCollected(t *testing.T) {
	gone := make(chan struct{})
	func() {
		tr := newEmbeddingTrainer(t, 100, 100, 4, nil)
		_, err := tr.run([]int{1, 2, 3, 4})
		require.NoError(t, err)
		runtime.AddCleanup(tr.table, func(c chan struct{}) { close(c) }, gone)
		require.NoError(t, tr.vm.Close())
	}()
	for range 50 {
		collect()
		select {
		case <-gone:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
	require.Fail(t, "the graph's nodes stay reachable")
}

func TestEmbeddingIDOutOfRange(t *testing.T) {
	tr := newEmbeddingTrainer(t, 5, 2, 3, nil)
	defer tr.vm.Close()
	for _, ids := range [][]int{{0, 5, 1}, {0, -1, 1}} {
		_, err := tr.run(ids)
		require.ErrorContains(t, err, fmt.Sprintf("ops.Embedding: ids: got %d at element 1, want 0 to 4", ids[1]))
	}
}

func TestEmbeddingOfWrongSizes(t *testing.T) {
	g := G.NewGraph()
	y, err := ops.Embedding(node(g, "table", 5, 2), nodeOf(g, tensor.Int, "ids", 3), ops.EmbeddingConfig{})
	require.NoError(t, err)
	table := tensor.New(tensor.WithShape(5, 2), tensor.Of(tensor.Float32))
	ids := tensor.New(tensor.WithBacking([]int{0, 1, 2}))
	for want, in := range map[string][]G.Value{
		"table: got 4 elements, want 10":                   {tensor.New(tensor.WithShape(2, 2), tensor.Of(tensor.Float32)), ids},
		"ids: got 2 elements, want 3":                      {table, tensor.New(tensor.WithBacking([]int{0, 1}))},
		"ids: op: got a value of type *tensor.Dense, want": {table, tensor.New(tensor.WithBacking([]float32{0, 1, 2}))},
		"got 1 inputs, want 2":                             {table},
	} {
		_, err := y.Op().Do(in...)
		require.ErrorContains(t, err, "ops.Embedding: "+want)
	}
}

func TestEmbeddingHashes(t *testing.T) {
	var builds []func(in []*G.Node) (*G.Node, error)
	for _, cfg := range []ops.EmbeddingConfig{{}, {Padding: true}, {Padding: true, PaddingID: 1}} {
		builds = append(builds, func(in []*G.Node) (*G.Node, error) { return ops.Embedding(in[0], in[1], cfg) })
	}
	checkHashes(t, []optest.Input{optest.Seeded("table", 1, 4, 2), {Name: "ids", Shape: []int{3}, Ints: []int{0, 1, 3}}}, true, builds...)
}

func TestEmbeddingErrors(t *testing.T) {
	g := G.NewGraph()
	table, ids := node(g, "table", 4, 3), nodeOf(g, tensor.Int, "ids", 2, 3)
	call := func(table, ids *G.Node, cfg ops.EmbeddingConfig) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.Embedding(table, ids, cfg) }
	}
	checkErrors(t, "ops.Embedding", []buildError{
		{"nil table", call(nil, ids, ops.EmbeddingConfig{}), "table: got a nil node"},
		{"nil ids", call(table, nil, ops.EmbeddingConfig{}), "ids: got a nil node"},
		{"graphs", call(table, nodeOf(G.NewGraph(), tensor.Int, "ids", 2), ops.EmbeddingConfig{}), "got nodes of two graphs"},
		{"table rank", call(node(g, "flat", 12), ids, ops.EmbeddingConfig{}), "table: got shape (12) of rank 1, want rank 2"},
		{"table dtype", call(nodeOf(g, tensor.Int, "int", 4, 3), ids, ops.EmbeddingConfig{}), "table: got dtype int"},
		{"ids dtype", call(table, node(g, "float", 2), ops.EmbeddingConfig{}), "ids: got dtype float32, want int"},
		{"ids rank", call(table, nodeOf(g, tensor.Int, "cube", 2, 2, 2), ops.EmbeddingConfig{}), "ids: got shape (2, 2, 2) of rank 3, want rank 1 or 2"},
		{"padding", call(table, ids, ops.EmbeddingConfig{Padding: true, PaddingID: 4}), "PaddingID: got 4, want 0 to 3"},
		{"negative padding", call(table, ids, ops.EmbeddingConfig{Padding: true, PaddingID: -1}), "PaddingID: got -1"},
		{"no padding", call(table, ids, ops.EmbeddingConfig{PaddingID: 1}), "PaddingID: got 1 without Padding, want 0"},
	})
}

func TestEmbeddingAllocs(t *testing.T) {
	checkAllocs(t, embeddingCase(ops.EmbeddingConfig{}, 5, 4, []int{1, 2}, 2), embeddingCase(ops.EmbeddingConfig{}, 500, 64, optest.Ints(1, 256, 500), 256))
}

func ExampleEmbedding() {
	g := G.NewGraph()
	table := G.NewMatrix(g, tensor.Float32, G.WithName("table"), G.WithShape(3, 2),
		G.WithValue(tensor.New(tensor.WithShape(3, 2), tensor.WithBacking([]float32{0, 1, 10, 11, 20, 21}))))
	ids := G.NewVector(g, tensor.Int, G.WithName("ids"), G.WithShape(2),
		G.WithValue(tensor.New(tensor.WithBacking([]int{2, 0}))))
	y, err := ops.Embedding(table, ids, ops.EmbeddingConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	var out G.Value
	G.Read(y, &out)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	if err := vm.RunAll(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(out.Data())
	// Output: [20 21 0 1]
}

// BenchmarkEmbeddingGradient compares runs of the gradient op of a large table: with memory that came back (collected
// outside the time), as a loop without other garbage leaves it, into fresh memory as a gradient with other consumers, and
// Gorgonia's ByIndices.
func BenchmarkEmbeddingGradient(b *testing.B) {
	const vocab, dim, n = 50257, 768, 1024
	axes := fmt.Sprintf("vocab=%d/dim=%d/tokens=%d", vocab, dim, n)
	gradOf := func(b *testing.B, build func(table, ids *G.Node) (*G.Node, error), consumed bool) func() {
		g := G.NewGraph()
		table := node(g, "table", vocab, dim)
		ids := nodeOf(g, tensor.Int, "ids", n)
		y, err := build(table, ids)
		require.NoError(b, err)
		grads, err := G.Grad(G.Must(G.Sum(y)), table)
		require.NoError(b, err)
		if consumed {
			G.Must(G.Neg(grads[0]))
		}
		o := grads[0].Op()
		idv := tensor.New(tensor.WithBacking(optest.Ints(1, n, vocab)))
		dOut := tensor.New(tensor.WithShape(n, dim), tensor.WithBacking(optest.Normal[float32](2, n*dim, 1)))
		in := []G.Value{idv, dOut}
		if o.Arity() != 2 {
			in = []G.Value{tensor.New(tensor.WithShape(vocab, dim), tensor.Of(tensor.Float32)), dOut, idv}
		}
		return func() {
			if _, err := o.Do(in...); err != nil {
				b.Fatal(err)
			}
		}
	}
	ours := func(table, ids *G.Node) (*G.Node, error) { return ops.Embedding(table, ids, ops.EmbeddingConfig{}) }
	theirs := func(table, ids *G.Node) (*G.Node, error) { return G.ByIndices(table, ids, 0) }
	b.Run(axes+"/reused", func(b *testing.B) {
		do := gradOf(b, ours, false)
		do()
		for b.Loop() {
			b.StopTimer()
			collect()
			b.StartTimer()
			do()
		}
	})
	for _, c := range []struct {
		name     string
		build    func(table, ids *G.Node) (*G.Node, error)
		consumed bool
	}{{"loop", ours, false}, {"dense", ours, true}, {"gorgonia", theirs, false}} {
		b.Run(axes+"/"+c.name, func(b *testing.B) {
			do := gradOf(b, c.build, c.consumed)
			for b.Loop() {
				do()
			}
		})
	}
}
