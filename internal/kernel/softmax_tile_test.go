package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// scoreTile is a rows×n tile with stride ld between fence posts; the gaps of the stride are fence posts too.
type scoreTile struct {
	*fenced
	ld, rows, n int
}

func newScoreTile(rng *rand.Rand, rows, n, ld int, scale float64) scoreTile {
	size := 0
	if rows > 0 && n > 0 {
		size = (rows-1)*ld + n
	}
	s := scoreTile{newFenced(size, 1), ld, rows, n}
	for r := range rows {
		copy(s.row(r), randoms(rng, n, scale))
	}
	return s
}

func (s scoreTile) row(r int) []float32 { return tileRow(s.data, s.ld, r, s.n) }

func (s scoreTile) copy() scoreTile {
	c := scoreTile{newFenced(len(s.data), 1), s.ld, s.rows, s.n}
	copy(c.data, s.data)
	return c
}

func (s scoreTile) check(t *testing.T) {
	t.Helper()
	s.intact(t)
	for r := range max(s.rows-1, 0) {
		for i := r*s.ld + s.n; s.n > 0 && i < (r+1)*s.ld; i++ {
			if math.Float32bits(s.data[i]) != math.Float32bits(fencePost) {
				require.Failf(t, "written between rows", "after row %d of %d×%d", r, s.rows, s.n)
			}
		}
	}
}

// tileShapes calls f for row counts around the group of four and widths around the vectors, with and without gaps.
func tileShapes(f func(rows, n, ld int)) {
	for _, rows := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 13} {
		for _, n := range []int{0, 1, 2, 7, 8, 9, 15, 16, 17, 23, 31, 32, 33, 59, 97, 256} {
			f(rows, n, n+rows%3)
		}
	}
	if !testing.Short() {
		f(300, 256, 259) // more than one assembly call
	}
}

func allOf(n int, v float32) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = v
	}
	return x
}

// TestSoftmaxStep feeds three tiles in turn and compares with the softmax of the whole rows in float64.
func TestSoftmaxStep(t *testing.T) {
	inf := float32(math.Inf(-1))
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(21, 22))
		tileShapes(func(rows, n, ld int) {
			rowMax, rowSum, alpha := fencedCopy(allOf(rows, inf), 1), fencedCopy(allOf(rows, 0), 2), newFenced(rows, 3)
			sums := make([]float64, rows) // of e^(s−max so far)
			tops := make([]float64, rows)
			for r := range tops {
				tops[r] = math.Inf(-1)
			}
			for step := range 3 {
				s := newScoreTile(rng, rows, n, ld, 8)
				for r := range rows {
					// Some keys are masked; row 1 sees nothing before step 2, row 2 nothing at all.
					for j := range s.row(r) {
						if rng.IntN(5) == 0 || r == 1 && step < 2 || r == 2 {
							s.row(r)[j] = inf
						}
					}
				}
				before := s.copy()
				SoftmaxStep(s.data, ld, rows, n, rowMax.data, rowSum.data, alpha.data)
				s.check(t)
				for _, g := range []*fenced{rowMax, rowSum, alpha} {
					g.intact(t)
				}
				for r := range rows {
					old := tops[r]
					for _, v := range before.row(r) {
						tops[r] = max(tops[r], float64(v))
					}
					a := 1.0
					if !math.IsInf(tops[r], -1) {
						a = math.Exp(old - tops[r])
					}
					sums[r] *= a
					near(t, tops[r], rowMax.data[r], 0, "rowMax")
					near(t, a, alpha.data[r], a*expBar(old-tops[r]), "alpha of row %d, %d×%d step %d", r, rows, n, step)
					for j, v := range before.row(r) {
						p := 0.0
						if !math.IsInf(float64(v), -1) {
							p = math.Exp(float64(v) - tops[r])
						}
						sums[r] += p
						near(t, p, s.row(r)[j], p*expBar(float64(v)-tops[r])+0x1p-126, "p[%d,%d] of %d×%d step %d", r, j, rows, n, step)
					}
					near(t, sums[r], rowSum.data[r], sums[r]*4e-6, "rowSum of row %d, %d×%d step %d", r, rows, n, step)
				}
			}
		})
	})
}

// expBar is the relative error of e^x in float32: the polynomial's 1e-7, its roundings, and those of the argument and of its
// product with log₂e, itself rounded.
func expBar(x float64) float64 {
	if math.IsInf(x, 0) {
		return 0
	}
	return 2.2e-7 + math.Abs(x)*(2*half+1.4e-8)
}

// The largest score of a row has the weight 1, exactly.
func TestSoftmaxStepOfTheMaximumIsOne(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		for _, v := range []float32{0, 1, -1, 1e4, -1e4, 3e38, -3e38, 1e-40} {
			s, m, l, a := []float32{v}, []float32{float32(math.Inf(-1))}, []float32{0}, []float32{5}
			SoftmaxStep(s, 1, 1, 1, m, l, a)
			require.Equal(t, []float32{1, v, 1, 0}, []float32{s[0], m[0], l[0], a[0]})
		}
	})
}

func TestSoftmaxStepKeepsNaNInItsRow(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		for _, bad := range []float64{math.NaN(), math.Copysign(math.NaN(), -1), math.Inf(1)} {
			for _, n := range []int{1, 8, 13, 32, 47} {
				for _, at := range []int{0, n / 2, n - 1} {
					const rows, sick = 6, 2
					clean := newScoreTile(rand.New(rand.NewPCG(1, 1)), rows, n, n, 5)
					ill := clean.copy()
					ill.row(sick)[at] = float32(bad)
					run := func(s scoreTile) (m, l, a []float32) {
						m, l, a = allOf(rows, float32(math.Inf(-1))), allOf(rows, 0), allOf(rows, 0)
						SoftmaxStep(s.data, n, rows, n, m, l, a)
						return m, l, a
					}
					m1, l1, a1 := run(clean)
					m2, l2, a2 := run(ill)
					for r := range rows {
						if r == sick {
							require.True(t, math.IsNaN(float64(l2[r])), "sum %v for %v", l2[r], bad)
							continue
						}
						require.Equal(t, clean.row(r), ill.row(r))
						require.Equal(t, []float32{m1[r], l1[r], a1[r]}, []float32{m2[r], l2[r], a2[r]})
					}
					// It stays when later tiles are clean.
					SoftmaxStep(newScoreTile(rand.New(rand.NewPCG(1, 2)), rows, n, n, 5).data, n, rows, n, m2, l2, a2)
					require.True(t, math.IsNaN(float64(l2[sick])))
				}
			}
		}
	})
}

func TestMaskRange(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	tileShapes(func(rows, n, ld int) {
		s := newScoreTile(rng, rows, n, ld, 1)
		before := s.copy()
		lo, hi := make([]int32, rows), make([]int32, rows)
		for r := range rows {
			lo[r], hi[r] = int32(rng.IntN(n+5)-2), int32(rng.IntN(n+5)-2)
		}
		MaskRange(s.data, ld, rows, n, lo, hi)
		s.check(t)
		for r := range rows {
			for j, v := range s.row(r) {
				want := before.row(r)[j]
				if j < int(lo[r]) || j >= int(hi[r]) {
					want = float32(math.Inf(-1))
				}
				if v != want {
					require.Equal(t, want, v, "row %d of %d×%d, %d to %d, at %d", r, rows, n, lo[r], hi[r], j)
				}
			}
		}
	})
}

// TestTileSteps checks the steps that map a tile to a tile.
func TestTileSteps(t *testing.T) {
	const limit, scale, slope = 20.0, 0.125, -0.37
	inf := math.Inf(-1)
	steps := []struct {
		name string
		run  func(s, other scoreTile, row []float32)
		want func(s, other, row float64, j int) float64
		tol  func(s, other, row, want float64, j int) float64
	}{
		{"Softcap",
			func(s, _ scoreTile, _ []float32) { Softcap(s.data, s.ld, s.rows, s.n, scale, limit) },
			func(s, _, _ float64, _ int) float64 { return limit * math.Tanh(s*scale/limit) },
			func(_, _, _, want float64, _ int) float64 { return 5 * ulp(want) }},
		{"SoftcapGrad",
			func(s, o scoreTile, _ []float32) { SoftcapGrad(s.data, o.data, s.ld, s.rows, s.n, limit) },
			func(s, o, _ float64, _ int) float64 { x := o / limit; return s * (1 - min(1, x*x)) },
			func(s, _, _, _ float64, _ int) float64 { return math.Abs(s) * 4 * half * 2 }},
		{"AffineRows",
			func(s, _ scoreTile, row []float32) { AffineRows(s.data, s.ld, s.rows, s.n, row, float32(slope)) },
			func(s, _, row float64, j int) float64 { return s + row + float64(float32(slope))*float64(j) },
			func(s, _, row, _ float64, j int) float64 {
				// Three roundings: slope·j, plus base, plus s.
				return 3 * half * (math.Abs(s) + math.Abs(row) + math.Abs(slope)*float64(j))
			}},
		{"AddRows",
			func(s, o scoreTile, _ []float32) { AddRows(s.data, s.ld, o.data, o.ld, s.rows, s.n, 1.25) },
			func(s, o, _ float64, _ int) float64 { return s + 1.25*o },
			func(s, o, _, _ float64, _ int) float64 { return 2 * half * (math.Abs(s) + 1.25*math.Abs(o)) }},
		{"ProbFromLSE",
			func(s, _ scoreTile, row []float32) { ProbFromLSE(s.data, s.data, s.ld, s.rows, s.n, row) },
			func(s, _, row float64, _ int) float64 {
				if math.IsInf(row, -1) {
					return 0
				}
				return math.Exp(s - row)
			},
			func(s, _, row, want float64, _ int) float64 {
				if want == 0 {
					return 0
				}
				return want*expBar(s-row) + 0x1p-126
			}},
		{"DScore",
			func(s, o scoreTile, row []float32) { DScore(s.data, o.data, s.data, s.ld, s.rows, s.n, row) },
			func(s, o, row float64, _ int) float64 { return o * (s - row) },
			func(s, o, row, _ float64, _ int) float64 {
				return math.Abs(o) * (math.Abs(s) + math.Abs(row)) * 4 * half
			}},
	}
	forEachISA(t, func(t *testing.T) {
		for _, step := range steps {
			rng := rand.New(rand.NewPCG(25, 26))
			tileShapes(func(rows, n, ld int) {
				s, other := newScoreTile(rng, rows, n, ld, 30), newScoreTile(rng, rows, n, ld, 10)
				row := fencedCopy(randoms(rng, rows, 3), 1)
				if step.name == "ProbFromLSE" {
					for r := range row.data {
						row.data[r] += 100
						if r%4 == 1 {
							row.data[r] = float32(inf)
							for j := range s.row(r) {
								s.row(r)[j] = float32(inf)
							}
						}
					}
				}
				if step.name == "SoftcapGrad" && rows > 0 && n > 0 {
					other.row(0)[n-1] = float32(inf)
				}
				before := s.copy()
				step.run(s, other, row.data)
				s.check(t)
				other.check(t)
				row.intact(t)
				for r := range rows {
					for j, v := range s.row(r) {
						a, b, c := float64(before.row(r)[j]), float64(other.row(r)[j]), float64(row.data[r])
						want := step.want(a, b, c, j)
						near(t, want, v, step.tol(a, b, c, want, j), "%s[%d,%d] of %d×%d", step.name, r, j, rows, n)
					}
				}
			})
		}
	})
}

func TestAddRowsOfOneSharedRow(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(27, 28))
		s, b := newScoreTile(rng, 5, 19, 21, 1), fencedCopy(randoms(rng, 19, 1), 1)
		before := s.copy()
		AddRows(s.data, 21, b.data, 0, 5, 19, 2)
		for r := range 5 {
			for j, v := range s.row(r) {
				near(t, float64(before.row(r)[j])+2*float64(b.data[j]), v, 1e-6, "row %d at %d", r, j)
			}
		}
	})
}
