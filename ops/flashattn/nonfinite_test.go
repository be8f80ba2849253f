package flashattn

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// dependence is which results an input row reaches, found by following what sees what.
type dependence struct {
	rows map[int]bool // output rows, and with them their dQ
	keys map[int]bool // key rows, whose dK and dV it reaches
}

// reaches follows a query row (kind "q" or "dOut") or a key row ("k" or "v") at (position, head) of batch element 0.
func (p *problem[T]) reaches(kind string, at, head int) dependence {
	d := dependence{map[int]bool{}, map[int]bool{}}
	for _, seg := range p.segs {
		for i := seg.q0; i < seg.q1; i++ {
			lo, hi := seg.keys(i, p.sight)
			for h := range p.q.Heads {
				hit := i == at && h == head && lo < hi
				if kind == "k" || kind == "v" {
					hit = lo <= at && at < hi && h/p.group == head
				}
				if !hit {
					continue
				}
				d.rows[i*p.q.Heads+h] = true
				for j := lo; j < hi; j++ {
					d.keys[j*p.k.Heads+h/p.group] = true
				}
			}
		}
	}
	return d
}

// A NaN or infinity reaches the rows that see it, and leaves all others as they were.
func TestNonFiniteNumbersStayWhereTheyAreSeen(t *testing.T) {
	base := instance{name: "poison", batch: 1, seqQ: 83, seqKV: 90, heads: 4, kvHeads: 2, d: 20, dv: 12, seed: 4}
	configs := map[string]func(*instance){
		"causal":  func(c *instance) { c.cfg.Causal = true },
		"window":  func(c *instance) { c.cfg.Window = Window{Limited: true, Left: 9, Right: 3} },
		"packed":  func(c *instance) { c.cuQ, c.cuKV = []int{0, 30, 80}, []int{0, 41, 90} },
		"softcap": func(c *instance) { c.cfg.Causal, c.cfg.Softcap = true, 2 },
		"dropout": func(c *instance) { c.cfg.Causal, c.cfg.Dropout = true, 0.3 },
		"empty":   func(c *instance) { c.seqQ, c.seqKV, c.cfg.Causal = 90, 40, true },
		"bf16":    func(c *instance) { c.cfg.Causal, c.cfg.Precision = true, BFloat16 },
	}
	onAll(t, func(t *testing.T) {
		for name, set := range configs {
			c := base
			set(&c)
			clean, cleanG := build(c, generate(c).narrow())
			clean.forward()
			clean.backward(cleanG)
			var bars roundingBars // weights are rounded in tiles, which what sees the number does not go through
			if c.cfg.Precision == BFloat16 {
				bars = newRoundingBars(clean, cleanG.dOut)
			}
			for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
				for _, kind := range []string{"q", "k", "v", "dOut"} {
					for _, at := range []int{0, 33, c.seqKV - 9} {
						at = min(at, c.seqQ-1, c.seqKV-1)
						v := generate(c).narrow()
						row := map[string]Heads[float32]{"q": clean.q, "k": clean.k, "v": clean.v, "dOut": cleanG.dOut}[kind]
						row.Data = map[string][]float32{"q": v.q, "k": v.k, "v": v.v, "dOut": v.dOut}[kind]
						row.row(0, at, 1)[3] = float32(bad)
						p, g := build(c, v)
						p.forward()
						p.backward(g)
						what := fmt.Sprintf("%s: %v in row %d of %s", name, bad, at, kind)
						p.compare(t, what, p.reaches(kind, at, 1), kind, bad, g, clean, cleanG, bars)
					}
				}
			}
		}
	})
}

// compare holds what is out of reach to the clean results, and wants a NaN in the outputs that a NaN reaches.
func (p *problem[T]) compare(t *testing.T, what string, d dependence, kind string, bad float64, g *gradients[T], clean *problem[T], cleanG *gradients[T], bars roundingBars) {
	t.Helper()
	near := func(name string, n int, got, want []T, bars []float64) {
		for c := range got {
			x, y := float64(got[c]), float64(want[c])
			tol := 1e-5 * (1 + math.Abs(y)) // some tens of roundings of float32
			if bars != nil {
				tol += bars[n*len(got)+c]
			}
			if !(math.Abs(x-y) <= tol) {
				t.Fatalf("%s: %s row %d: got %v, want %v as without it", what, name, n, x, y)
			}
		}
	}
	for n := range p.q.Seq * p.q.Heads {
		dv, dim := p.v.Dim, p.q.Dim
		out := p.out.Data[n*dv:][:dv]
		if !d.rows[n] || kind == "dOut" {
			near("out", n, out, clean.out.Data[n*dv:][:dv], bars.out)
		} else if math.IsNaN(bad) {
			sum := 0.0
			for _, x := range out {
				sum += float64(x)
			}
			require.True(t, math.IsNaN(sum), "%s: out row %d is free of it", what, n)
		}
		if !d.rows[n] {
			near("dQ", n, g.dQ.Data[n*dim:][:dim], cleanG.dQ.Data[n*dim:][:dim], bars.dQ)
		}
	}
	for n := range p.k.Seq * p.k.Heads {
		if !d.keys[n] {
			near("dK", n, g.dK.Data[n*p.k.Dim:][:p.k.Dim], cleanG.dK.Data[n*p.k.Dim:][:p.k.Dim], bars.dK)
			near("dV", n, g.dV.Data[n*p.v.Dim:][:p.v.Dim], cleanG.dV.Data[n*p.v.Dim:][:p.v.Dim], bars.dV)
		}
	}
}

// What is not finite in a key is left out of the mean of its head, and so reaches nothing through it.
func TestNonFiniteNumbersDoNotReachTheMean(t *testing.T) {
	c := instance{name: "poison", batch: 1, seqQ: 83, seqKV: 90, heads: 4, kvHeads: 2, d: 20, dv: 12, seed: 4, cfg: Config{Causal: true, Precision: Int8}}
	onAll(t, func(t *testing.T) {
		for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
			for _, kind := range []string{"q", "k"} {
				v := generate(c).narrow()
				p, g := build(c, v)
				x := map[string]*Heads[float32]{"q": &p.q, "k": &p.k}[kind]
				x.row(0, 33, 1)[3] = bad
				p.forward()
				p.backward(g)
				d := p.reaches(kind, 33, 1)
				for n := range p.q.Seq * p.q.Heads {
					if d.rows[n] {
						require.False(t, finite(p.out.Data[n*c.dv:][:c.dv]), "out row %d", n)
						continue
					}
					require.True(t, finite(p.out.Data[n*c.dv:][:c.dv]), "%v in %s: out row %d", bad, kind, n)
					require.True(t, finite(g.dQ.Data[n*c.d:][:c.d]), "%v in %s: dQ row %d", bad, kind, n)
				}
				for n := range p.k.Seq * p.k.Heads {
					if !d.keys[n] {
						require.True(t, finite(g.dK.Data[n*c.d:][:c.d]), "%v in %s: dK row %d", bad, kind, n)
					}
				}
			}
		}
	})
}

// Few rows take another way.
func TestNonFiniteValuesWithFewRows(t *testing.T) {
	const seqKV, d = 40, 8
	onAll(t, func(t *testing.T) {
		run := func(bad float32) []float32 {
			q := Contiguous(make([]float32, 4*d), 1, 4, 1, d)
			k := Contiguous(make([]float32, seqKV*d), 1, seqKV, 1, d)
			v := Contiguous(make([]float32, seqKV*d), 1, seqKV, 1, d)
			out := Contiguous(make([]float32, 4*d), 1, 4, 1, d)
			fill(v.row(0, seqKV-2, 0), bad)
			require.NoError(t, Forward(out, q, k, v, Config{Causal: true}, Operands[float32]{}))
			return out.Data
		}
		clean, got := run(0), run(float32(math.NaN()))
		require.Equal(t, clean[:2*d], got[:2*d], "rows 0 and 1 do not see it")
		for _, x := range got[2*d:] {
			require.True(t, math.IsNaN(float64(x)), "rows 2 and 3 see it")
		}
	})
}

// What lies in memory between the rows of a view, or beyond the lengths, is not read.
func TestNothingElseIsRead(t *testing.T) {
	const batch, seq, heads, d, gap = 2, 70, 2, 17, 5
	view := func(seed int) Heads[float32] {
		x := Heads[float32]{Batch: batch, Seq: seq, Heads: heads, Dim: d, HeadStride: d + gap, SeqStride: heads*(d+gap) + gap}
		x.BatchStride = seq*x.SeqStride + 3
		x.Data = make([]float32, x.at(batch-1, seq-1, heads-1)+d)
		fill(x.Data, float32(math.NaN()))
		for b := range batch {
			for i := range seq {
				for h := range heads {
					for c := range d {
						x.row(b, i, h)[c] = float32((b*31+i*17+h*7+c*3+seed)%23)/23 - 0.5
					}
				}
			}
		}
		return x
	}
	q, k, v, out := view(1), view(2), view(3), view(4)
	lens := []int{33, 70}
	for b, n := range lens {
		for i := n; i < seq; i++ {
			for h := range heads {
				fill(k.row(b, i, h), float32(math.NaN()))
				fill(v.row(b, i, h), float32(math.NaN()))
			}
		}
	}
	dense := func(x Heads[float32], b, n int) Heads[float32] {
		y := Contiguous(make([]float32, n*heads*d), 1, n, heads, d)
		for i := range n {
			for h := range heads {
				copy(y.row(0, i, h), x.row(b, i, h))
			}
		}
		return y
	}
	for _, cfg := range []Config{{}, {Causal: true}, {Window: Window{Limited: true, Left: 5, Right: 2}}} {
		lse := make([]float32, batch*heads*seq)
		require.NoError(t, Forward(out, q, k, v, cfg, Operands[float32]{KeyLens: lens, LSE: lse}))
		for b, n := range lens {
			want := Contiguous(make([]float32, seq*heads*d), 1, seq, heads, d)
			wantLSE := make([]float32, heads*seq)
			require.NoError(t, Forward(want, dense(q, b, seq), dense(k, b, n), dense(v, b, n), cfg, Operands[float32]{LSE: wantLSE}))
			require.Equal(t, want.Data, dense(out, b, seq).Data)
			require.Equal(t, wantLSE, lse[b*heads*seq:][:heads*seq])
		}
	}
}

// A product that overflows at a masked place leaves no trace: 0·∞ would be NaN.
func TestOverflowAtAMaskedPlace(t *testing.T) {
	onAll(t, func(t *testing.T) {
		c := instance{name: "overflow", batch: 1, seqQ: 20, seqKV: 20, heads: 1, kvHeads: 1, d: 8, dv: 8, cfg: Config{Causal: true}}
		p, g := build(c, generate(c).narrow())
		fill(p.v.row(0, 19, 0), 1e30)
		fill(g.dOut.row(0, 0, 0), 1e30)
		p.forward()
		p.backward(g)
		for what, x := range c.results32(p, g) {
			for i, v := range x {
				require.False(t, math.IsNaN(float64(v)) || math.IsInf(float64(v), 0), "%s[%d] is %v", what, i, v)
			}
		}
	})
}
