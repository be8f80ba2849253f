package flashattn

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"

	"stheno/internal/optest"
)

// Queries at given positions over a prefix of the keys give the rows of the whole attention.
func TestForwardAtPositions(t *testing.T) {
	const batch, seq, heads, kvHeads, d = 2, 80, 4, 2, 24
	q := Contiguous(optest.Normal[float32](1, batch*seq*heads*d, 1), batch, seq, heads, d)
	k := Contiguous(optest.Normal[float32](2, batch*seq*kvHeads*d, 1), batch, seq, kvHeads, d)
	v := Contiguous(optest.Normal[float32](3, batch*seq*kvHeads*d, 1), batch, seq, kvHeads, d)
	for _, cfg := range []Config{{Causal: true}, {Causal: true, Window: Sliding(7)}, {Causal: true, ALiBi: true, Softcap: 5}} {
		whole := Contiguous(make([]float32, len(q.Data)), batch, seq, heads, d)
		require.NoError(t, Forward(whole, q, k, v, cfg, Operands[float32]{}))
		for _, n := range []int{1, 3, 30} {
			for _, at := range []int{0, 1, 41, seq - n} {
				rows := q
				rows.Data, rows.Seq = q.Data[q.at(0, at, 0):], n
				got := Contiguous(make([]float32, batch*n*heads*d), batch, n, heads, d)
				pos, lens := []int{at, at}, []int{at + n, at + n}
				for _, in := range []Operands[float32]{{Positions: pos}, {KeyLens: lens}, {Positions: pos, KeyLens: lens}} {
					require.NoError(t, Forward(got, rows, k, v, cfg, in))
					for b := range batch {
						for i := range n {
							for h := range heads {
								optest.Close(t, fmt.Sprint(n, at), got.row(b, i, h), optest.Float64s(whole.row(b, at+i, h)), 3e-6)
							}
						}
					}
				}
			}
		}
	}
}

func TestForwardErrors(t *testing.T) {
	x := Contiguous(make([]float32, 2*4*2*3), 2, 4, 2, 3)
	out := func() Heads[float32] { return Contiguous(make([]float32, 2*4*2*3), 2, 4, 2, 3) }
	short, negative, flat := x, x, x
	short.Data = short.Data[1:]
	negative.SeqStride = -1
	flat.Dim = 0
	type operands = Operands[float32]
	for want, err := range map[string]error{
		"q: got 47 elements, want at least 48":                Forward(out(), short, x, x, Config{}, operands{}),
		"k: got strides (24, -1, 3), want none negative":      Forward(out(), x, negative, x, Config{}, operands{}),
		"v: got shape (2, 4, 2, 0), want positive sizes":      Forward(out(), x, x, flat, Config{}, operands{}),
		"dst: got shape (1, 8, 2, 3), want (2, 4, 2, 3)":      Forward(Contiguous(make([]float32, 48), 1, 8, 2, 3), x, x, x, Config{}, operands{}),
		"got a Config with nodes, want values in Operands":    Forward(out(), x, x, x, Config{Sinks: new(G.Node)}, operands{}),
		"Softcap: got -1, want 0 or a positive number":        Forward(out(), x, x, x, Config{Softcap: -1}, operands{}),
		"KeyLens: got 1 elements, want 2":                     Forward(out(), x, x, x, Config{}, operands{KeyLens: []int{1}}),
		"KeyLens: got 5 for batch element 1, want 0 to 4":     Forward(out(), x, x, x, Config{}, operands{KeyLens: []int{1, 5}}),
		"Positions: got 1 elements, want 2":                   Forward(out(), x, x, x, Config{}, operands{Positions: []int{1}}),
		"Sinks: got 3 elements, want 2":                       Forward(out(), x, x, x, Config{}, operands{Sinks: make([]float32, 3)}),
		"LSE: got 3 elements, want 16":                        Forward(out(), x, x, x, Config{}, operands{LSE: make([]float32, 3)}),
		"Bias: got 3 elements, want 16":                       Forward(out(), x, x, x, Config{}, operands{Bias: make([]float32, 3), BiasBatch: 1, BiasHeads: 1}),
		"Bias: got batch 3 and heads 1, want 1 or 2 and 1 or": Forward(out(), x, x, x, Config{}, operands{Bias: make([]float32, 48), BiasBatch: 3, BiasHeads: 1}),
	} {
		require.ErrorContains(t, err, "flashattn.Forward: ")
		require.ErrorContains(t, err, want)
	}
}

func ExampleForward() {
	// One query at position 2 over three keys of one head; all are alike, so the values are averaged.
	q := Contiguous([]float32{1, 0}, 1, 1, 1, 2)
	k := Contiguous([]float32{0, 1, 0, 1, 0, 1}, 1, 3, 1, 2)
	v := Contiguous([]float32{1, 2, 3}, 1, 3, 1, 1)
	out := Contiguous(make([]float32, 1), 1, 1, 1, 1)
	fmt.Println(Forward(out, q, k, v, Config{Causal: true}, Operands[float32]{}), out.Data)
	// Output: <nil> [2]
}
