//go:build linux && (amd64 || arm64)

package emulator_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/kernel"
)

// attention is one problem for the kernel. A left or right of −1 is an open side.
type attention struct {
	batch, seqQ, seqKV, heads, kvHeads, d, dv int
	left, right                               int
	softcap                                   float64
	sinks, alibi, bias, oneBias               bool
	spread                                    float64 // of q and k; 0 means 1
}

func (c attention) name() string {
	return fmt.Sprintf("%+v", c)
}

// attentionData are the operands. Where products are rounded, lift is added to those of a row and gradients multiply gq and gk; rounds
// says that weights are rounded to BF16 where they multiply, and dOut and the gradients of products likewise.
type attentionData[T number] struct {
	q, k, v, sinks, slopes, bias []T
	lift, gq, gk                 []T
	rounds                       bool
}

// rounded is x, in BF16 if that is asked for.
func (d attentionData[T]) rounded(x float64) float64 {
	if !d.rounds {
		return x
	}
	return float64(kernel.BFloat16Value(kernel.BFloat16Bits(float32(x))))
}

func (c attention) data() attentionData[float32] {
	spread := c.spread
	if spread == 0 {
		spread = 1
	}
	d := attentionData[float32]{
		q: random[float32](1, c.batch*c.seqQ*c.heads*c.d), k: random[float32](2, c.batch*c.seqKV*c.kvHeads*c.d),
		v: random[float32](3, c.batch*c.seqKV*c.kvHeads*c.dv),
	}
	for i := range d.q {
		d.q[i] *= float32(spread)
	}
	if c.sinks {
		d.sinks = random[float32](4, c.heads)
	}
	if c.alibi {
		for h := range c.heads {
			d.slopes = append(d.slopes, float32(math.Exp2(-float64(h+1))))
		}
	}
	if c.bias {
		n := c.seqQ * c.seqKV
		if !c.oneBias {
			n *= c.batch * c.heads
		}
		d.bias = random[float32](5, n)
		d.bias[0] = float32(math.Inf(-1))
	}
	return d
}

func convert[T number](x []float32) []T {
	if x == nil {
		return nil
	}
	y := make([]T, len(x))
	for i, v := range x {
		y[i] = T(v)
	}
	return y
}

// plainAttention is the definition, every step in T.
func plainAttention[T number](c attention, in attentionData[float32]) (out, lse, high, sums []T) {
	q, k, v, sinks, slopes, bias := convert[T](in.q), convert[T](in.k), convert[T](in.v), convert[T](in.sinks), convert[T](in.slopes), convert[T](in.bias)
	out = make([]T, c.batch*c.seqQ*c.heads*c.dv)
	lift := convert[T](in.lift)
	scale := T(1 / math.Sqrt(float64(c.d)))
	for b := range c.batch {
		for h := range c.heads {
			kh := h / (c.heads / c.kvHeads)
			for i := range c.seqQ {
				p := i + c.seqKV - c.seqQ
				x := make([]T, c.seqKV)
				top := T(math.Inf(-1))
				for j := range x {
					if c.left >= 0 && j < p-c.left || c.right >= 0 && j > p+c.right {
						x[j] = T(math.Inf(-1))
						continue
					}
					for e := range c.d {
						x[j] += q[((b*c.seqQ+i)*c.heads+h)*c.d+e] * k[((b*c.seqKV+j)*c.kvHeads+kh)*c.d+e]
					}
					if lift != nil {
						x[j] += lift[(b*c.heads+h)*c.seqQ+i]
					}
					x[j] *= scale
					if c.softcap > 0 {
						x[j] = T(c.softcap) * T(math.Tanh(float64(x[j])/c.softcap))
					}
					if slopes != nil {
						x[j] -= slopes[h] * T(math.Abs(float64(p-j)))
					}
					if bias != nil {
						at := i*c.seqKV + j
						if !c.oneBias {
							at += (b*c.heads + h) * c.seqQ * c.seqKV
						}
						x[j] += bias[at]
					}
					top = max(top, x[j])
				}
				if math.IsInf(float64(top), -1) {
					lse, high, sums = append(lse, top), append(high, top), append(sums, 0)
					continue
				}
				if sinks != nil {
					top = max(top, sinks[h])
				}
				var sum T
				for j := range x {
					x[j] = T(math.Exp(float64(x[j] - top)))
					sum += x[j]
				}
				if sinks != nil {
					sum += T(math.Exp(float64(sinks[h] - top)))
				}
				lse, high, sums = append(lse, top+T(math.Log(float64(sum)))), append(high, top), append(sums, sum)
				for j := range x {
					for e := range c.dv {
						out[((b*c.seqQ+i)*c.heads+h)*c.dv+e] += T(in.rounded(float64(x[j]))) / sum * v[((b*c.seqKV+j)*c.kvHeads+kh)*c.dv+e]
					}
				}
			}
		}
	}
	return
}

func pitch(d int) int { return (d+7)/8*8 + 4 }

func (c attention) run(s *emulator.Session, in attentionData[float32]) (out, lse, stats []float32, err error) {
	out = make([]float32, c.batch*c.seqQ*c.heads*c.dv)
	lse, stats = make([]float32, c.batch*c.heads*c.seqQ), make([]float32, 2*c.batch*c.heads*c.seqQ)
	pointer := func(x []float32) any {
		if x == nil {
			return nil
		}
		return emulator.In{x}
	}
	side := func(n int) int64 {
		if n < 0 {
			return 1 << 40
		}
		return int64(n)
	}
	var biasBatch, biasHead int64
	if c.bias && !c.oneBias {
		biasHead = int64(c.seqQ * c.seqKV)
		biasBatch = biasHead * int64(c.heads)
	}
	most := 64
	for most < c.dv {
		most *= 2
	}
	g := cudamodules.Geometry{
		Grid: [3]int{(c.seqQ + 63) / 64, c.heads, c.batch}, Block: [3]int{128}, Shared: 4 * (96*pitch(c.d) + 32*pitch(c.dv)),
	}
	err = s.Run("attention", fmt.Sprintf("attention_%d_f32", most), g, emulator.Out{out}, emulator.Out{lse}, emulator.Out{stats},
		emulator.In{in.q}, emulator.In{in.k}, emulator.In{in.v}, pointer(in.sinks), pointer(in.slopes), pointer(in.bias), biasBatch, biasHead,
		int64(c.seqQ), int64(c.seqKV), int64(c.heads), int64(c.kvHeads), int64(c.d), int64(c.dv), side(c.left), side(c.right),
		1/math.Sqrt(float64(c.d)), c.softcap)
	return
}

// worst is the largest error against want; what is not finite must be alike.
func worst[T number](t *testing.T, what string, got []T, want []float64) float64 {
	t.Helper()
	require.Len(t, got, len(want))
	var e float64
	for i, w := range want {
		g := float64(got[i])
		if math.IsInf(w, 0) {
			require.Equal(t, w, g, "%s: element %d", what, i)
			continue
		}
		require.False(t, math.IsNaN(g), "%s: element %d: got NaN, want %v", what, i, w)
		e = max(e, math.Abs(g-w))
	}
	return e
}

// statistics holds the largest logits and the sums that a forward pass leaves to those of float64. A largest logit has the error of a
// log-sum-exp, bar, and one unit in the last place of a logit of 64 more: no sum evens it out. Each of the weights of a sum is at most 1 and
// off by as much of itself as its logit is, by a dozen such units at most.
func (c attention) statistics(t *testing.T, stats []float32, high, sums []float64, bar float64) {
	t.Helper()
	n := len(high)
	require.LessOrEqual(t, worst(t, "largest", stats[:n], high), bar+1e-5)
	require.LessOrEqual(t, worst(t, "sum", stats[n:], sums), 1e-4*float64(c.seqKV))
}

var attentions = []attention{
	{1, 1, 1, 1, 1, 1, 1, -1, -1, 0, false, false, false, false, 0},
	{1, 17, 33, 2, 1, 8, 8, -1, 0, 0, false, false, false, false, 0},
	{2, 65, 65, 2, 2, 59, 59, -1, 0, 0, false, false, false, false, 0},
	{1, 70, 97, 4, 2, 64, 40, 20, 0, 0, true, false, false, false, 0},
	{1, 40, 35, 2, 1, 16, 111, -1, 0, 5, false, true, false, false, 0}, // rows that see no key
	{2, 19, 50, 2, 1, 24, 64, 7, 3, 0, false, false, true, false, 0},
	{1, 66, 66, 2, 2, 32, 32, -1, -1, 3, true, true, true, true, 0},
	{1, 33, 129, 1, 1, 128, 128, -1, 0, 0, false, false, false, false, 4}, // large logits
	{1, 5, 70, 1, 1, 160, 200, -1, 0, 0, true, false, false, false, 0},
}

// The error is at most twice that of the same computation done plainly in float32, or a few roundings of the largest value: results are up
// to about 4, and 1e-6 is four roundings of that; log-sum-exps are up to about 64, and 2e-6 is half of one.
func TestAttention(t *testing.T) {
	s := emulator.Open(t, emulator.Config{})
	for i, c := range attentions {
		if testing.Short() && i%2 == 0 {
			continue
		}
		t.Run(c.name(), func(t *testing.T) {
			in := c.data()
			out, lse, high, sums := plainAttention[float64](c, in)
			plain, plainLSE, _, _ := plainAttention[float32](c, in)
			every(t, s, func() any {
				got, gotLSE, stats, err := c.run(s, in)
				require.NoError(t, err)
				e, bar := worst(t, "out", got, out), 2*worst(t, "plain", plain, out)+1e-6
				require.LessOrEqual(t, e, bar)
				e, bar = worst(t, "lse", gotLSE, lse), 2*worst(t, "plain lse", plainLSE, lse)+2e-6
				require.LessOrEqual(t, e, bar)
				c.statistics(t, stats, high, sums, bar)
				return []any{got, gotLSE, stats}
			})
		})
	}
}
