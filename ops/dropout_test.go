package ops_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops"
)

func dropoutCase(rate float64, step int, shape ...int) nodeCase {
	return nodeCase{
		name:   fmt.Sprintf("rate=%v/step=%d/shape=%v", rate, step, shape),
		inputs: []optest.Input{optest.Seeded("x", 1, shape...), {Name: "step", Ints: []int{step}}},
		build: func(in []*G.Node) (*G.Node, error) {
			return ops.Dropout(in[0], in[1], ops.DropoutConfig{Rate: rate, Seed: 3})
		},
	}
}

func TestDropout(t *testing.T) {
	for _, shape := range [][]int{{5, 8}, {2, 3, 17}, {59}, {1, 97}, {33000}} {
		dropoutCase(0.3, 5, shape...).check(t)
	}
	dropoutCase(0.9, -1, 4, 9).check(t)
}

// mask runs dropout on ones and returns the result and the gradient of its sum.
func mask(t *testing.T, cfg ops.DropoutConfig, dt tensor.Dtype, n, step int) (y, dx []float64) {
	t.Helper()
	ones := make([]float64, n)
	for i := range ones {
		ones[i] = 1
	}
	g := G.NewGraph()
	x := optest.Input{Name: "x", Shape: []int{n}, Data: ones}.Node(g, dt)
	s := optest.Input{Name: "step", Ints: []int{step}}.Node(g, dt)
	out, err := ops.Dropout(x, s, cfg)
	require.NoError(t, err)
	grads, err := G.Grad(G.Must(G.Sum(out)), x)
	require.NoError(t, err)
	var values [2]G.Value
	G.Read(out, &values[0])
	G.Read(grads[0], &values[1])
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	return optest.Values(t, values[0]), optest.Values(t, values[1])
}

func TestDropoutKeepsTheExpectation(t *testing.T) {
	const n = 200_000
	for _, rate := range []float64{0.01, 0.1, 0.5, 0.99} {
		y, dx := mask(t, ops.DropoutConfig{Rate: rate, Seed: 1}, tensor.Float64, n, 0)
		require.Equal(t, y, dx, "the backward pass draws the same mask")
		var dropped, runs int
		for i, v := range y {
			if v == 0 {
				dropped++
				if i > 0 && y[i-1] == 0 {
					runs++
				}
			} else {
				require.InDelta(t, 1/(1-rate), v, 1e-9/(1-rate))
			}
		}
		// Six standard deviations of a binomial count; neighbours are independent.
		require.InDelta(t, rate*n, dropped, 6*math.Sqrt(n*rate*(1-rate)))
		pair := rate * rate
		require.InDelta(t, pair*n, runs, 12*math.Sqrt(n*pair*(1-pair))+1)
	}
}

func TestDropoutMasksDependOnSeedAndStepOnly(t *testing.T) {
	const n = 4096
	base, _ := mask(t, ops.DropoutConfig{Rate: 0.5, Seed: 1}, tensor.Float32, n, 7)
	again, _ := mask(t, ops.DropoutConfig{Rate: 0.5, Seed: 1}, tensor.Float32, n, 7)
	wide, _ := mask(t, ops.DropoutConfig{Rate: 0.5, Seed: 1}, tensor.Float64, n, 7)
	longer, _ := mask(t, ops.DropoutConfig{Rate: 0.5, Seed: 1}, tensor.Float32, 10*n, 7)
	require.Equal(t, base, again)
	require.Equal(t, base, wide)
	require.Equal(t, base, longer[:n])
	for _, other := range []struct {
		seed uint64
		step int
	}{{2, 7}, {1, 8}, {7, 1}, {0, 8}} {
		m, _ := mask(t, ops.DropoutConfig{Rate: 0.5, Seed: other.seed}, tensor.Float32, n, other.step)
		agree := 0
		for i := range m {
			if m[i] == base[i] {
				agree++
			}
		}
		require.InDelta(t, n/2, agree, 6*math.Sqrt(n)/2, "seed %d, step %d is independent", other.seed, other.step)
	}
}

func TestDropoutDrawsANewMaskWhenTheStepIsLet(t *testing.T) {
	g := G.NewGraph()
	x := optest.Seeded("x", 1, 64).Node(g, tensor.Float32)
	step := optest.Input{Name: "step", Ints: []int{0}}.Node(g, tensor.Float32)
	y, err := ops.Dropout(x, step, ops.DropoutConfig{Rate: 0.5})
	require.NoError(t, err)
	var out G.Value
	G.Read(y, &out)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	var seen [][]float64
	for _, s := range []int{0, 1, 0} {
		require.NoError(t, G.Let(step, s))
		require.NoError(t, vm.RunAll())
		seen = append(seen, optest.Values(t, out))
		vm.Reset()
	}
	require.NotEqual(t, seen[0], seen[1])
	require.Equal(t, seen[0], seen[2])
}

func TestDropoutOfNothingIsTheInput(t *testing.T) {
	x := exampleVector()
	y, err := ops.Dropout(x, nil, ops.DropoutConfig{})
	require.NoError(t, err)
	require.Same(t, x, y)
}

func TestDropoutHashes(t *testing.T) {
	build := func(cfg ops.DropoutConfig) func(in []*G.Node) (*G.Node, error) {
		return func(in []*G.Node) (*G.Node, error) { return ops.Dropout(in[0], in[1], cfg) }
	}
	checkHashes(t, []optest.Input{optest.Seeded("x", 1, 2, 3), {Name: "step", Ints: []int{0}}}, true,
		build(ops.DropoutConfig{Rate: 0.1}), build(ops.DropoutConfig{Rate: 0.2}), build(ops.DropoutConfig{Rate: 0.1, Seed: 1}))
}

func TestDropoutErrors(t *testing.T) {
	g := G.NewGraph()
	x, step := node(g, "x", 2, 5), G.NewScalar(g, tensor.Int, G.WithName("step"))
	call := func(x, step *G.Node, rate float64) func() (*G.Node, error) {
		return func() (*G.Node, error) { return ops.Dropout(x, step, ops.DropoutConfig{Rate: rate}) }
	}
	checkErrors(t, "ops.Dropout", []buildError{
		{"nil", call(nil, step, 0), "x: got a nil node"},
		{"no step", call(x, nil, 0.1), "step: got a nil node"},
		{"graphs", call(x, G.NewScalar(G.NewGraph(), tensor.Int, G.WithName("step")), 0.1), "got nodes of two graphs"},
		{"float step", call(x, G.NewScalar(g, tensor.Float32, G.WithName("s")), 0.1), "step: got dtype float32, want int"},
		{"vector step", call(x, nodeOf(g, tensor.Int, "steps", 2), 0.1), "step: got shape (2) of rank 1, want rank 0"},
		{"negative", call(x, step, -0.1), "Rate: got -0.1, want 0 ≤ Rate < 1"},
		{"one", call(x, step, 1), "Rate: got 1, want 0 ≤ Rate < 1"},
		{"nan", call(x, step, math.NaN()), "Rate: got NaN"},
	})
	n, err := ops.Dropout(x, step, ops.DropoutConfig{Rate: 0.5})
	require.NoError(t, err)
	wrongSize(t, n)
}

func TestDropoutAllocs(t *testing.T) {
	checkAllocs(t, dropoutCase(0.1, 0, 4, 8), dropoutCase(0.1, 0, 256, 512))
}

func ExampleDropout() {
	x := exampleVector()
	step := G.NewScalar(x.Graph(), tensor.Int, G.WithName("step"), G.WithValue(0))
	y, err := ops.Dropout(x, step, ops.DropoutConfig{Rate: 0.5, Seed: 2})
	printRun(y, err)
	// Output: [-2.000 0.000 4.000]
}

func BenchmarkDropout(b *testing.B) { benchmarkDo(b, dropoutCase(0.1, 0, 512, 3072)) }
