package kvcompress_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"stheno/internal/optest"
	"stheno/ops"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// TestAttendQKV: the same bits as Attend of the three parts, step after step.
func TestAttendQKV(t *testing.T) {
	for name, kv := range map[string]kvcompress.Config{
		"float32": {}, "int8": {Ratio: 4, Recent: 16, GroupSize: 16}, "evicting": {Ratio: 1, Budget: 24, Recent: 8, SinkTokens: 2},
	} {
		t.Run(name, func(t *testing.T) {
			shape := kvcompress.Shape{Batch: 2, KVHeads: 2, HeadDim: 8, Capacity: 60}
			var caches [2]kvcompress.Cache
			for i := range caches {
				var err error
				caches[i], err = kvcompress.New(shape, kv)
				require.NoError(t, err)
			}
			for step, seq := range []int{30, 1, 1, 17} {
				size := ops.QKV{Batch: 2, Seq: seq, Heads: 4, KVHeads: 2, HeadDim: 8}
				var got [2]G.Value
				for i, joint := range []bool{false, true} {
					g := G.NewGraph()
					var in []*G.Node
					var all []float64
					for j, heads := range []int{size.Heads, size.KVHeads, size.KVHeads} {
						x := optest.Seeded("qkv"[j:j+1], uint64(3*step+j), 2, seq, heads, 8)
						in, all = append(in, x.Node(g, tensor.Float32)), append(all, x.Data...)
					}
					pos := G.NewScalar(g, tensor.Int, G.WithName("pos"), G.WithValue(caches[i].Len()))
					sinks := optest.Seeded("sinks", 7, 4).Node(g, tensor.Float32)
					cfg := flashattn.Config{Sinks: sinks, Window: flashattn.Sliding(20)}
					var out *G.Node
					var err error
					if joint {
						qkv := optest.Input{Name: "qkv", Shape: []int{len(all)}, Data: all}.Node(g, tensor.Float32)
						out, err = kvcompress.AttendQKV(qkv, pos, size, caches[i], cfg)
					} else {
						out, err = kvcompress.Attend(in[0], in[1], in[2], pos, caches[i], cfg)
					}
					require.NoError(t, err)
					require.Equal(t, joint, out.Dims() == 3)
					vm := G.NewTapeMachine(g)
					defer vm.Close()
					require.NoError(t, vm.RunAll())
					got[i] = out.Value()
				}
				require.True(t, slices.Equal(optest.Values(t, got[0]), optest.Values(t, got[1])), "step %d", step)
			}
			require.Equal(t, 49, caches[1].Len())
		})
	}
}

func TestAttendQKVErrors(t *testing.T) {
	g := G.NewGraph()
	vector := func(n int) *G.Node { return G.NewVector(g, tensor.Float32, G.WithShape(n), G.WithName("qkv")) }
	pos := G.NewScalar(g, tensor.Int, G.WithName("pos"))
	c, err := kvcompress.NewPlain(kvcompress.Shape{Batch: 1, KVHeads: 2, HeadDim: 4, Capacity: 3})
	require.NoError(t, err)
	narrow, err := kvcompress.NewPlain(kvcompress.Shape{Batch: 1, KVHeads: 2, HeadDim: 4, ValueDim: 3, Capacity: 3})
	require.NoError(t, err)
	size := ops.QKV{Batch: 1, Seq: 1, Heads: 4, KVHeads: 2, HeadDim: 4}
	long, other := size, size
	long.Seq, other.KVHeads = 4, 1
	for want, build := range map[string]func() (*G.Node, error){
		"qkv: got a nil node":            func() (*G.Node, error) { return kvcompress.AttendQKV(nil, pos, size, c, flashattn.Config{}) },
		"qkv: got shape (31), want (32)": func() (*G.Node, error) { return kvcompress.AttendQKV(vector(31), pos, size, c, flashattn.Config{}) },
		"got 4 tokens, want 1 to the capacity 3": func() (*G.Node, error) {
			return kvcompress.AttendQKV(vector(128), pos, long, c, flashattn.Config{})
		},
		"KVHeads:1 HeadDim:4}, want the batch, heads and widths": func() (*G.Node, error) {
			return kvcompress.AttendQKV(vector(24), pos, other, c, flashattn.Config{})
		},
		"ValueDim:3": func() (*G.Node, error) {
			return kvcompress.AttendQKV(vector(32), pos, size, narrow, flashattn.Config{})
		},
	} {
		_, err := build()
		require.ErrorContains(t, err, "kvcompress.AttendQKV: ")
		require.ErrorContains(t, err, want)
	}
}
