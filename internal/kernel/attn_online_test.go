package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// onlineCase is an Online of float32 between fence posts, over several panels of keys.
type onlineCase struct {
	rows, d, dv, keys int
	window            int // keys that a row sees before its last; 0 for all
	causal            bool
}

// fill makes rows, keys in panels and values. Where a panel of keys ends early lie fence posts, NaN.
func (c onlineCase) fill(rng *rand.Rand) (s *Online[float32], kts, vs [][]float32, fences []*fenced) {
	fence := func(x []float32) []float32 {
		f := fencedCopy(x, 1)
		fences = append(fences, f)
		return f.data
	}
	inf := float32(math.Inf(-1))
	ld := ceilTo(c.dv, 16)
	s = &Online[float32]{D: c.d, Ld: ld, Q: fence(randoms(rng, c.rows*c.d, 1)), O: fence(allOf(c.rows*ld, 0)),
		RowMax: fence(allOf(c.rows, inf)), RowSum: fence(allOf(c.rows, 0)), Work: fence(allOf(OnlineWork, fencePost))}
	for r := range c.rows {
		lo, hi := 0, c.keys
		if c.causal {
			hi = min(max(r+c.keys-c.rows+1, 0), c.keys)
		}
		if c.window > 0 {
			lo = min(max(hi-c.window, 0), hi)
		}
		s.Lo, s.Hi = append(s.Lo, int32(lo)), append(s.Hi, int32(hi))
	}
	for j := 0; j < c.keys; j += OnlineKeys {
		n := min(OnlineKeys, c.keys-j)
		kt := allOf(c.d*OnlineKeys, fencePost)
		for p := range c.d {
			copy(kt[p*OnlineKeys:][:n], randoms(rng, n, 1))
		}
		kts, vs = append(kts, fence(kt)), append(vs, fence(randoms(rng, n*ld, 1)))
	}
	return s, kts, vs, fences
}

func (c onlineCase) run(s *Online[float32], kts, vs [][]float32) {
	for n := range kts {
		s.Step(0, c.rows, kts[n], vs[n], n*OnlineKeys, min(OnlineKeys, c.keys-n*OnlineKeys))
	}
}

// check compares with softmax in float64.
func (c onlineCase) check(t *testing.T, s *Online[float32], kts, vs [][]float32) {
	t.Helper()
	for r := range c.rows {
		top, sum, out, size := math.Inf(-1), 0.0, make([]float64, s.Ld), 0.0
		scores := make([]float64, c.keys)
		for j := int(s.Lo[r]); j < int(s.Hi[r]); j++ {
			abs := 0.0
			for p, q := range s.Q[r*c.d:][:c.d] {
				x := float64(q) * float64(kts[j/OnlineKeys][p*OnlineKeys+j%OnlineKeys])
				scores[j] += x
				abs += math.Abs(x)
			}
			size = max(size, abs)
			top = max(top, scores[j])
		}
		for j := int(s.Lo[r]); j < int(s.Hi[r]); j++ {
			w := math.Exp(scores[j] - top)
			sum += w
			for p := range out {
				out[p] += w * float64(vs[j/OnlineKeys][j%OnlineKeys*s.Ld+p])
			}
		}
		what := fmt.Sprintf("%+v row %d", c, r)
		if sum == 0 {
			require.True(t, math.IsInf(float64(s.RowMax[r]), -1), what)
		}
		tol := half * (4 + size*math.Sqrt(float64(c.d)) + math.Sqrt(float64(c.keys)))
		near(t, top, s.RowMax[r], tol, "max of %s", what)
		near(t, sum, s.RowSum[r], 8*tol*(1+sum), "sum of %s", what)
		for p, want := range out {
			near(t, want, s.O[r*s.Ld+p], 16*tol*(1+sum), "output %d of %s", p, what)
		}
	}
}

func TestOnline(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(31, 32))
		for _, rows := range []int{6, 12, 30} {
			for _, dims := range [][2]int{{64, 64}, {1, 1}, {5, 17}, {16, 40}, {33, 80}, {80, 100}, {3, 128}, {130, 250}} {
				for _, keys := range []int{1, 15, 16, 17, 33, 48, 64, 65, 100, 150} {
					for _, window := range []int{0, 1, 40} {
						for _, causal := range []bool{false, true} {
							c := onlineCase{rows: rows, d: dims[0], dv: dims[1], keys: keys, window: window, causal: causal}
							if testing.Short() && (rows > 12 || dims[0] > 100) && keys%16 != 1 {
								continue
							}
							s, kts, vs, fences := c.fill(rng)
							c.run(s, kts, vs)
							for _, f := range fences {
								f.intact(t)
							}
							c.check(t, s, kts, vs)
						}
					}
				}
			}
		}
	})
}

// A NaN or infinity in a query stays in its row, one in a key in the rows that see it.
func TestOnlineKeepsNaNWhereItBelongs(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		c := onlineCase{rows: 12, d: 8, dv: 16, keys: 100, causal: true}
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			clean, kts, vs, _ := c.fill(rand.New(rand.NewPCG(1, 1)))
			c.run(clean, kts, vs)
			sick, kts, vs, _ := c.fill(rand.New(rand.NewPCG(1, 1)))
			sick.Q[4*c.d+3] = bad
			kts[1][2*OnlineKeys+30] = bad // key 94, which row 6 is the first to see
			c.run(sick, kts, vs)
			for r := range c.rows {
				same := fmt.Sprint(clean.O[r*16:][:16], clean.RowSum[r]) == fmt.Sprint(sick.O[r*16:][:16], sick.RowSum[r])
				switch {
				case r == 4:
					require.True(t, math.IsNaN(float64(sick.RowSum[r])), "%v in query %d: sum %v", bad, r, sick.RowSum[r])
				case r < 6:
					require.True(t, same, "%v: row %d changed", bad, r)
				}
			}
		}
	})
}

// The order of rows in calls, and where calls are cut, does not change a bit.
func TestOnlineInPieces(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		c := onlineCase{rows: 24, d: 20, dv: 32, keys: 130, causal: true}
		whole, kts, vs, _ := c.fill(rand.New(rand.NewPCG(2, 2)))
		c.run(whole, kts, vs)
		parts, kts, vs, _ := c.fill(rand.New(rand.NewPCG(2, 2)))
		for n := range kts {
			for _, r := range []int{18, 0, 6, 12} {
				parts.Step(r, r+6, kts[n], vs[n], n*OnlineKeys, min(OnlineKeys, c.keys-n*OnlineKeys))
			}
		}
		require.Equal(t, whole.O, parts.O)
		require.Equal(t, whole.RowSum, parts.RowSum)
	})
}

// What assembly would read or write beyond its operands is refused.
func TestOnlineChecks(t *testing.T) {
	for want, change := range map[string]func(s *Online[float32]) (r0, r1, n int){
		"got rows 1 to 7":        func(*Online[float32]) (int, int, int) { return 1, 7, 10 },
		"got rows 0 to 8":        func(*Online[float32]) (int, int, int) { return 0, 8, 10 },
		"65 keys":                func(*Online[float32]) (int, int, int) { return 0, 6, OnlineKeys + 1 },
		"values in rows of 17":   func(s *Online[float32]) (int, int, int) { s.Ld = 17; return 0, 6, 10 },
		"values in rows of 272":  func(s *Online[float32]) (int, int, int) { s.Ld = 272; return 0, 6, 10 },
		"kernel: Q: got":         func(*Online[float32]) (int, int, int) { return 0, 18, 10 },
		"Online.Step: 11 row":    func(s *Online[float32]) (int, int, int) { s.Hi = s.Hi[:11]; return 0, 12, 10 },
		"kernel: Work: got 1023": func(s *Online[float32]) (int, int, int) { s.Work = s.Work[:1023]; return 0, 12, 10 },
	} {
		s, kts, vs, _ := onlineCase{rows: 12, d: 8, dv: 16, keys: OnlineKeys}.fill(rand.New(rand.NewPCG(3, 3)))
		r0, r1, n := change(s)
		func() {
			defer func() { require.Contains(t, fmt.Sprint(recover()), want) }()
			s.Step(r0, r1, kts[0], vs[0], 0, n)
		}()
	}
}

func BenchmarkOnline(b *testing.B) {
	for _, d := range []int{64, 80, 96, 128} {
		b.Run(fmt.Sprintf("d=%d", d), func(b *testing.B) {
			c := onlineCase{rows: 576, d: d, dv: d, keys: 64}
			s, kts, vs, _ := c.fill(rand.New(rand.NewPCG(1, 1)))
			s.Q, s.O = append([]float32(nil), s.Q...), append([]float32(nil), s.O...)
			kt, v := append([]float32(nil), kts[0]...), append([]float32(nil), vs[0]...)
			flops(2*float64(c.rows*c.keys*(c.d+s.Ld)), 1).Run(b, func() { s.Step(0, c.rows, kt, v, 0, c.keys) })
		})
	}
}
