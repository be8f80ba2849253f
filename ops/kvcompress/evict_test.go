package kvcompress_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

func (m model) evicting(t testing.TB, capacity int, cfg kvcompress.Config) *kvcompress.Evicting {
	c, err := kvcompress.New(m.shape(capacity), cfg)
	require.NoError(t, err)
	return c.(*kvcompress.Evicting)
}

// hitters is heavy hitters as one would write them down: maps of what each head keeps, sums in float64.
type hitters struct {
	model
	cfg    kvcompress.Config
	kept   [][]int                // of each (sequence, key head), in order
	weight []map[int]float64      // likewise
	k, v   map[[3]int]([]float32) // of (sequence, position, key head)
	n      int
}

func newHitters(m model, cfg kvcompress.Config) *hitters {
	r := &hitters{model: m, cfg: cfg, kept: make([][]int, m.batch*m.kvHeads), k: map[[3]int][]float32{}, v: map[[3]int][]float32{}}
	for range r.kept {
		r.weight = append(r.weight, map[int]float64{})
	}
	return r
}

func (r *hitters) append(k, v []float32, seq int) {
	for b := range r.batch {
		for i := range seq {
			for h := range r.kvHeads {
				at := (b*seq+i)*r.kvHeads + h
				r.k[[3]int{b, r.n + i, h}], r.v[[3]int{b, r.n + i, h}] = k[at*r.dk:][:r.dk], v[at*r.dv:][:r.dv]
				r.kept[b*r.kvHeads+h] = append(r.kept[b*r.kvHeads+h], r.n+i)
			}
		}
	}
	r.n += seq
}

// attend is attention over what is kept, in float64 and, rounding as one would, in float32; it adds up the weights of the former.
func (r *hitters) attend(q []float32, seq int, cfg flashattn.Config, sinks []float32) (want []float64, plain []float32) {
	want, plain = make([]float64, r.batch*seq*r.heads*r.dv), make([]float32, r.batch*seq*r.heads*r.dv)
	slopes := flashattn.Slopes(r.heads)
	for b := range r.batch {
		for i := range seq {
			for h := range r.heads {
				kvHead := h / (r.heads / r.kvHeads)
				row, at := q[((b*seq+i)*r.heads+h)*r.dk:][:r.dk], r.n-seq+i
				var places []int
				var logits []float64
				var logits32 []float32
				for _, p := range r.kept[b*r.kvHeads+kvHead] {
					if p > at || cfg.Window.Limited && at-p > cfg.Window.Left {
						continue
					}
					var x float64
					var x32 float32
					for c, y := range r.k[[3]int{b, p, kvHead}] {
						x += float64(row[c]) * float64(y)
						x32 += row[c] * y
					}
					scale := 1 / math.Sqrt(float64(r.dk))
					x, x32 = x*scale, x32*float32(scale)
					if cfg.Softcap > 0 {
						x, x32 = cfg.Softcap*math.Tanh(x/cfg.Softcap), float32(cfg.Softcap)*float32(math.Tanh(float64(x32/float32(cfg.Softcap))))
					}
					if cfg.ALiBi {
						x, x32 = x-slopes[h]*float64(at-p), x32-float32(slopes[h])*float32(at-p)
					}
					places, logits, logits32 = append(places, p), append(logits, x), append(logits32, x32)
				}
				if len(places) == 0 {
					continue
				}
				var sum float64
				var sum32 float32
				if sinks != nil {
					sum, sum32 = math.Exp(float64(sinks[h])), float32(math.Exp(float64(sinks[h])))
				}
				for j := range logits {
					sum += math.Exp(logits[j])
					sum32 += float32(math.Exp(float64(logits32[j])))
				}
				o := ((b*seq+i)*r.heads + h) * r.dv
				for j, p := range places {
					w, w32 := math.Exp(logits[j])/sum, float32(math.Exp(float64(logits32[j])))/sum32
					r.weight[b*r.kvHeads+kvHead][p] += w
					for c, y := range r.v[[3]int{b, p, kvHead}] {
						want[o+c] += w * float64(y)
						plain[o+c] += w32 * y
					}
				}
			}
		}
	}
	return want, plain
}

// evict drops the lightest tokens, as the cache did where weights are as good as equal.
func (r *hitters) evict(t *testing.T, c *kvcompress.Evicting, what string) {
	for b := range r.batch {
		for h := range r.kvHeads {
			kept, weight := &r.kept[b*r.kvHeads+h], r.weight[b*r.kvHeads+h]
			var gone []int
			for len(*kept) > r.cfg.Budget {
				worst := -1
				for i, p := range *kept {
					if p >= r.cfg.SinkTokens && p < r.n-r.cfg.Recent && (worst < 0 || weight[p] < weight[(*kept)[worst]]) {
						worst = i
					}
				}
				gone = append(gone, (*kept)[worst])
				*kept = slices.Delete(*kept, worst, worst+1)
			}
			got, err := c.Kept(b, h)
			require.NoError(t, err)
			if slices.Equal(got, *kept) {
				continue
			}
			require.Len(t, got, len(*kept), what)
			for _, p := range *kept { // what the cache does not keep is no heavier than what went
				if !slices.Contains(got, p) {
					lightest := slices.MaxFunc(gone, func(x, y int) int { return int(math.Copysign(1, weight[x]-weight[y])) })
					require.InDelta(t, weight[lightest], weight[p], 1e-5*(1+weight[p]), "%s: token %d is evicted", what, p)
				}
			}
			*kept = got
		}
	}
}

var evictions = map[string]struct {
	cfg   flashattn.Config
	sinks []float32
}{
	"plain":    {},
	"features": {flashattn.Config{Softcap: 3, ALiBi: true, Window: flashattn.Sliding(90)}, []float32{0.5, -1, 0, 2}},
}

// A long generation, in calls of different lengths, is what its reference is, keeps sinks and recent tokens, and does not grow.
func TestEvictingIsHeavyHitters(t *testing.T) {
	m := model{2, 4, 2, 16, 8}
	total := 700
	if testing.Short() {
		total = 200
	}
	for name, e := range evictions {
		t.Run(name, func(t *testing.T) {
			cfg := kvcompress.Config{Budget: 40, Recent: 12, SinkTokens: 3}
			c, r := m.evicting(t, total, cfg), newHitters(m, cfg)
			q, k, v := m.tokens(7, total)
			savings, err := kvcompress.MemorySavings(total, m.shape(total), cfg)
			require.NoError(t, err)
			for at, i := 0, 0; at < total; i++ {
				n := min([]int{30, 1, 1, 1, 1, 1, 1, 9, 1, 130}[i%10], total-at)
				part := func(x []float32, width int) []float32 { return m.part(x, total, at, n, width) }
				pk, pv, pq := part(k, m.kvHeads*m.dk), part(v, m.kvHeads*m.dv), part(q, m.heads*m.dk)
				require.NoError(t, c.Append(pk, pv, n))
				out := make([]float32, m.batch*n*m.heads*m.dv)
				require.NoError(t, c.Attend(out, pq, n, m.heads, e.cfg, e.sinks))
				r.append(pk, pv, n)
				want, plain := r.attend(pq, n, e.cfg, e.sinks)
				what := fmt.Sprintf("%s: token %d", name, at)
				optest.Within(t, what, out, plain, want, 3, 0x1p-24*16)
				at += n
				r.evict(t, c, what)
				for b := range m.batch {
					for h := range m.kvHeads {
						kept, err := c.Kept(b, h)
						require.NoError(t, err)
						require.LessOrEqual(t, len(kept), cfg.Budget, what)
						for p := range at {
							if p < cfg.SinkTokens || p >= at-cfg.Recent {
								require.Contains(t, kept, p, what)
							}
						}
					}
				}
				require.Equal(t, savings.Bytes, c.Bytes(), what)
			}
			require.Equal(t, total, c.Len())
		})
	}
}

// What is not full yet, or never will be, is the plain cache to the last bit.
func TestEvictingNothingIsPlain(t *testing.T) {
	m := model{2, 4, 2, 16, 8}
	const total = 100
	q, k, v := m.tokens(8, total)
	for name, e := range evictions {
		for _, budget := range []int{total, 1000} {
			c := m.evicting(t, total, kvcompress.Config{Budget: budget})
			p, err := kvcompress.NewPlain(m.shape(total))
			require.NoError(t, err)
			for at := 0; at < total; {
				n := min(1+at%7*5, total-at)
				var outs [2][]float32
				for i, x := range []kvcompress.Cache{c, p} {
					outs[i] = make([]float32, m.batch*n*m.heads*m.dv)
					require.NoError(t, x.Append(m.part(k, total, at, n, m.kvHeads*m.dk), m.part(v, total, at, n, m.kvHeads*m.dv), n))
					require.NoError(t, x.Attend(outs[i], m.part(q, total, at, n, m.heads*m.dk), n, m.heads, e.cfg, e.sinks))
				}
				require.Equal(t, outs[1], outs[0], "%s: token %d", name, at)
				at += n
			}
		}
	}
}

// step appends and attends n tokens from at on.
func (m model) step(t testing.TB, c kvcompress.Cache, q, k, v []float32, total, at, n int) []float32 {
	t.Helper()
	out := make([]float32, m.batch*n*m.heads*m.dv)
	require.NoError(t, c.Append(m.part(k, total, at, n, m.kvHeads*m.dk), m.part(v, total, at, n, m.kvHeads*m.dv), n))
	require.NoError(t, c.Attend(out, m.part(q, total, at, n, m.heads*m.dk), n, m.heads, flashattn.Config{}, nil))
	return out
}

func TestEvictingDoesNotDependOnThreads(t *testing.T) {
	m := model{2, 4, 2, 16, 8}
	const total = 150
	q, k, v := m.tokens(9, total)
	var want []float32
	for threads := 1; threads <= 3; threads++ {
		old, err := parallel.SetThreads(threads)
		require.NoError(t, err)
		c := m.evicting(t, total, kvcompress.Config{Budget: 30, SinkTokens: 2})
		var got []float32
		for at := 0; at < total; at += 10 {
			got = append(got, m.step(t, c, q, k, v, total, at, 10)...)
		}
		_, err = parallel.SetThreads(old)
		require.NoError(t, err)
		if want == nil {
			want = got
		}
		require.Equal(t, want, got)
	}
}

// Of tokens that got the same attention, none here, the oldest go: sinks and the newest stay.
func TestEvictingTies(t *testing.T) {
	m := model{1, 2, 1, 4, 4}
	_, k, v := m.tokens(1, 50)
	c := m.evicting(t, 100, kvcompress.Config{Budget: 10, SinkTokens: 2, Recent: 3})
	require.NoError(t, c.Append(k, v, 50))
	require.NoError(t, c.AttendSome(make([]float32, 50*2*4), make([]float32, 50*2*4), 50, 2, []int{0}, flashattn.Config{}, nil))
	kept, err := c.Kept(0, 0)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 42, 43, 44, 45, 46, 47, 48, 49}, kept)
}

// Sequences of different lengths in one cache are what each would be in its own.
func TestEvictingRaggedSequences(t *testing.T) {
	m, one := model{3, 4, 2, 16, 8}, model{1, 4, 2, 16, 8}
	cfg := kvcompress.Config{Budget: 24, SinkTokens: 1}
	const calls, seq = 40, 5
	c := m.evicting(t, calls*seq, cfg)
	var alone []*kvcompress.Evicting
	for range m.batch {
		alone = append(alone, one.evicting(t, calls*seq, cfg))
	}
	for i := range calls {
		q, k, v := m.tokens(uint64(i), seq)
		counts := []int{i % (seq + 1), seq, min(i%3, 1)}
		require.NoError(t, c.AppendSome(k, v, seq, counts))
		out := make([]float32, m.batch*seq*m.heads*m.dv)
		require.NoError(t, c.AttendSome(out, q, seq, m.heads, counts, flashattn.Config{}, nil))
		for b, n := range counts {
			got := out[b*seq*m.heads*m.dv:][:seq*m.heads*m.dv]
			want := make([]float32, len(got))
			if n > 0 {
				require.NoError(t, alone[b].Append(k[b*seq*m.kvHeads*m.dk:][:n*m.kvHeads*m.dk], v[b*seq*m.kvHeads*m.dv:][:n*m.kvHeads*m.dv], n))
				require.NoError(t, alone[b].Attend(want[:n*m.heads*m.dv], q[b*seq*m.heads*m.dk:][:n*m.heads*m.dk], n, m.heads, flashattn.Config{}, nil))
			}
			optest.Close(t, fmt.Sprintf("call %d, sequence %d", i, b), got, optest.Float64s(want), 1e-5)
			require.Equal(t, alone[b].LenOf(0), c.LenOf(b))
			for h := range m.kvHeads {
				x, err := c.Kept(b, h)
				require.NoError(t, err)
				y, err := alone[b].Kept(0, h)
				require.NoError(t, err)
				require.Equal(t, y, x)
			}
		}
	}
}

func TestEvictingRollbacksAndForks(t *testing.T) {
	m := model{1, 4, 2, 16, 8}
	const total = 120
	cfg := kvcompress.Config{Budget: 30, Recent: 10, SinkTokens: 2}
	q, k, v := m.tokens(3, total)
	c := m.evicting(t, total, cfg)
	for at := range 100 {
		m.step(t, c, q, k, v, total, at, 1)
	}
	f := c.Fork()
	other, ok, ov := m.tokens(4, total)
	for at := range 10 {
		m.step(t, f, other, ok, ov, total, at, 1)
	}
	require.Equal(t, 100, c.Len())
	require.Equal(t, 110, f.Len())

	// Tokens that are taken back before they were attended leave nothing; then both go on alike.
	g := c.Fork()
	require.NoError(t, g.Append(ok[:7*32], ov[:7*16], 7))
	require.NoError(t, g.Truncate(100))
	for at := 100; at < 110; at++ {
		require.Equal(t, m.step(t, c, q, k, v, total, at, 1), m.step(t, g, q, k, v, total, at, 1))
	}

	// As many as are recent can be taken back, and attention is over what is left.
	r := newHitters(m, cfg)
	require.NoError(t, c.Truncate(100))
	require.ErrorContains(t, c.Truncate(50), "kvcompress: Truncate: got 50 tokens, want at most the 2 sinks or at least ")
	require.Equal(t, 100, c.Len())
	require.NoError(t, c.Append(k[100*32:][:32], v[100*16:][:16], 1))
	for p := range 101 {
		for h := range m.kvHeads {
			r.k[[3]int{0, p, h}], r.v[[3]int{0, p, h}] = k[(p*2+h)*16:][:16], v[(p*2+h)*8:][:8]
			r.kept[h], _ = c.Kept(0, h)
		}
	}
	r.n = 101
	want, plain := r.attend(q[100*64:][:64], 1, flashattn.Config{}, nil)
	out := make([]float32, 32)
	require.NoError(t, c.Attend(out, q[100*64:][:64], 1, 4, flashattn.Config{}, nil))
	optest.Within(t, "after a rollback", out, plain, want, 3, 0x1p-24*16)
	require.ErrorContains(t, g.Attend(out, q[100*64:][:64], 1, 4, flashattn.Config{}, nil), "got queries of 1 tokens of sequence 0, want at most the 0 that were appended since")

	// Back to sinks, and to nothing, it is as good as new.
	require.NoError(t, c.Truncate(2))
	kept, err := c.Kept(0, 1)
	require.NoError(t, err)
	require.Equal(t, []int{0, 1}, kept)
	c.Reset()
	fresh := m.evicting(t, total, cfg)
	for at := range 60 {
		require.Equal(t, m.step(t, fresh, q, k, v, total, at, 1), m.step(t, c, q, k, v, total, at, 1))
	}
}

func TestEvictingRefuses(t *testing.T) {
	m := model{1, 2, 1, 4, 4}
	for want, cfg := range map[string]kvcompress.Config{
		"Config.Budget: got -1, want at least 0":                        {Budget: -1},
		"Config.Budget: got 64 with Ratio 4, want a Ratio of 1":         {Budget: 64, Ratio: 4},
		"Config.Budget: got 10, want at least SinkTokens + Recent = 12": {Budget: 10, SinkTokens: 4, Recent: 8},
		"Config.Budget: got 10 with a Window of 5, want one of them":    {Budget: 10, Window: 5},
	} {
		_, err := kvcompress.New(m.shape(100), cfg)
		require.ErrorContains(t, err, "kvcompress: "+want)
	}
	require.NotNil(t, m.evicting(t, 20, kvcompress.Config{Budget: math.MaxInt}))
	_, err := kvcompress.New(m.shape(100), kvcompress.Config{Budget: 10, SinkTokens: math.MaxInt})
	require.ErrorContains(t, err, "kvcompress: Config.Budget: got 10")
	c := m.evicting(t, 20, kvcompress.Config{Budget: 8})
	require.Equal(t, 4, c.Config().Recent)
	_, err = c.Kept(0, 1)
	require.EqualError(t, err, "kvcompress: Kept: got sequence 0 and head 1, want 0 to 0 and 0 to 0")
	_, k, v := m.tokens(1, 21)
	require.ErrorContains(t, c.Append(k, v, 21), "got 21 tokens on top of 0, want at most 20 in all")
	require.Zero(t, c.Len())
}
