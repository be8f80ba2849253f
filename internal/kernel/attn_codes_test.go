package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// fillCodes is fill in codes whose scales have few digits, so that codes times scales, in Q and kts, are exact.
func (c onlineCase) fillCodes(rng *rand.Rand) (s *OnlineCodes, keys [][]uint8, scales, kts, vs [][]float32, fences []*fenced) {
	o, kts, vs, fences := c.fill(rng)
	words := (c.d + 3) / 4
	s = &OnlineCodes{Online: *o, Codes: make([]int8, c.rows*4*words), Sum: make([]int32, c.rows)}
	s.D = words
	scale := func() float32 { return float32(1+rng.IntN(7)) / 256 }
	code := func() int8 { return int8(rng.IntN(255) - 127) }
	f := fencedCopy(make([]float32, c.rows), 1)
	s.Scale, fences = f.data, append(fences, f)
	for r := range c.rows {
		s.Scale[r] = scale()
		for p := range c.d {
			x := code()
			s.Codes[r*4*words+p] = x
			s.Sum[r] -= 128 * int32(x)
			s.Q[r*c.d+p] = float32(x) * s.Scale[r]
		}
	}
	for n := range kts {
		k, ks := make([]uint8, 4*words*OnlineKeys), make([]float32, OnlineKeys)
		for i := range k {
			k[i] = uint8(rng.IntN(256)) // what is filled up counts nothing
		}
		for j := range min(OnlineKeys, c.keys-n*OnlineKeys) {
			ks[j] = scale()
			for p := range c.d {
				x := code()
				k[(p/4*OnlineKeys+j)*4+p%4] = uint8(x) ^ 0x80
				kts[n][p*OnlineKeys+j] = float32(x) * ks[j]
			}
		}
		keys, scales = append(keys, k), append(scales, ks)
	}
	return s, keys, scales, kts, vs, fences
}

func (c onlineCase) runCodes(s *OnlineCodes, keys [][]uint8, scales, vs [][]float32) {
	for n := range keys {
		s.Step(0, c.rows, keys[n], scales[n], vs[n], n*OnlineKeys, min(OnlineKeys, c.keys-n*OnlineKeys))
	}
}

func TestOnlineCodes(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(33, 34))
		for _, rows := range []int{6, 18} {
			for _, dims := range [][2]int{{64, 64}, {1, 1}, {5, 17}, {33, 80}, {3, 128}, {250, 250}} {
				for _, keys := range []int{1, 16, 33, 64, 65, 150} {
					for _, window := range []int{0, 40} {
						for _, causal := range []bool{false, true} {
							c := onlineCase{rows: rows, d: dims[0], dv: dims[1], keys: keys, window: window, causal: causal}
							s, codes, scales, kts, vs, fences := c.fillCodes(rng)
							c.runCodes(s, codes, scales, vs)
							for _, f := range fences {
								f.intact(t)
							}
							o := s.Online
							o.D = c.d
							c.check(t, &o, kts, vs)
						}
					}
				}
			}
		}
	})
}

// Scores have the same bits everywhere: the largest of each row shows it.
func TestScoresOfCodesAreTheSameEverywhere(t *testing.T) {
	c := onlineCase{rows: 12, d: 100, dv: 16, keys: 130, causal: true}
	var want []float32
	forEachISA(t, func(t *testing.T) {
		s, codes, scales, _, vs, _ := c.fillCodes(rand.New(rand.NewPCG(5, 5)))
		for i := range s.Scale {
			s.Scale[i] = 0.001 + float32(i)/300
		}
		c.runCodes(s, codes, scales, vs)
		if want == nil {
			want = s.RowMax
		}
		require.Equal(t, want, s.RowMax)
	})
}

func TestOnlineCodesChecks(t *testing.T) {
	for want, change := range map[string]func(s *OnlineCodes) (r0, r1, n int){
		"got rows 1 to 7":         func(*OnlineCodes) (int, int, int) { return 1, 7, 10 },
		"65 keys":                 func(*OnlineCodes) (int, int, int) { return 0, 6, OnlineKeys + 1 },
		"kernel: Codes: got":      func(s *OnlineCodes) (int, int, int) { s.Codes = s.Codes[:95]; return 0, 12, 10 },
		"OnlineCodes.Step: 11 ro": func(s *OnlineCodes) (int, int, int) { s.Sum = s.Sum[:11]; return 0, 12, 10 },
	} {
		s, keys, scales, _, vs, _ := onlineCase{rows: 12, d: 8, dv: 16, keys: OnlineKeys}.fillCodes(rand.New(rand.NewPCG(3, 3)))
		r0, r1, n := change(s)
		func() {
			defer func() { require.Contains(t, fmt.Sprint(recover()), want) }()
			s.Step(r0, r1, keys[0], scales[0], vs[0], 0, n)
		}()
	}
}
