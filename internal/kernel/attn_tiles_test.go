package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// tilesCase is an onlineCase on tiles: rows is a multiple of TileQueries.
type tilesCase struct {
	onlineCase
	half bool
}

// tilesRun is an OnlineTiles with its keys and values in pieces.
type tilesRun struct {
	*OnlineTiles
	ks, vs [][]uint16
}

// pack cuts what fill has made. The state is that of s from the beginning.
func (c tilesCase) pack(s *Online[float32], kts, vs [][]float32, rounded bool) *tilesRun {
	length, packA, packB := PiecesLen, PackPiecesA, PackPiecesB
	if rounded {
		length, packA, packB = RoundedLen, PackRoundedA, PackRoundedB
	}
	packKeys := packA
	if c.half {
		packKeys, packB = PackHalfA, PackHalfB
	}
	group := length(TileQueries, c.d)
	t := &tilesRun{OnlineTiles: &OnlineTiles{D: c.d, Ld: s.Ld, Scale: 1, Rounded: rounded, Half: c.half, O: make([]float32, c.rows*s.Ld), RowMax: s.RowMax, RowSum: s.RowSum,
		Lo: s.Lo, Hi: s.Hi, Work: alignedFloats(TileWork), Q: poisoned(c.rows / TileQueries * group)}}
	var bounds [20]PieceBounds
	for g := range c.rows / TileQueries {
		packB(t.Q[g*group:], RowMajor(s.Q[g*TileQueries*c.d:], TileQueries, c.d).T(), bounds[:])
	}
	for n := range kts {
		keys := min(OnlineKeys, c.keys-n*OnlineKeys)
		k, v := poisoned(length(TileKeys, c.d)), poisoned(length(s.Ld, keys))
		packKeys(k, Matrix[float32]{kts[n], keys, c.d, 1, OnlineKeys}, bounds[:])
		packA(v, Matrix[float32]{vs[n], c.dv, keys, 1, s.Ld}, bounds[:])
		t.ks, t.vs = append(t.ks, k), append(t.vs, v)
	}
	return t
}

// poisoned pieces are NaN, where they are not written.
func poisoned(n int) []uint16 {
	x := alignedPieces(n)
	for i := range x {
		x[i] = 0x7fc0
	}
	return x
}

func (t *tilesRun) run(c tilesCase, g0, g1 int) {
	for n := range t.ks {
		t.Step(g0, g1, t.ks[n], t.vs[n], n*TileKeys, min(TileKeys, c.keys-n*TileKeys))
	}
}

// rows turns the output to rows.
func (t *tilesRun) rows() []float32 {
	o := make([]float32, len(t.O))
	for g := 0; g < len(t.O); g += TileQueries * t.Ld {
		Transpose(o[g:], t.Ld, t.O[g:], TileQueries, t.Ld, TileQueries, 1)
	}
	return o
}

func alignedFloats(n int) []float32 {
	x := make([]float32, n+16)
	skip := int(-uintptr(pointer(x))&63) / 4
	return x[skip:][:n]
}

func needTiles(t testing.TB) {
	if !TilesFused[float32]() {
		t.Skip("needs AMX tiles of BF16")
	}
}

func TestOnlineTiles(t *testing.T) {
	needTiles(t)
	rng := rand.New(rand.NewPCG(41, 42))
	for _, rows := range []int{32, 96} {
		for _, dims := range [][2]int{{64, 64}, {1, 1}, {5, 17}, {16, 40}, {33, 80}, {80, 100}, {3, 128}, {130, 250}, {256, 16}} {
			for _, keys := range []int{1, 15, 17, 32, 33, 64, 65, 100, 150} {
				for _, window := range []int{0, 1, 40} {
					for _, causal := range []bool{false, true} {
						c := tilesCase{onlineCase: onlineCase{rows: rows, d: dims[0], dv: dims[1], keys: keys, window: window, causal: causal}}
						if testing.Short() && (rows > 32 || dims[0] > 100) && keys%16 != 1 {
							continue
						}
						c.checkRun(t, rng)
					}
				}
			}
		}
	}
}

// A last step of 16 numbers or fewer takes half of one, after any number of whole steps.
func TestOnlineTilesOfHalfAStep(t *testing.T) {
	needTiles(t)
	rng := rand.New(rand.NewPCG(45, 46))
	for d := 33; d <= 256; d++ {
		if !HalfStep(d) {
			require.True(t, d%32 == 0 || d%32 > 16, "d=%d", d)
			continue
		}
		for _, keys := range []int{64, 1 + d%150} {
			c := tilesCase{onlineCase: onlineCase{rows: 96, d: d, dv: 33, keys: keys, causal: d%2 == 0}, half: true}
			c.checkRun(t, rng)
		}
	}
	c := tilesCase{onlineCase: onlineCase{rows: 32, d: 64, dv: 16, keys: 64}}
	s, kts, vs, _ := c.fill(rng)
	run := c.pack(s, kts, vs, false)
	run.Half = true
	require.PanicsWithValue(t, "kernel: OnlineTiles.Step: got half a step of keys of 64, want 33 to 48 of 64 and so on, in three pieces",
		func() { run.run(c, 0, 1) })
}

// Pieces of rows that lie side by side are those of columns that do, and bounds those of all numbers.
func TestPackHalf(t *testing.T) {
	needTiles(t)
	const lines, k = 21, 77
	x := make([]float32, lines*k)
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	a := RowMajor(x, lines, k)
	turned := make([]float32, lines*k)
	Transpose(turned, lines, x, k, lines, k, 1)
	var want, got [2]PieceBounds
	PackPiecesA(poisoned(PiecesLen(lines, k)), a, want[:])
	rows, columns := poisoned(PiecesLen(2*PieceLines, k)), poisoned(PiecesLen(2*PieceLines, k))
	PackHalfA(rows, a, got[:])
	require.Equal(t, want, got)
	PackHalfA(columns, RowMajor(turned, k, lines).T(), got[:])
	for i := range lines {
		for p := range PiecesLen(16, k) / 512 { // what is beyond the last line is of no meaning
			at := i/16*PiecesLen(16, k) + 512*p + 32*(i%16)
			require.Equal(t, rows[at:at+32], columns[at:at+32], "line %d", i)
		}
	}
}

// checkRun fills, runs and checks all rows.
func (c tilesCase) checkRun(t *testing.T, rng *rand.Rand) {
	t.Helper()
	s, kts, vs, _ := c.fill(rng)
	run := c.pack(s, kts, vs, false)
	run.run(c, 0, c.rows/TileQueries)
	s.O = run.rows()
	for i := range vs { // columns beyond dv are of no meaning
		for r := c.dv; r < len(vs[i]); r += s.Ld {
			clear(vs[i][r : r+s.Ld-c.dv])
		}
	}
	for r := c.dv; r < len(s.O); r += s.Ld {
		clear(s.O[r : r+s.Ld-c.dv])
	}
	c.checkTiles(t, s, kts, vs)
}

// checkTiles is check for rows whose RowMax is within the slack of the largest score.
func (c tilesCase) checkTiles(t *testing.T, s *Online[float32], kts, vs [][]float32) {
	t.Helper()
	for r := range c.rows {
		top := math.Inf(-1)
		for j := int(s.Lo[r]); j < int(s.Hi[r]); j++ {
			x := 0.0
			for p, q := range s.Q[r*c.d:][:c.d] {
				x += float64(q) * float64(kts[j/OnlineKeys][p*OnlineKeys+j%OnlineKeys])
			}
			top = max(top, x)
		}
		got := float64(s.RowMax[r])
		if math.IsInf(top, -1) {
			require.Equal(t, top, got, "%+v row %d", c, r)
			continue
		}
		require.True(t, got <= top+1e-4 && got >= top-5.5001, "%+v row %d: shift %v for a largest score of %v", c, r, got, top)
		// Seen from the true maximum it is what Online computes.
		scale := float32(math.Exp(got - top))
		s.RowMax[r] = float32(top)
		s.RowSum[r] *= scale
		for p := range s.O[r*s.Ld:][:s.Ld] {
			s.O[r*s.Ld+p] *= scale
		}
	}
	c.check(t, s, kts, vs)
}

// What the assembly does not take is reported: rows of more than 256 would make it write weights without end.
func TestOnlineTilesChecks(t *testing.T) {
	needTiles(t)
	c := tilesCase{onlineCase: onlineCase{rows: 64, d: 257, dv: 16, keys: 64}}
	s, kts, vs, _ := c.fill(rand.New(rand.NewPCG(3, 3)))
	run := c.pack(s, kts, vs, false)
	require.PanicsWithValue(t, "kernel: OnlineTiles.Step: got groups from 0, 64 keys of 257, values in rows of 16, scale 1, want 0, 1 to 64 of 1 to 256, a multiple of 16, more than 0",
		func() { run.run(c, 0, 2) })
}

// Groups do not depend on each other.
func TestOnlineTilesInPieces(t *testing.T) {
	needTiles(t)
	c := tilesCase{onlineCase: onlineCase{rows: 128, d: 40, dv: 48, keys: 190, causal: true}}
	make := func() *tilesRun {
		s, kts, vs, _ := c.fill(rand.New(rand.NewPCG(2, 2)))
		return c.pack(s, kts, vs, false)
	}
	whole, parts := make(), make()
	whole.run(c, 0, 4)
	for _, g := range []int{3, 0, 2, 1} {
		parts.run(c, g, g+1)
	}
	require.Equal(t, whole.O, parts.O)
	require.Equal(t, whole.RowSum, parts.RowSum)
}

// Of rounded numbers, scores are those of the rounded ones, and each weight is off by half a step of BF16 at most. With values of 1 the
// output is the sum of the rounded weights, which must not drift from that of the weights.
func TestOnlineTilesRounded(t *testing.T) {
	needTiles(t)
	rng := rand.New(rand.NewPCG(43, 44))
	for _, keys := range []int{7, 64, 330} {
		c := tilesCase{onlineCase: onlineCase{rows: 64, d: 70, dv: 40, keys: keys, causal: true}}
		s, kts, vs, _ := c.fill(rng)
		round := func(x []float32) {
			for i := range x {
				x[i] = BFloat16Value(BFloat16Bits(x[i]))
			}
		}
		for n := range kts {
			for p := range vs[n] {
				vs[n][p] = 1
			}
		}
		run := c.pack(s, kts, vs, true)
		run.run(c, 0, 2)
		round(s.Q)
		for _, kt := range kts {
			round(kt)
		}
		o := run.rows()
		for r := range c.rows {
			sum := 0.0
			for j := int(s.Lo[r]); j < int(s.Hi[r]); j++ {
				x := 0.0
				for p, q := range s.Q[r*c.d:][:c.d] {
					x += float64(q) * float64(kts[j/OnlineKeys][p*OnlineKeys+j%OnlineKeys])
				}
				sum += math.Exp(x - float64(s.RowMax[r]))
			}
			if sum == 0 {
				continue
			}
			near(t, 1, float32(float64(s.RowSum[r])/sum), 1e-5, "sum of row %d", r)
			near(t, 1, float32(float64(o[r*s.Ld])/sum), 0x1p-8, "rounded weights of row %d", r)
		}
	}
}

func BenchmarkOnlineTiles(b *testing.B) {
	needTiles(b)
	for n := range 8 {
		d, rounded := []int{64, 80, 96, 128}[n%4], n >= 4
		b.Run(fmt.Sprintf("d=%d/rounded=%t", d, rounded), func(b *testing.B) {
			c := tilesCase{onlineCase: onlineCase{rows: 576, d: d, dv: d, keys: 64}, half: !rounded && HalfStep(d)}
			s, kts, vs, _ := c.fill(rand.New(rand.NewPCG(1, 1)))
			run := c.pack(s, kts, vs, rounded)
			flops(2*float64(c.rows*c.keys*(c.d+s.Ld)), 1).Run(b, func() { run.run(c, 0, c.rows/TileQueries) })
		})
	}
}

func alignedPieces(n int) []uint16 {
	x := make([]uint16, n+32)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(x)))&63) / 2
	return x[skip:][:n]
}

// Weights below 2⁻¹¹⁰ have pieces that are no numbers of BF16; what is cut off of one must not become part of another.
func TestOnlineTilesWithTinyWeights(t *testing.T) {
	needTiles(t)
	for seed := range uint64(20) {
		c := tilesCase{onlineCase: onlineCase{rows: 32, d: 64, dv: 16, keys: 64}}
		s, kts, vs, _ := c.fill(rand.New(rand.NewPCG(seed, 7)))
		for i := range s.Q {
			s.Q[i] *= 4
		}
		run := c.pack(s, kts, vs, false)
		run.run(c, 0, 1)
		s.O = run.rows()
		c.checkTiles(t, s, kts, vs)
	}
}
