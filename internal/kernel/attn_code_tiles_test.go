package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// codeTilesRun is an OnlineCodeTiles with its keys and values.
type codeTilesRun struct {
	*OnlineCodeTiles
	ks     [][]int8
	scales [][]float32
	vs     [][]uint16
}

// packCodes brings what fillCodes has made into tiles. vs is rounded to BF16.
func (c tilesCase) packCodes(s *OnlineCodes, keys [][]uint8, scales, vs [][]float32) *codeTilesRun {
	d := ceilTo(c.d, 64)
	t := &codeTilesRun{scales: scales, OnlineCodeTiles: &OnlineCodeTiles{
		OnlineTiles: OnlineTiles{D: d, Ld: s.Ld, O: make([]float32, c.rows*s.Ld), RowMax: s.RowMax, RowSum: s.RowSum, Lo: s.Lo, Hi: s.Hi, Work: alignedFloats(TileWork)},
		Codes:       make([]int8, c.rows*d), RowScale: s.Scale}}
	for r := range c.rows {
		for p, x := range s.Codes[r*4*s.D:][:4*s.D] {
			t.Codes[r/16*16*d+(p/4*16+r%16)*4+p%4] = x
		}
	}
	var bounds [20]PieceBounds
	for n := range keys {
		k := make([]int8, TileKeys*d)
		for j := range TileKeys {
			for p := range c.d {
				k[j/16*16*d+p/64*CodeTileBytes+j%16*64+p%64] = int8(keys[n][(p/4*OnlineKeys+j)*4+p%4] ^ 0x80)
			}
		}
		for i, x := range vs[n] {
			vs[n][i] = BFloat16Value(BFloat16Bits(x))
		}
		count := min(OnlineKeys, c.keys-n*OnlineKeys)
		v := poisoned(PiecesLen(s.Ld, count))
		PackPiecesA(v, Matrix[float32]{vs[n], c.dv, count, 1, s.Ld}, bounds[:])
		t.ks, t.vs = append(t.ks, k), append(t.vs, v)
	}
	return t
}

func (t *codeTilesRun) run(c tilesCase) {
	for n := range t.ks {
		t.Step(0, c.rows/TileQueries, t.ks[n], t.scales[n], t.vs[n], n*TileKeys, min(TileKeys, c.keys-n*TileKeys))
	}
}

func TestOnlineCodeTiles(t *testing.T) {
	needTiles(t)
	rng := rand.New(rand.NewPCG(43, 44))
	for _, rows := range []int{32, 96} {
		for _, dims := range [][2]int{{64, 64}, {1, 1}, {5, 17}, {33, 80}, {3, 128}, {250, 250}} {
			for _, keys := range []int{1, 17, 32, 64, 65, 150} {
				for _, window := range []int{0, 40} {
					for _, causal := range []bool{false, true} {
						c := tilesCase{onlineCase: onlineCase{rows: rows, d: dims[0], dv: dims[1], keys: keys, window: window, causal: causal}}
						s, codes, scales, kts, vs, _ := c.fillCodes(rng)
						run := c.packCodes(s, codes, scales, vs)
						run.run(c)
						o := s.Online
						o.D = c.d
						o.O = (&tilesRun{OnlineTiles: &run.OnlineTiles}).rows()
						for i := range vs { // columns beyond dv are of no meaning
							for r := c.dv; r < len(vs[i]); r += o.Ld {
								clear(vs[i][r : r+o.Ld-c.dv])
							}
						}
						for r := c.dv; r < len(o.O); r += o.Ld {
							clear(o.O[r : r+o.Ld-c.dv])
						}
						c.checkTiles(t, &o, kts, vs)
					}
				}
			}
		}
	}
}

// The scores are those of OnlineCodes to the bit: where each row sees one key, its RowMax is the score.
func TestScoresOfCodeTilesAreThoseOfCodes(t *testing.T) {
	needTiles(t)
	c := tilesCase{onlineCase: onlineCase{rows: 64, d: 100, dv: 16, keys: 64, window: 1, causal: true}}
	s, codes, scales, _, vs, _ := c.fillCodes(rand.New(rand.NewPCG(5, 5)))
	for i := range s.Scale {
		s.Scale[i] = 0.001 + float32(i)/300
	}
	run := c.packCodes(s, codes, scales, vs)
	run.RowMax = allOf(c.rows, float32(math.Inf(-1)))
	run.RowSum = allOf(c.rows, 0)
	run.run(c)
	s.Lo, s.Hi = append(s.Lo, 0, 0), append(s.Hi, 0, 0)
	six := *s
	six.Codes, six.Scale, six.Sum = append(s.Codes, make([]int8, 2*4*s.D)...), append(s.Scale, 0, 0), append(s.Sum, 0, 0)
	six.RowMax, six.RowSum, six.O = allOf(66, float32(math.Inf(-1))), allOf(66, 0), allOf(66*s.Ld, 0)
	six.Lo[64], six.Lo[65], six.Hi[64], six.Hi[65] = six.Lo[63], six.Lo[63], six.Hi[63], six.Hi[63]
	six.Step(0, 66, codes[0], scales[0], vs[0], 0, 64)
	require.Equal(t, six.RowMax[:64], run.RowMax)
}
