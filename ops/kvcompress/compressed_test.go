package kvcompress_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

// model is a little attention layer: its sizes, and tokens from a seed.
type model struct {
	batch, heads, kvHeads, dk, dv int
}

func (m model) shape(capacity int) kvcompress.Shape {
	return kvcompress.Shape{Batch: m.batch, KVHeads: m.kvHeads, HeadDim: m.dk, ValueDim: m.dv, Capacity: capacity}
}

// tokens are q, k and v of n tokens of each sequence. Channels of k have offsets and sizes of their own, one of them a large one, as
// keys of real models do.
func (m model) tokens(seed uint64, n int) (q, k, v []float32) {
	q = optest.Normal[float32](seed, m.batch*n*m.heads*m.dk, 1)
	k = optest.Normal[float32](seed+1000, m.batch*n*m.kvHeads*m.dk, 1)
	v = optest.Normal[float32](seed+2000, m.batch*n*m.kvHeads*m.dv, 1)
	for i := range k {
		c := i % m.dk
		k[i] = k[i]*(0.3+float32(c%5)/4) + float32(c%3-1)
		if c == m.dk-1 {
			k[i] = 6*k[i] + 3
		}
	}
	return q, k, v
}

func (m model) new(t testing.TB, capacity int, cfg kvcompress.Config) *kvcompress.Compressed {
	c, err := kvcompress.NewCompressed(m.shape(capacity), cfg)
	require.NoError(t, err)
	return c
}

// exact is attention, in float64, of the newest counts[b] of seq queries over what c stands for; naive is the same in float32.
func (m model) exact(c *kvcompress.Compressed, q []float32, seq int, counts []int, cfg flashattn.Config, sinks []float32) (want []float64, naive []float32) {
	k, v := c.Decompress()
	n := c.Len()
	want, naive = make([]float64, m.batch*seq*m.heads*m.dv), make([]float32, m.batch*seq*m.heads*m.dv)
	scale := cfg.Scale
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(m.dk))
	}
	slopes := flashattn.Slopes(m.heads)
	for b := range m.batch {
		count := seq
		if counts != nil {
			count = counts[b]
		}
		for i := range count {
			p := c.LenOf(b) - count + i
			for h := range m.heads {
				kv := h / (m.heads / m.kvHeads)
				row := q[((b*seq+i)*m.heads+h)*m.dk:][:m.dk]
				at := ((b*seq+i)*m.heads + h) * m.dv
				x, y := make([]float64, p+1), make([]float32, p+1)
				first := 0
				if cfg.Window.Limited {
					first = max(0, p-cfg.Window.Left)
				}
				top := math.Inf(-1)
				for j := first; j <= p; j++ {
					for d, a := range k[((b*n+j)*m.kvHeads+kv)*m.dk:][:m.dk] {
						x[j] += float64(row[d]) * float64(a)
						y[j] += row[d] * a
					}
					x[j] *= scale
					y[j] *= float32(scale)
					if cfg.Softcap > 0 {
						x[j] = cfg.Softcap * math.Tanh(x[j]/cfg.Softcap)
						y[j] = float32(cfg.Softcap) * float32(math.Tanh(float64(y[j]/float32(cfg.Softcap))))
					}
					if cfg.ALiBi {
						x[j] -= slopes[h] * float64(p-j)
						y[j] -= float32(slopes[h]) * float32(p-j)
					}
					top = max(top, x[j])
				}
				sum, sum32 := 0.0, float32(0)
				if sinks != nil {
					top = max(top, float64(sinks[h]))
					sum = math.Exp(float64(sinks[h]) - top)
					sum32 = float32(sum)
				}
				for j := first; j <= p; j++ {
					w, w32 := math.Exp(x[j]-top), float32(math.Exp(float64(y[j]-float32(top))))
					sum += w
					sum32 += w32
					for d, a := range v[((b*n+j)*m.kvHeads+kv)*m.dv:][:m.dv] {
						want[at+d] += w * float64(a)
						naive[at+d] += w32 * a
					}
				}
				for d := range m.dv {
					want[at+d] /= sum
					naive[at+d] /= sum32
				}
			}
		}
	}
	return want, naive
}

// checkAttend compares attention over c with attention over what it stands for. The bar is twice the error of plain loops in float32,
// with a floor of 16 units in the last place of values of size 1, for rows in which those happen to be exact.
func (m model) checkAttend(t testing.TB, what string, c *kvcompress.Compressed, q []float32, seq int, counts []int, cfg flashattn.Config, sinks []float32) {
	t.Helper()
	out := make([]float32, m.batch*seq*m.heads*m.dv)
	require.NoError(t, c.AttendSome(out, q, seq, m.heads, counts, cfg, sinks))
	want, naive := m.exact(c, q, seq, counts, cfg, sinks)
	optest.Within(t, what, out, naive, want, 2, 1e-6)
}

var schemes = map[string]kvcompress.Config{
	"f16":         {Ratio: 2, Recent: 16, GroupSize: 16},
	"int8":        {Ratio: 4, Recent: 20, GroupSize: 16, SinkTokens: 3},
	"int8 rotate": {Ratio: 4, Recent: 16, GroupSize: 16, Rotate: kvcompress.RotateAlways, RecentFP16: true},
	"int4":        {Ratio: 8, Recent: 33, GroupSize: 32, SinkTokens: 2, RecentFP16: true},
	"int4 plain":  {Ratio: 8, Recent: 16, GroupSize: 16, Rotate: kvcompress.RotateNever},
	"int4 window": {Ratio: 8, Recent: 16, GroupSize: 16, SinkTokens: 2},
}

func TestCompressedAttendEqualsAttentionOverDecompress(t *testing.T) {
	features := map[string]flashattn.Config{
		"plain": {}, "window": {Window: flashattn.Sliding(25)}, "softcap": {Softcap: 2.5, Scale: 0.4}, "alibi": {ALiBi: true},
	}
	for name, cfg := range schemes {
		for _, m := range []model{{2, 4, 2, 24, 20}, {1, 3, 3, 16, 16}, {1, 2, 1, 40, 7}} {
			t.Run(fmt.Sprint(name, m), func(t *testing.T) {
				for feature, ac := range features {
					var sinks []float32
					if feature == "plain" {
						sinks = optest.Normal[float32](3, m.heads, 1)
					}
					c := m.new(t, 200, cfg)
					for i, seq := range []int{1, 3, 70, 1, 1, 17, 1, 40, 1} {
						q, k, v := m.tokens(uint64(i), seq)
						require.NoError(t, c.Append(k, v, seq))
						m.checkAttend(t, fmt.Sprint(feature, " at ", c.Len()), c, q, seq, nil, ac, sinks)
					}
				}
			})
		}
	}
}
