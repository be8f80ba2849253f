package kvcompress_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// At every step of a long generation, attention over the cache is attention over what it stands for: through the ends of groups,
// after rollbacks short and long, and in forks.
func TestLongGeneration(t *testing.T) {
	total := 2000
	if testing.Short() {
		total = 300
	}
	m := model{1, 2, 1, 16, 16}
	for name, cfg := range map[string]kvcompress.Config{
		"f16": {Ratio: 2, Recent: 40, GroupSize: 16}, "int8": {Ratio: 4}, "int4": {Ratio: 8, Recent: 48, GroupSize: 32, SinkTokens: 4, RecentFP16: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, k, v := m.tokens(5, total)
			c := m.new(t, total, cfg)
			for i := 0; i < total; i++ {
				if i%97 == 96 { // a rollback, now and then far
					back := 1 + i%7
					if i%5 == 0 {
						back = min(c.Len(), 130)
					}
					was, _ := c.Decompress()
					require.NoError(t, c.Truncate(c.Len()-back))
					is, _ := c.Decompress()
					if !cfg.RecentFP16 {
						require.Equal(t, was[:len(is)], is, "what is left stands for the same")
					}
				}
				if i%211 == 210 {
					f := c.Fork()
					require.NoError(t, c.Append(q[:16], q[16:32], 1)) // the other one goes elsewhere
					c = f
				}
				require.NoError(t, c.Append(k[i*16:][:16], v[i*16:][:16], 1))
				m.checkAttend(t, fmt.Sprint("at ", i), c, q[i*32:][:32], 1, nil, flashattn.Config{}, nil)
			}
		})
	}
}

// What a cache stands for does not depend on how its tokens came.
func TestPiecesMakeNoDifference(t *testing.T) {
	m := model{2, 2, 2, 24, 16}
	const total = 150
	for name, cfg := range schemes {
		_, k, v := m.tokens(1, total)
		whole := m.new(t, total, cfg)
		require.NoError(t, whole.Append(k, v, total))
		pieces := m.new(t, total, cfg)
		for i, at := 0, 0; at < total; i++ {
			n := min([]int{1, 5, 33, 2}[i%4], total-at)
			require.NoError(t, pieces.Append(m.part(k, total, at, n, m.kvHeads*m.dk), m.part(v, total, at, n, m.kvHeads*m.dv), n))
			at += n
		}
		wk, wv := whole.Decompress()
		pk, pv := pieces.Decompress()
		require.Equal(t, wk, pk, name)
		require.Equal(t, wv, pv, name)
	}
}

// part is n tokens from at on of each of the sequences of total tokens in x.
func (m model) part(x []float32, total, at, n, width int) []float32 {
	var out []float32
	for b := range m.batch {
		out = append(out, x[(b*total+at)*width:][:n*width]...)
	}
	return out
}

// A rollback by no more than Recent − GroupSize tokens leaves nothing to see: going on gives what it would have given.
func TestShortRollbackIsExact(t *testing.T) {
	m := model{1, 1, 1, 16, 16}
	cfg := kvcompress.Config{Ratio: 8, Recent: 48, GroupSize: 32, SinkTokens: 3}
	const total = 200
	_, k, v := m.tokens(1, total)
	for n := 100; n < 170; n++ {
		c, want := m.new(t, total, cfg), m.new(t, total, cfg)
		require.NoError(t, c.Append(k[:16*n], v[:16*n], n))
		require.NoError(t, c.Truncate(n-16))
		require.NoError(t, c.Append(k[16*(n-16):], v[16*(n-16):], total-n+16))
		require.NoError(t, want.Append(k, v, total))
		gk, gv := c.Decompress()
		wk, wv := want.Decompress()
		require.Equal(t, wk, gk, n)
		require.Equal(t, wv, gv, n)
	}
}

func TestForksGoTheirOwnWay(t *testing.T) {
	m := model{2, 2, 1, 16, 16}
	for name, cfg := range schemes {
		const shared, total = 75, 140
		_, k, v := m.tokens(1, total)
		_, ka, va := m.tokens(2, total-shared)
		head := func(x []float32, w int) []float32 { return m.part(x, total, 0, shared, w) }
		tail := func(x []float32, w int) []float32 { return m.part(x, total, shared, total-shared, w) }
		c := m.new(t, total, cfg)
		require.NoError(t, c.Append(head(k, 16), head(v, 16), shared))
		f := c.Fork()
		require.NoError(t, f.Append(ka, va, total-shared))
		require.NoError(t, c.Append(tail(k, 16), tail(v, 16), total-shared))
		for what, x := range map[string]struct {
			c    *kvcompress.Compressed
			k, v []float32
		}{"original": {c, tail(k, 16), tail(v, 16)}, "fork": {f, ka, va}} {
			want := m.new(t, total, cfg)
			require.NoError(t, want.Append(head(k, 16), head(v, 16), shared))
			require.NoError(t, want.Append(x.k, x.v, total-shared))
			gk, gv := x.c.Decompress()
			wk, wv := want.Decompress()
			require.Equal(t, wk, gk, name+" "+what)
			require.Equal(t, wv, gv, name+" "+what)
		}
	}
}

// Sequences of different lengths in one cache are what each would be in its own.
func TestRaggedSequences(t *testing.T) {
	m := model{3, 4, 2, 16, 24}
	one := m
	one.batch = 1
	caches := map[string]func(m model) kvcompress.Ragged{
		"plain": func(m model) kvcompress.Ragged {
			c, err := kvcompress.NewPlain(m.shape(120))
			require.NoError(t, err)
			return c
		},
	}
	for name, cfg := range schemes {
		caches[name] = func(m model) kvcompress.Ragged { return m.new(t, 120, cfg) }
	}
	for name, build := range caches {
		all := build(m)
		var each [3]kvcompress.Ragged
		for b := range each {
			each[b] = build(one)
		}
		for step, s := range []struct {
			seq    int
			counts []int
		}{{60, []int{60, 7, 31}}, {1, []int{1, 1, 1}}, {1, []int{0, 1, 0}}, {9, []int{3, 9, 0}}, {1, nil}} {
			q, k, v := m.tokens(uint64(step), s.seq)
			out := make([]float32, m.batch*s.seq*m.heads*m.dv)
			require.NoError(t, all.AppendSome(k, v, s.seq, s.counts))
			require.NoError(t, all.AttendSome(out, q, s.seq, m.heads, s.counts, flashattn.Config{ALiBi: true}, nil))
			for b, c := range each {
				n := s.seq
				if s.counts != nil {
					n = s.counts[b]
				}
				row := out[b*s.seq*m.heads*m.dv:][:s.seq*m.heads*m.dv]
				if n > 0 {
					wk, wv := m.kvHeads*m.dk, m.kvHeads*m.dv
					require.NoError(t, c.Append(k[b*s.seq*wk:][:n*wk], v[b*s.seq*wv:][:n*wv], n))
					want := make([]float32, n*m.heads*m.dv)
					require.NoError(t, c.Attend(want, q[b*s.seq*m.heads*m.dk:][:n*m.heads*m.dk], n, m.heads, flashattn.Config{ALiBi: true}, nil))
					optest.Close(t, fmt.Sprint(name, " step ", step, " sequence ", b), row[:len(want)], optest.Float64s(want), 3e-6)
				}
				require.Equal(t, make([]float32, len(row)-n*m.heads*m.dv), row[n*m.heads*m.dv:], "idle queries")
				require.Equal(t, c.Len(), all.LenOf(b))
			}
		}
		require.NoError(t, all.TruncateEach([]int{5, 0, 31}))
		require.Equal(t, []int{5, 0, 31}, []int{all.LenOf(0), all.LenOf(1), all.LenOf(2)})
		require.ErrorContains(t, all.TruncateEach([]int{5, 1, 31}), "got 1 tokens, want 0 to 0")
		require.ErrorContains(t, all.TruncateEach([]int{5}), "got 1 lengths, want 3")
		q, k, v := m.tokens(9, 2)
		require.ErrorContains(t, all.AppendSome(k, v, 2, []int{1, 3, 0}), "counts: got 3 for sequence 1, want 0 to 2")
		require.ErrorContains(t, all.AppendSome(k, v, 2, []int{1}), "counts: got 1 elements, want 3")
		require.ErrorContains(t, all.AttendSome(make([]float32, 3*2*4*24), q, 2, 4, []int{1, 1, 1}, flashattn.Config{}, nil), "queries of 1 tokens, want 1 to 0")
	}
}

// Results do not depend on the number of threads, to the last bit, and a warm step allocates the same however much is cached.
func TestThreadsAndAllocations(t *testing.T) {
	m := model{1, 4, 4, 16, 16}
	for _, ratio := range []int{2, 4, 8} {
		cfg := kvcompress.Config{Ratio: ratio, Recent: 32, GroupSize: 16}
		const total = 2600
		q, k, v := m.tokens(1, total)
		c := m.new(t, total, cfg)
		require.NoError(t, c.Append(k, v, total))
		var want, wantMany []float32
		for _, threads := range []int{1, 2, 5} {
			old, err := parallel.SetThreads(threads)
			require.NoError(t, err)
			out, many := make([]float32, 4*16), make([]float32, 9*4*16)
			require.NoError(t, c.Attend(out, q[:4*16], 1, 4, flashattn.Config{}, nil))
			require.NoError(t, c.Attend(many, q[:9*4*16], 9, 4, flashattn.Config{}, nil))
			_, err = parallel.SetThreads(old)
			require.NoError(t, err)
			if want == nil {
				want, wantMany = out, many
			}
			require.Equal(t, want, out)
			require.Equal(t, wantMany, many)
		}
		out := make([]float32, 4*16)
		require.LessOrEqual(t, testing.AllocsPerRun(20, func() { _ = c.Attend(out, q[:4*16], 1, 4, flashattn.Config{}, nil) }), 8.0)
	}
}

// With a window, old groups are dropped: memory stays, and attention within the window is what it was.
func TestWindowDropsOldGroups(t *testing.T) {
	m := model{1, 2, 1, 16, 16}
	const total, window = 700, 100
	for _, ratio := range []int{2, 4, 8} {
		cfg := kvcompress.Config{Ratio: ratio, Recent: 32, GroupSize: 16, SinkTokens: 4}
		all := m.new(t, total, cfg)
		cfg.Window = window
		c := m.new(t, total, cfg)
		q, k, v := m.tokens(1, total)
		for i := range total {
			require.NoError(t, all.Append(k[16*i:][:16], v[16*i:][:16], 1))
			require.NoError(t, c.Append(k[16*i:][:16], v[16*i:][:16], 1))
		}
		ac := flashattn.Config{Window: flashattn.Sliding(window)}
		got, want := make([]float32, 32), make([]float32, 32)
		require.NoError(t, c.Attend(got, q[:32], 1, 2, ac, nil))
		require.NoError(t, all.Attend(want, q[:32], 1, 2, ac, nil))
		optest.Close(t, "within the window", got, optest.Float64s(want), 3e-6)
		require.NoError(t, c.Attend(got, q[:32], 1, 2, flashattn.Config{}, nil), "sinks and window")
		gk, _ := c.Decompress()
		wk, _ := all.Decompress()
		require.Equal(t, wk[:4*16], gk[:4*16])
		require.Equal(t, wk[(total-window)*16:], gk[(total-window)*16:])
		require.Equal(t, make([]float32, 16), gk[300*16:][:16], "a dropped token")
		require.ErrorContains(t, c.Truncate(300), "the window has dropped those between")
		require.Equal(t, total, c.Len())
		require.NoError(t, c.Truncate(total-50))
		require.NoError(t, c.Truncate(3))
	}
}
