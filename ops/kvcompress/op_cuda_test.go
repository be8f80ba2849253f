//go:build cuda

package kvcompress_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// cardCase is a cache and its attention.
type cardCase struct {
	cfg    kvcompress.Config
	shape  kvcompress.Shape
	heads  int
	attend flashattn.Config
	sinks  bool
}

// step is one run of a node for seq tokens of each sequence, counts of them real, on the card, and the same by the methods of a cache
// of the host. Results must agree, and what the caches stand for must be the same bits.
func (c cardCase) step(t *testing.T, card, host kvcompress.Ragged, seed uint64, seq int, counts []int) {
	t.Helper()
	s := c.shape
	q := optest.Normal[float32](seed, s.Batch*seq*c.heads*s.HeadDim, 1)
	k := optest.Normal[float32](seed+1, s.Batch*seq*s.KVHeads*s.HeadDim, 1)
	v := optest.Normal[float32](seed+2, s.Batch*seq*s.KVHeads*s.ValueDim, 1)
	g := G.NewGraph()
	input := func(name string, data any, shape ...int) *G.Node {
		d := tensor.New(tensor.WithShape(shape...), tensor.WithBacking(data))
		return G.NewTensor(g, d.Dtype(), len(shape), G.WithShape(shape...), G.WithName(name), G.WithValue(d))
	}
	pos := make([]int, s.Batch)
	for b := range pos {
		pos[b] = host.LenOf(b)
	}
	cfg := c.attend
	var sinks []float32
	if c.sinks {
		sinks = optest.Normal[float32](99, c.heads, 1)
		cfg.Sinks = input("sinks", sinks, c.heads)
	}
	qn, kn, vn := input("q", q, s.Batch, seq, c.heads, s.HeadDim), input("k", k, s.Batch, seq, s.KVHeads, s.HeadDim), input("v", v, s.Batch, seq, s.KVHeads, s.ValueDim)
	pn := input("pos", pos, s.Batch)
	var out *G.Node
	var err error
	switch {
	case counts == nil && s.ValueDim == s.HeadDim:
		all := append(append(append([]float32(nil), q...), k...), v...)
		size := ops.QKV{Batch: s.Batch, Seq: seq, Heads: c.heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim}
		out, err = kvcompress.AttendQKV(input("qkv", all, len(all)), pn, size, card, cfg)
	case counts == nil:
		out, err = kvcompress.Attend(qn, kn, vn, pn, card, cfg)
	default:
		narrow := make([]int32, len(counts))
		for b, n := range counts {
			narrow[b] = int32(n)
		}
		out, err = kvcompress.AttendSome(qn, kn, vn, pn, input("counts", narrow, s.Batch), card, cfg)
	}
	require.NoError(t, err)
	_, there := out.Op().(G.CUDADoer)
	require.True(t, there)
	var got G.Value
	G.Read(out, &got)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.NoError(t, vm.RunAll())

	require.NoError(t, host.AppendSome(k, v, seq, counts))
	want := make([]float32, s.Batch*seq*c.heads*s.ValueDim)
	require.NoError(t, host.AttendSome(want, q, seq, c.heads, counts, c.attend, sinks))
	optest.Close(t, "attention", optest.Values(t, got), optest.Float64s(want), 1e-5)
	same(t, card, host)

	// Run again, positions are not the next ones: an error that changes nothing.
	vm.Reset()
	require.ErrorContains(t, vm.RunAll(), "the number of tokens cached")
	same(t, card, host)
}

// No room is an error of the run, too.
func TestFullCacheOnTheCard(t *testing.T) {
	optest.Card(t)
	shape := kvcompress.Shape{Batch: 1, KVHeads: 1, HeadDim: 8, ValueDim: 8, Capacity: 40}
	c, err := kvcompress.NewCompressed(shape, kvcompress.Config{Ratio: 4, Recent: 16, GroupSize: 16})
	require.NoError(t, err)
	require.NoError(t, c.ToCard())
	require.NoError(t, c.Append(make([]float32, 30*8), make([]float32, 30*8), 30))
	g := G.NewGraph()
	x := G.NewTensor(g, tensor.Float32, 4, G.WithShape(1, 11, 1, 8), G.WithName("x"), G.WithValue(tensor.New(tensor.WithShape(1, 11, 1, 8), tensor.Of(tensor.Float32))))
	pos := G.NewVector(g, tensor.Int, G.WithShape(1), G.WithName("pos"), G.WithValue(tensor.New(tensor.WithShape(1), tensor.WithBacking([]int{30}))))
	_, err = kvcompress.Attend(x, x, x, pos, c, flashattn.Config{})
	require.NoError(t, err)
	vm := G.NewTapeMachine(g)
	defer vm.Close()
	require.ErrorContains(t, vm.RunAll(), "got 11 tokens on top of 30, want at most 40 in all")
	require.Equal(t, 30, c.Len())
	require.NoError(t, c.FromCard())
}

func same(t *testing.T, a, b kvcompress.Ragged) {
	t.Helper()
	for i := range a.Shape().Batch {
		require.Equal(t, b.LenOf(i), a.LenOf(i))
	}
	x, ok := a.(*kvcompress.Compressed)
	if !ok {
		return
	}
	gotK, gotV := x.Decompress()
	wantK, wantV := b.(*kvcompress.Compressed).Decompress()
	require.Equal(t, wantK, gotK)
	require.Equal(t, wantV, gotV)
}

// A cache in float32 on the card: what it holds moves along, and it works as before.
func TestPlainCacheOnTheCard(t *testing.T) {
	optest.Card(t)
	for i, c := range []cardCase{
		{shape: kvcompress.Shape{Batch: 2, KVHeads: 2, HeadDim: 24, ValueDim: 40, Capacity: 700}, heads: 4, sinks: true},
		{shape: kvcompress.Shape{Batch: 2, KVHeads: 1, HeadDim: 7, ValueDim: 5, Capacity: 700}, heads: 3, attend: flashattn.Config{ALiBi: true, Softcap: 2, Window: flashattn.Sliding(70)}},
	} {
		host, err := kvcompress.NewPlain(c.shape)
		require.NoError(t, err)
		card, err := kvcompress.NewPlain(c.shape)
		require.NoError(t, err)
		k, v := optest.Normal[float32](1, c.shape.Batch*50*c.shape.KVHeads*c.shape.HeadDim, 1), optest.Normal[float32](2, c.shape.Batch*50*c.shape.KVHeads*c.shape.ValueDim, 1)
		require.NoError(t, host.Append(k, v, 50))
		require.NoError(t, card.Append(k, v, 50))
		require.NoError(t, card.ToCard())
		require.NoError(t, card.ToCard(), "a second time does nothing")
		require.True(t, card.OnCard())
		seed := uint64(100 * (i + 1))
		c.step(t, card, host, seed, 1, nil)
		c.step(t, card, host, seed+10, 260, nil) // in tiles, and then more than one part
		c.step(t, card, host, seed+20, 2, nil)
		counts := make([]int, c.shape.Batch)
		for b := range counts {
			counts[b] = 70 - 60*b
		}
		c.step(t, card, host, seed+30, 80, counts)
		require.NoError(t, host.Truncate(200))
		require.NoError(t, card.Truncate(200))
		require.NoError(t, card.FromCard())
		require.NoError(t, card.FromCard(), "likewise")
		require.False(t, card.OnCard())
		q := optest.Normal[float32](9, c.shape.Batch*c.heads*c.shape.HeadDim, 1)
		got, want := make([]float32, c.shape.Batch*c.heads*c.shape.ValueDim), make([]float32, c.shape.Batch*c.heads*c.shape.ValueDim)
		require.NoError(t, host.Attend(want, q, 1, c.heads, c.attend, nil))
		require.NoError(t, card.Attend(got, q, 1, c.heads, c.attend, nil))
		optest.Close(t, "back on the host", optest.Float64s(got), optest.Float64s(want), 1e-5)
	}
}

func TestCacheOnTheCard(t *testing.T) {
	optest.Card(t)
	for i, c := range []cardCase{
		{kvcompress.Config{Ratio: 4, Recent: 20, GroupSize: 16, SinkTokens: 3}, kvcompress.Shape{Batch: 2, KVHeads: 2, HeadDim: 24, ValueDim: 40, Capacity: 400}, 4, flashattn.Config{}, true},
		{kvcompress.Config{Ratio: 8, Recent: 32, GroupSize: 32, RecentFP16: true}, kvcompress.Shape{Batch: 1, KVHeads: 1, HeadDim: 48, ValueDim: 24, Capacity: 400}, 2, flashattn.Config{Softcap: 3}, false},
		{kvcompress.Config{Ratio: 2, Recent: 16, GroupSize: 16, Window: 60}, kvcompress.Shape{Batch: 1, KVHeads: 1, HeadDim: 7, ValueDim: 7, Capacity: 400}, 3, flashattn.Config{ALiBi: true}, false},
		{kvcompress.Config{Ratio: 8, Recent: 16, GroupSize: 16}, kvcompress.Shape{Batch: 1, KVHeads: 1, HeadDim: 16, ValueDim: 16, Capacity: 10}, 1, flashattn.Config{Window: flashattn.Sliding(4)}, false},
	} {
		t.Run(fmt.Sprintf("%+v", c.cfg), func(t *testing.T) {
			host, err := kvcompress.NewCompressed(c.shape, c.cfg)
			require.NoError(t, err)
			card, err := kvcompress.NewCompressed(c.shape, c.cfg)
			require.NoError(t, err)
			seed := uint64(1000 * (i + 1))
			if c.shape.Capacity < 100 { // no page at all
				require.NoError(t, card.ToCard())
				c.step(t, card, host, seed, 3, nil)
				c.step(t, card, host, seed+10, 6, nil)
				require.NoError(t, card.FromCard())
				return
			}
			// What is there moves along.
			k, v := optest.Normal[float32](1, c.shape.Batch*50*c.shape.KVHeads*c.shape.HeadDim, 1), optest.Normal[float32](2, c.shape.Batch*50*c.shape.KVHeads*c.shape.ValueDim, 1)
			require.NoError(t, host.Append(k, v, 50))
			require.NoError(t, card.Append(k, v, 50))
			require.NoError(t, card.ToCard())
			require.True(t, card.OnCard())
			same(t, card, host)
			c.step(t, card, host, seed+10, 1, nil)
			c.step(t, card, host, seed+20, 150, nil)
			counts := make([]int, c.shape.Batch)
			for b := range counts {
				counts[b] = 4 - 3*b
			}
			c.step(t, card, host, seed+30, 5, counts)

			// Every method works where the cache is.
			fork := card.Fork()
			require.False(t, fork.OnCard())
			same(t, fork, host)
			shorter := host.Len() - 10
			require.NoError(t, host.Truncate(shorter))
			require.NoError(t, card.Truncate(shorter))
			same(t, card, host)
			c.step(t, card, host, seed+40, 30, nil)
			if c.cfg.Window == 0 { // which has dropped the tokens after them
				require.NoError(t, host.Truncate(2))
				require.NoError(t, card.Truncate(2))
			}
			c.step(t, card, host, seed+50, 60, nil)
			saved := filepath.Join(t.TempDir(), "cache")
			require.NoError(t, host.Save(saved))
			card.Reset()
			require.NoError(t, card.Restore(saved))
			require.True(t, card.OnCard())
			same(t, card, host)
			c.step(t, card, host, seed+60, 9, nil)
			require.NoError(t, card.FromCard())
			require.False(t, card.OnCard())
			same(t, card, host)
			require.NoError(t, fork.AppendSome(make([]float32, c.shape.Batch*c.shape.KVHeads*c.shape.HeadDim), make([]float32, c.shape.Batch*c.shape.KVHeads*c.shape.ValueDim), 1, nil))
		})
	}
}
