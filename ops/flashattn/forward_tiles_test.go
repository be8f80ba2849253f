package flashattn

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/kernel"
	"stheno/internal/parallel"
)

// alone computes the forward pass that no backward one follows.
func (c instance) alone(v values[float32]) *problem[float32] {
	p, _ := build(c, v)
	p.rowMax, p.rowSum = nil, nil
	p.forward()
	return p
}

// Numbers that tiles do not multiply, wherever they are, reach what sees them and nothing else; finite ones are computed as exactly as
// others.
func TestForwardOfNumbersBeyondTiles(t *testing.T) {
	for _, cfg := range []Config{{Causal: true}, {Causal: true, Window: Sliding(40)}} {
		c := instance{name: "beyond", batch: 1, seqQ: 310, seqKV: 320, heads: 4, kvHeads: 2, d: 20, dv: 12, seed: 4, cfg: cfg}
		clean := c.alone(generate(c).narrow())
		for _, bad := range []float64{math.NaN(), math.Inf(1), 3e38, 1e-42} {
			for _, kind := range []string{"q", "k", "v"} {
				for _, at := range []int{0, 33, 300} {
					v := generate(c).narrow()
					row := map[string]Heads[float32]{"q": clean.q, "k": clean.k, "v": clean.v}[kind]
					row.Data = map[string][]float32{"q": v.q, "k": v.k, "v": v.v}[kind]
					row.row(0, at, 1)[3] = float32(bad)
					p := c.alone(v)
					what := fmt.Sprintf("%v in row %d of %s", bad, at, kind)
					d := p.reaches(kind, at, 1)
					for n := range p.q.Seq * p.q.Heads {
						sum := 0.0
						for i, x := range p.out.Data[n*c.dv:][:c.dv] {
							sum += float64(x)
							if y := clean.out.Data[n*c.dv+i]; !d.rows[n] {
								require.InDelta(t, y, x, 1e-5, "%s: out row %d", what, n)
							}
						}
						if d.rows[n] && math.IsNaN(bad) {
							require.True(t, math.IsNaN(sum), "%s: out row %d is free of it", what, n)
						}
						if math.Abs(bad) < 1 {
							require.False(t, math.IsNaN(sum), "%s: out row %d", what, n)
						}
					}
				}
			}
		}
	}
}

// Sizes at which tiles lose pieces or sums overflow are held to the same bars: they go another way.
func TestForwardOfSmallAndLargeNumbers(t *testing.T) {
	for _, scale := range []float64{1e-30, 1e-22, 1e-10, 1e10, 1e25} {
		c := instance{name: fmt.Sprintf("values of %g", scale), batch: 1, seqQ: 70, seqKV: 130, heads: 2, kvHeads: 1, d: 33, dv: 40}
		v := generate(c)
		for i := range v.v {
			v.v[i] = float64(float32(v.v[i] * scale))
		}
		p := c.alone(v.narrow())
		p64, _ := build(c, v)
		want := solve(p64, nil)
		for i, x := range p.out.Data {
			require.InDelta(t, want.out[i], float64(x), 1e-6*scale, "element %d", i)
		}
	}
}

// The forward pass alone is the same to the last bit every time, at any number of threads, whether the queries are computed together
// or apart from each other.
func TestForwardIsTheSameToTheBit(t *testing.T) {
	c := instance{name: "bits", batch: 2, seqQ: 700, seqKV: 330, heads: 4, kvHeads: 2, d: 48, dv: 40, cfg: Config{Causal: true}}
	v := generate(c).narrow()
	v.k[150*2*48] = 1e-42 // which tiles do not multiply
	var want []float32
	for n := range 6 {
		old, err := parallel.SetThreads(n%3 + 1)
		require.NoError(t, err)
		got := c.alone(v)
		_, err = parallel.SetThreads(old)
		require.NoError(t, err)
		if want == nil {
			want = got.out.Data
		}
		require.True(t, equal(want, got.out.Data), "run %d differs", n)
	}
}

// Groups of heads that share keys, and what is left of whole groups of rows.
func TestForwardTilesEdges(t *testing.T) {
	if !kernel.PiecesVectorized() {
		t.Skip("needs AMX tiles of BF16")
	}
	for _, seq := range []int{9, 31, 32, 33, 63, 64, 65, 95, 97, 600} {
		for _, heads := range []int{1, 3, 5} {
			for _, d := range []int{64, 33} {
				c := instance{name: fmt.Sprintf("seq=%d heads=%d d=%d", seq, heads, d), batch: 1, seqQ: seq, seqKV: seq + 3, heads: heads, kvHeads: 1, d: d, dv: 97 - d,
					cfg: Config{Causal: seq%2 == 1}}
				if seq == 600 && testing.Short() && (heads != 3 || d == 64) {
					continue
				}
				v := generate(c)
				p, _ := build(c, v)
				c.checkAlone(t, v, solve(p, nil))
			}
		}
	}
}

// Units of more rows, which shapes of many heads have, give the same bits, within tiles and where all leave them at the same keys.
func TestForwardOfLongUnits(t *testing.T) {
	for _, c := range []instance{
		{name: "1152", batch: 1, seqQ: 1200, seqKV: 200, heads: 24, kvHeads: 24, d: 33, dv: 20},
		{name: "768", batch: 2, seqQ: 300, seqKV: 130, heads: 36, kvHeads: 12, d: 128, dv: 128},
	} {
		for _, tiny := range []float64{1, 0x1p-90} {
			v := generate(c)
			for i := len(v.v) * 2 / 3; i < len(v.v); i++ {
				v.v[i] *= tiny
			}
			var want []float32
			for _, rows := range []int{0, 576, 192} {
				c.cfg.BlockQ = rows
				p := c.alone(v.narrow())
				if want == nil {
					want = p.out.Data
				}
				require.True(t, equal(want, p.out.Data), "%s, values of %g: units of %d rows differ", c.name, tiny, rows)
			}
		}
	}
}
