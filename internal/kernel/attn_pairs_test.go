package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// withPairs skips what needs VDPBF16PS where there is none.
func withPairs(t testing.TB) {
	if !OnlineFused[float32]() || !havePairs {
		t.Skip("needs AVX-512 with BF16")
	}
	restore, err := UsePairs(true)
	require.NoError(t, err)
	t.Cleanup(restore)
}

// roundAll rounds x to BF16.
func roundAll(x []float32) {
	for i := range x {
		x[i] = BFloat16Value(BFloat16Bits(x[i]))
	}
}

// pairs makes an OnlinePairs of s, and words of keys and values.
func (c onlineCase) pairs(s *Online[float32], kts, vs [][]float32) (o *OnlinePairs, ks, values [][]uint32) {
	d := (c.d + 1) / 2
	o = &OnlinePairs{Online: *s, Scale: 1, Pairs: make([]uint32, c.rows*d)}
	o.Online.D, o.Online.Q = d, nil
	two := func(lo, hi float32) uint32 { return uint32(BFloat16Bits(lo)) | uint32(BFloat16Bits(hi))<<16 }
	for r := range c.rows {
		for w := range d {
			hi := float32(0)
			if 2*w+1 < c.d {
				hi = s.Q[r*c.d+2*w+1]
			}
			o.Pairs[r*d+w] = two(s.Q[r*c.d+2*w], hi)
		}
	}
	for n, kt := range kts {
		words := make([]uint32, d*OnlineKeys)
		for w := range d {
			hi := make([]float32, OnlineKeys)
			if 2*w+1 < c.d {
				hi = kt[(2*w+1)*OnlineKeys:][:OnlineKeys]
			}
			PairRows(words[w*OnlineKeys:][:OnlineKeys], kt[2*w*OnlineKeys:][:OnlineKeys], hi)
		}
		keys := min(OnlineKeys, c.keys-n*OnlineKeys)
		v := make([]uint32, (keys+1)/2*s.Ld)
		for p := range (keys + 1) / 2 {
			hi := make([]float32, s.Ld)
			if 2*p+1 < keys {
				hi = vs[n][(2*p+1)*s.Ld:][:s.Ld]
			}
			PairRows(v[p*s.Ld:][:s.Ld], vs[n][2*p*s.Ld:][:s.Ld], hi)
		}
		ks, values = append(ks, words), append(values, v)
	}
	return o, ks, values
}

func (c onlineCase) runPairs(o *OnlinePairs, ks, vs [][]uint32) {
	for n := range ks {
		o.Step(0, c.rows, ks[n], vs[n], n*OnlineKeys, min(OnlineKeys, c.keys-n*OnlineKeys))
	}
}

// Of rounded numbers, scores and sums are exact but for float32's rounding, and the output is off by what each rounded weight is: 2⁻⁸ of
// the sum of weights times |v| at most. A score of up to 130 products is allowed 130 roundings, 2⁻²⁴ each, some 1e-5 of its size; a weight
// twice as much, for the largest score is off as well.
func TestOnlinePairs(t *testing.T) {
	withPairs(t)
	rng := rand.New(rand.NewPCG(51, 52))
	for _, rows := range []int{6, 18} {
		for _, dims := range [][2]int{{64, 64}, {1, 1}, {5, 17}, {16, 40}, {33, 80}, {80, 100}, {3, 128}, {130, 250}} {
			for _, keys := range []int{1, 15, 16, 17, 33, 48, 64, 65, 100, 150} {
				for _, window := range []int{0, 1, 40} {
					for _, causal := range []bool{false, true} {
						c := onlineCase{rows: rows, d: dims[0], dv: dims[1], keys: keys, window: window, causal: causal}
						if testing.Short() && (rows > 12 || dims[0] > 100) && keys%16 != 1 {
							continue
						}
						s, kts, vs, fences := c.fill(rng)
						o, ks, words := c.pairs(s, kts, vs)
						c.runPairs(o, ks, words)
						for _, f := range fences {
							f.intact(t)
						}
						c.checkPairs(t, s, kts, vs)
					}
				}
			}
		}
	}
}

func (c onlineCase) checkPairs(t *testing.T, s *Online[float32], kts, vs [][]float32) {
	t.Helper()
	q := append([]float32(nil), s.Q...)
	roundAll(q)
	for r := range c.rows {
		what := fmt.Sprintf("%+v row %d", c, r)
		top, sum, scores := math.Inf(-1), 0.0, make([]float64, c.keys)
		out, size := make([]float64, s.Ld), make([]float64, s.Ld)
		for j := int(s.Lo[r]); j < int(s.Hi[r]); j++ {
			for p, x := range q[r*c.d:][:c.d] {
				scores[j] += float64(x) * float64(BFloat16Value(BFloat16Bits(kts[j/OnlineKeys][p*OnlineKeys+j%OnlineKeys])))
			}
			top = max(top, scores[j])
		}
		for j := int(s.Lo[r]); j < int(s.Hi[r]); j++ {
			w := math.Exp(scores[j] - top)
			sum += w
			for p := range out {
				v := float64(BFloat16Value(BFloat16Bits(vs[j/OnlineKeys][j%OnlineKeys*s.Ld+p])))
				out[p] += w * v
				size[p] += w * math.Abs(v)
			}
		}
		if sum == 0 {
			require.True(t, math.IsInf(float64(s.RowMax[r]), -1), what)
			continue
		}
		near(t, top, s.RowMax[r], 1e-5*(1+math.Abs(top)), "max of %s", what)
		near(t, sum, s.RowSum[r], 2e-5*(1+math.Abs(top))*sum, "sum of %s", what)
		for p, want := range out {
			near(t, want, s.O[r*s.Ld+p], (0x1p-8+2e-5*(1+math.Abs(top)))*size[p]+1e-7, "output %d of %s", p, what)
		}
	}
}

// Rounding is that of BFloat16Bits, ties to even and NaN included, and no more is written than there is.
func TestPairRows(t *testing.T) {
	withPairs(t)
	special := []float32{0, 1, -1, 1 + 0x1p-8, 1 + 3*0x1p-8, 0x1p-140, math.MaxFloat32, float32(math.Inf(1)), float32(math.NaN()),
		math.Float32frombits(0x7fffffff), math.Float32frombits(0xff800001), math.Float32frombits(0x3f808001)}
	for n := range 70 {
		a, b, dst := make([]float32, n), make([]float32, n), make([]uint32, n+1)
		for i := range n {
			a[i], b[i] = special[i%len(special)], special[(i*5+n)%len(special)]
		}
		dst[n] = 7
		PairRows(dst[:n], a, b)
		require.EqualValues(t, 7, dst[n])
		for i := range n {
			for half, x := range []float32{a[i], b[i]} {
				got, want := uint16(dst[i]>>(16*half)), BFloat16Bits(x)
				if x != x {
					require.True(t, math.IsNaN(float64(BFloat16Value(got))))
					continue
				}
				require.Equal(t, want, got, "%v", x)
			}
		}
	}
}

func BenchmarkOnlinePairs(b *testing.B) {
	withPairs(b)
	for _, d := range []int{64, 128} {
		for _, pairs := range []bool{false, true} {
			b.Run(fmt.Sprintf("d=%d/pairs=%t", d, pairs), func(b *testing.B) {
				c := onlineCase{rows: 96, d: d, dv: d, keys: 64}
				s, kts, vs, _ := c.fill(rand.New(rand.NewPCG(1, 1)))
				o, ks, words := c.pairs(s, kts, vs)
				run := func() { c.run(s, kts, vs) }
				if pairs {
					run = func() { c.runPairs(o, ks, words) }
				}
				flops(2*float64(c.rows*c.keys*(c.d+s.Ld)), 1).Run(b, run)
			})
		}
	}
}
