package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// product is C += x·y in float64 with the sum of absolute values, for x (m×k) and y (k×n).
func exactProduct(c, x, y []float32, m, n, k int) (sum, size []float64) {
	sum, size = make([]float64, m*n), make([]float64, m*n)
	for i := range m {
		for j := range n {
			s, a := float64(c[i*n+j]), math.Abs(float64(c[i*n+j]))
			for p := range k {
				v := float64(x[i*k+p]) * float64(y[p*n+j])
				s += v
				a += math.Abs(v)
			}
			sum[i*n+j], size[i*n+j] = s, a
		}
	}
	return sum, size
}

func transposed(x []float32, rows, cols int) []float32 {
	t := make([]float32, len(x))
	for i := range rows {
		for j := range cols {
			t[j*rows+i] = x[i*cols+j]
		}
	}
	return t
}

// Both ways to pack either operand give the product, to a few roundings of float32, and write nothing else.
func TestMultiplyPieces(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(71, 72))
		for _, s := range [][3]int{{1, 1, 1}, {2, 2, 2}, {1, 2, 3}, {3, 1, 2}, {3, 3, 1}, {6, 4, 2}, {2, 5, 3}} {
			m, n, k := 16*s[0], 16*s[1], 32*s[2]
			x, y := randoms(rng, m*k, 1), randoms(rng, k*n, 1)
			for way := range 4 {
				a, b := make([]uint16, 3*m*k), make([]uint16, 3*k*n)
				if way&1 == 0 {
					SplitRows(a, x, k, m, k, false)
				} else {
					SplitColumns(a, transposed(x, m, k), m, k, m, true)
				}
				if way&2 == 0 {
					SplitColumns(b, y, n, k, n, false)
				} else {
					SplitRows(b, transposed(y, k, n), k, n, k, true)
				}
				for _, add := range []bool{false, true} {
					c := fencedCopy(randoms(rng, m*n, 1), 1)
					from := append([]float32(nil), c.data...)
					if !add {
						from = make([]float32, m*n)
						fillAll(c.data, float32(math.NaN()))
					}
					MultiplyPieces(c.data, n, a, s[2], b, s[2], s[0], s[1], s[2], add)
					c.intact(t)
					want, size := exactProduct(from, x, y, m, n, k)
					for i := range want {
						// What is left out of a product is 2⁻²² of it at most, and the same sums are rounded a few times.
						near(t, want[i], c.data[i], 0x1p-24*size[i]*(2+math.Sqrt(float64(s[2]))), "%v way %d element %d", s, way, i)
					}
				}
			}
		}
	})
}

func fillAll(x []float32, v float32) {
	for i := range x {
		x[i] = v
	}
}

// Pieces are those of the portable version, for parts of a larger matrix too, and the largest number is found.
func TestSplitIsThatOfPortableGo(t *testing.T) {
	rng := rand.New(rand.NewPCG(73, 74))
	const rows, cols, ld = 64, 96, 113
	x := randoms(rng, rows*ld, 1)
	for i := range x { // beside numbers that are small, or have pieces that are none of BF16, none may change
		if r := rng.IntN(3); r > 0 {
			x[i] = float32(math.Ldexp(float64(x[i]), -70*r*rng.IntN(2)))
		}
	}
	x[5*ld+7] = -9
	type result struct {
		dst  []uint16
		most float32
	}
	run := func() (all []result) {
		for _, turned := range []bool{false, true} {
			r := result{dst: make([]uint16, 3*rows*cols)}
			r.most = SplitRows(r.dst, x, ld, rows, cols, turned)
			c := result{dst: make([]uint16, 3*rows*cols)}
			c.most = SplitColumns(c.dst, x, ld, rows, cols, turned)
			all = append(all, r, c)
		}
		return all
	}
	restore, err := Use(Generic)
	require.NoError(t, err)
	want := run()
	restore()
	require.EqualValues(t, 9, want[0].most)
	require.Equal(t, want, run())
	for i := range x {
		if math.Abs(float64(x[i])) < 0x1p-102 {
			continue
		}
		sum := float32(0)
		for _, bits := range cut(x[i]) {
			sum += math.Float32frombits(uint32(bits) << 16)
		}
		require.Equal(t, x[i], sum)
	}
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(-1)), 1e38} {
		x[63*ld+95] = bad
		for _, r := range run() {
			require.Equal(t, fmt.Sprint(float32(math.Abs(float64(bad)))), fmt.Sprint(r.most))
		}
	}
}

// Parts of packed operands are found by the distance of their tiles, and the place of a tile changes no bit.
func TestMultiplyPiecesOfParts(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(75, 76))
		const m, n, k = 96, 64, 96
		x, y := randoms(rng, m*k, 1), randoms(rng, k*n, 1)
		a, b := make([]uint16, 3*m*k), make([]uint16, 3*k*n)
		SplitRows(a, x, k, m, k, false)
		SplitColumns(b, y, n, k, n, false)
		part := make([]float32, 48*n)
		MultiplyPieces(part, n, a[(2*3+1)*PieceTile:], 3, b[PieceTile:], 3, 3, 4, 2, false)
		single := make([]float32, 256)
		MultiplyPieces(single, 16, a[(3*3+1)*PieceTile:], 3, b[(2*3+1)*PieceTile:], 3, 1, 1, 2, false)
		for i := range 16 {
			require.Equal(t, part[(16+i)*n+32:][:16], single[16*i:][:16])
		}
	})
}

// weighTol is by how much a weight or dS may be off, relative to it and to 1+|s−Max|: 2.2e-7 are those of the exponential (ExpFast of
// gen/isa), 2⁻²³ come with each unit of s−Max, of which the difference and its product with log₂e are rounded, and 2⁻²³ with the two roundings
// of dS. There is about as much again for all of it to meet.
const weighTol = 8e-7

// weighed is a tile for Weigh with fences around what it writes.
type weighed struct {
	BackTile[float32]
	byCols, byRows *fencedBits
	rows           []BackRow
}

func newWeighed(rng *rand.Rand, sigma float64) *weighed {
	w := &weighed{byCols: newFencedBits(6 * BackRows * BackCols), byRows: newFencedBits(3 * BackRows * BackCols), rows: make([]BackRow, BackRows)}
	w.BackTile = BackTile[float32]{append(randoms(rng, BackRows*BackCols, sigma), randoms(rng, BackRows*BackCols, 1)...), w.byCols.data, w.byRows.data}
	for i := range w.rows {
		w.rows[i] = BackRow{Max: float32(rng.NormFloat64()), Delta: float32(rng.NormFloat64()), Seen: ^uint32(0)}
	}
	return w
}

// at returns P, dS by columns and dS by rows.
func (w *weighed) at(r, c int) (v [3]float64) {
	const tiles, wide = BackRows / 32, BackCols / 32
	col, row := (c/16*tiles+r/32)*PieceTile+r%16*32+c%16*2+r%32/16, (r/16*wide+c/32)*PieceTile+r%16*32+c%16*2+c%32/16
	for piece := range 3 {
		for i, bits := range [...]uint16{w.ByCols[col+512*piece], w.ByCols[3*BackRows*BackCols+col+512*piece], w.ByRows[row+512*piece]} {
			v[i] += float64(math.Float32frombits(uint32(bits) << 16))
		}
	}
	return v
}

// Weights and dS are those of the formula, whatever is multiplied in between, and products those of MultiplyPieces.
func TestWeigh(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(77, 78))
		for _, steps := range []int{0, 1, 2, 4, 7} { // of the products, so that more or less is left to do after or before them
			w := newWeighed(rng, 3)
			w.rows[1].Max, w.rows[5].Seen, w.rows[40].Seen = float32(math.Inf(1)), 0, 0x00fff01f
			w.Scores[70*BackCols+9] = float32(math.Inf(-1))
			w.Scores[5*BackCols] = 1e38 // and not seen

			x, y, z := randoms(rng, 96*32*steps, 1), randoms(rng, 32*steps*64, 1), randoms(rng, 48*64, 1)
			a, b := make([]uint16, 3*len(x)), make([]uint16, 3*len(y))
			SplitRows(a, x, 32*steps, 96, 32*steps, false)
			SplitColumns(b, y, 64, 32*steps, 64, false)
			var first, then PieceProducts
			c, d := fencedCopy(make([]float32, 96*64), 1), fencedCopy(z, 1)
			fillAll(c.data, float32(math.NaN()))
			AddPieces(&first, c.data, 64, a, steps, b, steps, 6, 4, steps, false)
			AddPieces(&then, d.data, 64, a, steps, b, steps, 3, 3, steps, true)
			var runs []WeighRun
			for i := range BackRows / 32 {
				for j := range BackCols / 32 {
					runs = append(runs, w.Run(i, j, w.rows[32*i:]))
				}
			}
			Weigh(&first, runs, &then)
			c.intact(t)
			d.intact(t)
			w.byCols.intact(t)
			w.byRows.intact(t)
			if steps > 0 {
				want, sum := make([]float32, 96*64), append([]float32(nil), z...)
				MultiplyPieces(want, 64, a, steps, b, steps, 6, 4, steps, false)
				MultiplyPieces(sum, 64, a, steps, b, steps, 3, 3, steps, true)
				require.Equal(t, want, c.data)
				require.Equal(t, sum, d.data)
			}
			for r := range BackRows {
				for c := range BackCols {
					s, dp, row := float64(w.Scores[r*BackCols+c]), float64(w.Scores[(BackRows+r)*BackCols+c]), w.rows[r]
					p := math.Exp(s - float64(row.Max))
					if row.Seen>>(c%32)&1 == 0 {
						p = 0
					}
					ds, tol := p*(dp-float64(row.Delta)), 0.0
					if p != 0 {
						tol = weighTol * (1 + math.Abs(s-float64(row.Max)))
					}
					got, what := w.at(r, c), fmt.Sprintf("%d steps (%d, %d)", steps, r, c)
					near(t, p, float32(got[0]), tol*p, "%s weight", what)
					tol *= p * (math.Abs(dp) + math.Abs(float64(row.Delta)))
					near(t, ds, float32(got[1]), tol, "%s dS by columns", what)
					near(t, ds, float32(got[2]), tol, "%s dS by rows", what)
				}
			}
		}
	})
}

// A list that is full says so, and stays as it is.
func TestPieceProductsAreFull(t *testing.T) {
	const m, n = 16, 16 // 64 blocks
	var l PieceProducts
	c, a := make([]float32, 16*m*16*n), make([]uint16, m*PieceTile)
	AddPieces(&l, c, 16*n, a, 1, a, 1, m, n, 1, false)
	require.PanicsWithValue(t, "kernel: AddPieces: got 65 blocks of products in a list, want at most 64",
		func() { AddPieces(&l, c, 16*n, a, 1, a, 1, 1, 1, 1, false) })
	require.Equal(t, maxProducts, l.n)
}

// A run writes its own rows and columns only.
func TestWeighOfOneRun(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		w := newWeighed(rand.New(rand.NewPCG(81, 82)), 1)
		for i := range w.ByCols {
			w.ByCols[i] = 0x7fc0
		}
		for i := range w.ByRows {
			w.ByRows[i] = 0x7fc0
		}
		var none PieceProducts
		Weigh(&none, []WeighRun{w.Run(1, 1, w.rows[32:])}, &none)
		for r := range BackRows {
			for c := range BackCols {
				for _, v := range w.at(r, c) {
					require.Equal(t, r/32 != 1 || c/32 != 1, math.IsNaN(v), "(%d, %d)", r, c)
				}
			}
		}
	})
}

// Weights and dS below 2⁻¹¹⁰ have pieces that are no numbers of BF16; what is cut off of one must not become part of another.
func TestWeighOfTinyWeights(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		w := newWeighed(rand.New(rand.NewPCG(79, 80)), 1)
		for i := range w.rows {
			w.rows[i].Max, w.rows[i].Delta = 0, 0
		}
		for i := range BackRows * BackCols {
			if tiny := i/64/16&1 ^ i/16%2; tiny == 1 { // beside one that is not, in either order
				w.Scores[i] -= 82
			}
		}
		var none PieceProducts
		var runs []WeighRun
		for i := range 6 {
			runs = append(runs, w.Run(i/2, i%2, w.rows[i/2*32:]))
		}
		Weigh(&none, runs, &none)
		for r := range BackRows {
			for c := range BackCols {
				s, dp := float64(w.Scores[r*BackCols+c]), float64(w.Scores[(BackRows+r)*BackCols+c])
				p := math.Exp(s)
				got, tol := w.at(r, c), weighTol*(1+math.Abs(s))
				near(t, p, float32(got[0]), tol*p+0x1p-125, "weight (%d, %d)", r, c)
				near(t, p*dp, float32(got[1]), tol*math.Abs(p*dp)+0x1p-125, "dS (%d, %d) by columns", r, c)
				near(t, p*dp, float32(got[2]), tol*math.Abs(p*dp)+0x1p-125, "dS (%d, %d) by rows", r, c)
			}
		}
	})
}

// fencedBits is a slice between canaries.
type fencedBits struct{ all, data []uint16 }

func newFencedBits(n int) *fencedBits {
	all := make([]uint16, n+64)
	for i := range all {
		all[i] = 0xabcd
	}
	return &fencedBits{all, all[32 : 32+n : 32+n]}
}

func (f *fencedBits) intact(t *testing.T) {
	t.Helper()
	for i := range 32 {
		require.EqualValues(t, 0xabcd, f.all[i])
		require.EqualValues(t, 0xabcd, f.all[len(f.all)-1-i])
	}
}

func TestPiecesChecks(t *testing.T) {
	for want, f := range map[string]func(){
		"SplitRows: got 8×32":            func() { SplitRows[float32](nil, nil, 32, 8, 32, false) },
		"SplitColumns: got 16×16":        func() { SplitColumns[float32](nil, nil, 16, 16, 16, false) },
		"kernel: x: got 511":             func() { SplitRows(make([]uint16, 1536), make([]float32, 511), 32, 16, 32, true) },
		"kernel: dst: got 1535 elements": func() { SplitColumns(make([]uint16, 1535), make([]float32, 512), 16, 32, 16, true) },
		"kernel: C: got 255": func() {
			MultiplyPieces(make([]float32, 255), 16, make([]uint16, 1536), 1, make([]uint16, 1536), 1, 1, 1, 1, true)
		},
		"kernel: A: got 1535": func() {
			MultiplyPieces(make([]float32, 256), 16, make([]uint16, 1535), 1, make([]uint16, 1536), 1, 1, 1, 1, true)
		},
		"rows of 15": func() {
			MultiplyPieces(make([]float32, 256), 15, make([]uint16, 1536), 1, make([]uint16, 1536), 1, 1, 1, 1, true)
		},
	} {
		func() {
			defer func() { require.Contains(t, fmt.Sprint(recover()), want) }()
			f()
		}()
	}
}

func BenchmarkMultiplyPieces(b *testing.B) {
	for _, s := range [][3]int{{2, 2, 2}, {2, 2, 8}, {6, 4, 2}, {4, 4, 3}, {6, 4, 4}} {
		b.Run(fmt.Sprintf("m=%d/n=%d/k=%d", 16*s[0], 16*s[1], 32*s[2]), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			m, n, k := 16*s[0], 16*s[1], 32*s[2]
			x, y := randoms(rng, m*k, 1), randoms(rng, k*n, 1)
			pa, pb, c := make([]uint16, 3*m*k+32), make([]uint16, 3*k*n+32), make([]float32, m*n+16)
			pa, pb = pa[-uintptr(unsafe.Pointer(&pa[0]))%64/2:], pb[-uintptr(unsafe.Pointer(&pb[0]))%64/2:]
			c = c[-uintptr(unsafe.Pointer(&c[0]))%64/4:]
			SplitRows(pa, x, k, m, k, false)
			SplitColumns(pb, y, n, k, n, false)
			for b.Loop() {
				MultiplyPieces(c, n, pa, s[2], pb, s[2], s[0], s[1], s[2], true)
			}
			b.ReportMetric(2*float64(m*n*k)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}

// BenchmarkWeigh takes a tile of the backward pass, d = 64, apart.
func BenchmarkWeigh(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	const d = 64
	w, next := newWeighed(rng, 1), newWeighed(rng, 1)
	pieces := func(n int) []uint16 {
		x, p := randoms(rng, n, 1), make([]uint16, 3*n+32)
		p = p[-uintptr(unsafe.Pointer(&p[0]))%64/2:][:3*n]
		SplitRows(p, x, n/16, 16, n/16, false)
		return p
	}
	floats := func(n int) []float32 {
		x := make([]float32, n+16)
		return x[-uintptr(unsafe.Pointer(&x[0]))%64/4:][:n]
	}
	next.Scores = floats(2 * BackRows * BackCols)
	w.ByCols, w.ByRows = pieces(2*BackRows*BackCols), pieces(BackRows*BackCols)
	rows, cols, keys, grads, values := pieces(2*BackRows*d), pieces(2*BackRows*d), pieces(BackCols*d), pieces(BackCols*d), pieces(BackCols*d)
	dkT, dvT, dq := floats(d*BackCols), floats(d*BackCols), floats(BackRows*d)
	var none, first, then PieceProducts
	const half = 3 * BackRows * d
	AddPieces(&first, next.Scores, BackCols, rows, d/32, keys, d/32, BackRows/16, BackCols/16, d/32, false)
	AddPieces(&first, next.Scores[BackRows*BackCols:], BackCols, rows[half:], d/32, values, d/32, BackRows/16, BackCols/16, d/32, false)
	AddPieces(&then, dvT, BackCols, cols, BackRows/32, w.ByCols, BackRows/32, d/16, BackCols/16, BackRows/32, true)
	AddPieces(&then, dkT, BackCols, cols[half:], BackRows/32, w.ByCols[3*BackRows*BackCols:], BackRows/32, d/16, BackCols/16, BackRows/32, true)
	AddPieces(&then, dq, d, w.ByRows, BackCols/32, grads, BackCols/32, BackRows/16, d/16, BackCols/32, true)
	var runs []WeighRun
	for i := range 6 {
		runs = append(runs, w.Run(i/2, i%2, w.rows[i/2*32:]))
	}
	for _, c := range []struct {
		name        string
		first, then *PieceProducts
		runs        []WeighRun
	}{{"all", &first, &then, runs}, {"first", &first, &none, nil}, {"runs", &none, &none, runs}, {"together", &first, &none, runs}, {"then", &none, &then, nil}, {"none", &none, &none, nil}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				Weigh(c.first, c.runs, c.then)
			}
		})
	}
}
