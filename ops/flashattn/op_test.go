package flashattn

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/op"
	"stheno/internal/optest"
)

// opOf builds a graph around one op and returns it with values for its inputs.
func opOf(t testing.TB, cfg Config, batch, seq, heads, d int) (*attendOp, []G.Value) {
	g := G.NewGraph()
	in := make([]*G.Node, 3)
	for i, name := range []string{"q", "k", "v"} {
		in[i] = optest.Seeded(name, uint64(i), batch, seq, heads, d).Node(g, tensor.Float32)
	}
	n, err := Attend(in[0], in[1], in[2], cfg)
	require.NoError(t, err)
	return n.Op().(*attendOp), []G.Value{in[0].Value(), in[1].Value(), in[2].Value(), nil}
}

// run computes output and gradients with values of its own for everything that is written.
func (o *attendOp) run(in []G.Value) (results []*tensor.Dense, err error) {
	in = append([]G.Value(nil), in...)
	s := in[0].Shape()
	in[3], _ = op.New[float32](tensor.Shape{2, s[0], s[2], s[1]})
	out, err := o.Do(in...)
	if err != nil {
		return nil, err
	}
	results = append(results, out.(*tensor.Dense))
	for _, v := range in[:3] {
		results = append(results, op.NewLike(v))
	}
	return results, o.Backward(in, out, out, append(append([]*tensor.Dense(nil), results[1:]...), nil))
}

// One op serves machines that run at the same time: nothing of a run stays on it.
func TestOneOpRunsManyTimesAtOnce(t *testing.T) {
	o, in := opOf(t, Config{Causal: true, Dropout: 0.2}, 1, 130, 2, 16)
	want, err := o.run(in)
	require.NoError(t, err)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5 {
				got, err := o.run(in)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range want {
					if !equal(want[i].Data().([]float32), got[i].Data().([]float32)) {
						t.Errorf("result %d differs from that of a run alone", i)
					}
				}
			}
		})
	}
	all.Wait()
}

func equal(a, b []float32) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestValueReshapedAfterItWasBoundIsRefused(t *testing.T) {
	o, in := opOf(t, Config{}, 1, 4, 2, 8)
	in[3], _ = op.New[float32](tensor.Shape{2, 1, 2, 4})
	out, err := o.Do(in...)
	require.NoError(t, err)
	for i := range 3 {
		for _, s := range []tensor.Shape{{1, 4, 4, 4}, {1, 8, 2, 4}, {2, 2, 2, 8}, {8, 8}} {
			args := append([]G.Value(nil), in...)
			d := in[i].(*tensor.Dense).Clone().(*tensor.Dense)
			require.NoError(t, d.Reshape(s...))
			args[i] = d
			want := fmt.Sprintf("input %d: got a value of shape %v, want (1, 4, 2, 8)", i, s)
			_, err := o.Do(args...)
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, o.Backward(args, out, out, make([]*tensor.Dense, 4)), want)
		}
	}
}
