package kernel

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// elementwise is one case of the table: dst[i] = want(x[i], y[i], z[i]), z being what dst held before.
type elementwiseCase struct {
	name string
	run  func(dst, x, y []float32)
	want func(x, y, z float64) float64
	tol  func(x, y, z, want float64) float64
	// inPlaceY: dst may be y as well as x.
	inPlaceY bool
	scale    float64 // of the random input
}

const half = 0x1p-24 // half an ulp, relative

// rounded is the bar of a sum or product that rounds once or twice.
func rounded(x, y, z, want float64) float64 {
	return 2 * half * (math.Abs(want) + math.Abs(z) + math.Abs(x) + math.Abs(x*y))
}

func ulps(n float64) func(x, y, z, want float64) float64 {
	return func(_, _, _, want float64) float64 { return n * ulp(want) }
}

// activationBar is 4 ulp, or 1.5e-7 of the size of the argument: Φ and σ have an absolute error of about one ulp of 1, which
// the argument multiplies.
func activationBar(x, y, _, want float64) float64 {
	return max(4*ulp(want), 1.5e-7*max(1, min(math.Abs(x), 16)))
}

// slopeBar is the same for derivatives, which multiply dy.
func slopeBar(x, y, _, want float64) float64 {
	return max(4*ulp(want), 4e-7*math.Abs(y))
}

func elementwiseCases() []elementwiseCase {
	x1 := func(f func(float64) float64) func(x, y, z float64) float64 {
		return func(x, _, _ float64) float64 { return f(x) }
	}
	slope := func(f func(float64) float64) func(x, y, z float64) float64 {
		return func(x, y, _ float64) float64 { return f(x) * y }
	}
	drop := func(f func(dst, x []float32)) func(dst, x, y []float32) {
		return func(dst, x, _ []float32) { f(dst, x) }
	}
	return []elementwiseCase{
		{name: "Scale", run: func(d, x, _ []float32) { Scale(d, x, 1.7) }, want: x1(func(x float64) float64 { return float64(float32(1.7)) * x }), tol: ulps(1)},
		{name: "AddScalar", run: func(d, x, _ []float32) { AddScalar(d, x, 1.5) }, want: x1(func(x float64) float64 { return x + 1.5 }), tol: ulps(1)},
		{name: "Add", run: Add[float32], want: func(x, y, _ float64) float64 { return x + y }, tol: ulps(1), inPlaceY: true},
		{name: "Mul", run: Mul[float32], want: func(x, y, _ float64) float64 { return x * y }, tol: ulps(1), inPlaceY: true},
		{name: "Axpy", run: func(d, x, _ []float32) { Axpy(d, -0.3, x) }, want: func(x, _, z float64) float64 { return z + float64(float32(-0.3))*x }, tol: rounded},
		{name: "MulAdd", run: MulAdd[float32], want: func(x, y, z float64) float64 { return z + x*y }, tol: rounded, inPlaceY: true},
		{name: "Exp", run: drop(Exp[float32]), want: x1(math.Exp), tol: ulps(1), scale: 20},
		{name: "Tanh", run: drop(Tanh[float32]), want: x1(math.Tanh), tol: ulps(1.5)},
		{name: "Sigmoid", run: drop(Sigmoid[float32]), want: x1(sigmoid), scale: 8,
			tol: func(_, _, _, want float64) float64 { return max(2.5*ulp(want), 0x1p-126) }},
		{name: "GeluErf", run: drop(GeluErf[float32]), want: x1(geluErf), tol: activationBar},
		{name: "GeluErfGrad", run: GeluErfGrad[float32], want: slope(geluErfSlope), tol: slopeBar, inPlaceY: true},
		{name: "GeluTanh", run: drop(GeluTanh[float32]), want: x1(geluTanh), tol: activationBar},
		{name: "GeluTanhGrad", run: GeluTanhGrad[float32], want: slope(geluTanhSlope), tol: slopeBar, inPlaceY: true},
		{name: "Silu", run: drop(Silu[float32]), want: x1(silu), tol: activationBar, scale: 6},
		{name: "SiluGrad", run: SiluGrad[float32], want: slope(siluSlope), tol: slopeBar, inPlaceY: true, scale: 6},
		{name: "Relu", run: drop(Relu[float32]), want: x1(func(x float64) float64 { return max(x, 0) }), tol: ulps(0)},
		{name: "ReluGrad", run: ReluGrad[float32], want: func(x, y, _ float64) float64 {
			if x <= 0 {
				return 0
			}
			return y
		}, tol: ulps(0), inPlaceY: true},
		{name: "SwiGLU", run: SwiGLU[float32], want: func(x, y, _ float64) float64 { return silu(x) * y }, inPlaceY: true,
			tol: func(x, y, z, want float64) float64 { return max(4*ulp(want), 2e-7*max(1, math.Abs(x))*math.Abs(y)) }},
	}
}

func TestElementwise(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		for _, c := range elementwiseCases() {
			t.Run(c.name, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(1, 2))
				scale := max(c.scale, 3)
				for _, n := range vecSizes() {
					x, y, z := randoms(rng, n, scale), randoms(rng, n, 1), randoms(rng, n, 1)
					for mode := range 3 {
						if n > 2000 && mode > 0 {
							continue // long slices need one case: they differ by being cut only
						}
						gx, gy, gz := fencedCopy(x, 1), fencedCopy(y, 3), fencedCopy(z, 2)
						dst, old := gz, z
						switch {
						case mode == 1:
							dst, old = gx, x
						case mode == 2 && !c.inPlaceY:
							continue
						case mode == 2:
							dst, old = gy, y
						}
						c.run(dst.data, gx.data, gy.data)
						for _, g := range []*fenced{gx, gy, gz} {
							g.intact(t)
						}
						for i := range n {
							xi, yi, zi := float64(x[i]), float64(y[i]), float64(old[i])
							want := c.want(xi, yi, zi)
							if tol := c.tol(xi, yi, zi, want); !(math.Abs(float64(dst.data[i])-want) <= tol) {
								near(t, want, dst.data[i], tol, "n=%d mode=%d element %d, x=%v y=%v", n, mode, i, xi, yi)
							}
						}
					}
				}
			})
		}
	})
}

// Every 70,001st float32, so that no binade is left out; fewer under -short.
func TestElementwiseSweep(t *testing.T) {
	const batch = 4096
	stride := uint64(70001)
	if testing.Short() {
		stride *= 20
	}
	forEachISA(t, func(t *testing.T) {
		for _, c := range elementwiseCases() {
			if c.name == "Axpy" || c.name == "MulAdd" {
				continue // a plain fused multiply-add has no argument range of its own
			}
			x, y, dst := make([]float32, 0, batch), make([]float32, batch), make([]float32, batch)
			for i := range y {
				y[i] = 1
			}
			flush := func() {
				c.run(dst[:len(x)], x, y[:len(x)])
				for i, v := range x {
					want := c.want(float64(v), 1, 0)
					if math.Abs(want) > math.MaxFloat32 {
						want = math.Inf(int(math.Copysign(1, want)))
					}
					tol := c.tol(float64(v), 1, 0, want)
					if !(math.Abs(float64(dst[i])-want) <= tol) {
						near(t, want, dst[i], tol, "%s(%v)", c.name, v)
					}
				}
				x = x[:0]
			}
			for b := uint64(0); b < 1<<32; b += stride {
				v := math.Float32frombits(uint32(b))
				if v == v && !math.IsInf(float64(v), 0) {
					if x = append(x, v); len(x) == batch {
						flush()
					}
				}
			}
			flush()
		}
	})
}

func TestActivationSpecials(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	x := []float32{inf, -inf, nan, 0, float32(math.Copysign(0, -1)), math.MaxFloat32, -math.MaxFloat32, 1e-45, -1e-45, 1e20, -1e20, 100, -100}
	for len(x) < 16+13 { // a full vector and a tail
		x = append(x, x[len(x)-13])
	}
	ones := make([]float32, len(x))
	for i := range ones {
		ones[i] = 1
	}
	forEachISA(t, func(t *testing.T) {
		for _, c := range elementwiseCases() {
			switch c.name {
			case "Axpy", "MulAdd":
				continue
			}
			dst := make([]float32, len(x))
			c.run(dst, x, ones)
			for i, v := range x {
				want := c.want(float64(v), 1, 0)
				if math.Abs(want) > math.MaxFloat32 {
					want = math.Inf(int(math.Copysign(1, want)))
				}
				near(t, want, dst[i], c.tol(float64(v), 1, 0, want), "%s(%v)", c.name, v)
			}
		}
	})
}

func TestSwiGLUGrad(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		for _, n := range vecSizes() {
			g, u, dy := randoms(rng, n, 4), randoms(rng, n, 1), randoms(rng, n, 1)
			for _, inPlace := range []bool{false, true} {
				gg, gu, gdy := fencedCopy(g, 1), fencedCopy(u, 2), fencedCopy(dy, 3)
				dg, du := newFenced(n, 1), newFenced(n, 0)
				if inPlace {
					dg, du = gg, gu
				}
				SwiGLUGrad(dg.data, du.data, gg.data, gu.data, gdy.data)
				for _, s := range []*fenced{gg, gu, gdy, dg, du} {
					s.intact(t)
				}
				for i := range n {
					a, b, d := float64(g[i]), float64(u[i]), float64(dy[i])
					near(t, d*b*siluSlope(a), dg.data[i], 4e-7*math.Abs(d*b)+1e-37, "dg n=%d i=%d", n, i)
					near(t, d*silu(a), du.data[i], 2e-7*max(1, math.Abs(a))*math.Abs(d)+1e-37, "du n=%d i=%d", n, i)
				}
			}
		}
	})
}

// reductionCases compares with float64. The bar is that of pairwise partial sums: the terms' absolute sum times a few roundings,
// since every lane adds at most n/16 terms and the lanes are random in sign.
func TestReductions(t *testing.T) {
	type reduction struct {
		name string
		run  func(x, y []float32) float32
		term func(x, y float64) float64
	}
	cases := []reduction{
		{"Sum", func(x, _ []float32) float32 { return Sum(x) }, func(x, _ float64) float64 { return x }},
		{"Dot", Dot[float32], func(x, y float64) float64 { return x * y }},
		{"SumSquares", func(x, _ []float32) float32 { return SumSquares(x) }, func(x, _ float64) float64 { return x * x }},
		{"SumExp", func(x, _ []float32) float32 { return SumExp(x, 1.5) }, func(x, _ float64) float64 { return math.Exp(x - 1.5) }},
	}
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(5, 6))
		for _, c := range cases {
			for _, n := range vecSizes() {
				x, y := fencedCopy(randoms(rng, n, 1), 1), fencedCopy(randoms(rng, n, 1), 3)
				var want, size float64
				for i, v := range x.data {
					term := c.term(float64(v), float64(y.data[i]))
					want += term
					size += math.Abs(term)
				}
				tol := size * 0x1p-24 * (3 + math.Sqrt(float64(n)/16))
				got := c.run(x.data, y.data)
				near(t, want, got, tol, "%s n=%d", c.name, n)
				require.Equal(t, got, c.run(x.data, y.data), "%s n=%d twice", c.name, n)
				for _, i := range []int{0, n / 2, n - 1} {
					if n > 0 {
						keep := x.data[i]
						x.data[i] = float32(math.NaN())
						require.True(t, math.IsNaN(float64(c.run(x.data, y.data))), "%s n=%d NaN at %d", c.name, n, i)
						x.data[i] = keep
					}
				}
			}
		}
	})
}

func TestMax(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 8))
		for _, n := range vecSizes() {
			x := fencedCopy(randoms(rng, n, 1), 1).data
			for i := range x {
				x[i] -= 10 // all negative: a lane beyond the end must not win
			}
			want, abs := float32(math.Inf(-1)), float32(0)
			for _, v := range x {
				want, abs = max(want, v), max(abs, -v)
			}
			require.Equal(t, want, Max(x), "Max n=%d", n)
			require.Equal(t, abs, AbsMax(x), "AbsMax n=%d", n)
			for _, i := range []int{0, n / 2, n - 1} {
				if n == 0 {
					continue
				}
				keep := x[i]
				for _, nan := range []uint32{0x7fc00000, 0xffc00000} {
					x[i] = math.Float32frombits(nan)
					require.True(t, math.IsNaN(float64(Max(x))), "Max n=%d NaN at %d", n, i)
					require.True(t, math.IsNaN(float64(AbsMax(x))), "AbsMax n=%d NaN at %d", n, i)
				}
				x[i] = float32(math.Inf(1))
				require.True(t, math.IsInf(float64(Max(x)), 1), "Max n=%d +Inf at %d", n, i)
				x[i] = float32(math.Inf(-1))
				require.True(t, math.IsInf(float64(AbsMax(x)), 1), "AbsMax n=%d -Inf at %d", n, i)
				x[i] = keep
			}
		}
	})
}

func TestExpSub(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(9, 10))
		for _, n := range vecSizes() {
			x := randoms(rng, n, 3)
			top := Max(x)
			if n == 0 {
				top = 0
			}
			gx, dst := fencedCopy(x, 1), newFenced(n, 2)
			sum := ExpSub(dst.data, gx.data, top)
			dst.intact(t)
			var want float64
			for i, v := range x {
				e := math.Exp(float64(v) - float64(top))
				want += e
				// The difference rounds once: half an ulp of an argument of up to 20.
				near(t, e, dst.data[i], 2*ulp(e)+e*half*20, "ExpSub n=%d i=%d", n, i)
			}
			near(t, want, sum, want*half*(4+math.Sqrt(float64(n)/16))+want*half*20, "ExpSub sum n=%d", n)
			SoftmaxRow(gx.data, top, sum)
			gx.intact(t)
			for i, v := range x {
				p := math.Exp(float64(v)-float64(top)) / want
				near(t, p, gx.data[i], p*half*50, "SoftmaxRow n=%d i=%d", n, i)
			}
		}
		inf := float32(math.Inf(-1))
		row := []float32{inf, inf, inf}
		require.Equal(t, float32(0), SumExp(row, Max(row)))
		SoftmaxRow(row, Max(row), 0)
		require.Equal(t, []float32{0, 0, 0}, row)
	})
}

func TestRotate(t *testing.T) {
	forEachISA(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(11, 12))
		for _, n := range vecSizes() {
			x1, x2, c, s := randoms(rng, n, 1), randoms(rng, n, 1), randoms(rng, n, 1), randoms(rng, n, 1)
			check := func(i int, y1, y2 float32) {
				a, b, cc, ss := float64(x1[i]), float64(x2[i]), float64(c[i]), float64(s[i])
				tol := 2 * half * (math.Abs(a) + math.Abs(b)) * (math.Abs(cc) + math.Abs(ss))
				near(t, a*cc-b*ss, y1, tol, "first n=%d i=%d", n, i)
				near(t, b*cc+a*ss, y2, tol, "second n=%d i=%d", n, i)
			}
			gc, gs := fencedCopy(c, 1), fencedCopy(s, 1)
			for _, inPlace := range []bool{false, true} {
				g1, g2 := fencedCopy(x1, 1), fencedCopy(x2, 2)
				y1, y2 := newFenced(n, 3), newFenced(n, 0)
				if inPlace {
					y1, y2 = g1, g2
				}
				Rotate(y1.data, y2.data, g1.data, g2.data, gc.data, gs.data)
				y1.intact(t)
				y2.intact(t)
				for i := range n {
					check(i, y1.data[i], y2.data[i])
				}
				mixed := newFenced(2*n, 1)
				for i := range n {
					mixed.data[2*i], mixed.data[2*i+1] = x1[i], x2[i]
				}
				dst := newFenced(2*n, 2)
				if inPlace {
					dst = mixed
				}
				RotateInterleaved(dst.data, mixed.data, gc.data, gs.data)
				dst.intact(t)
				for i := range n {
					check(i, dst.data[2*i], dst.data[2*i+1])
				}
			}
		}
	})
}

func TestFloat64UsesPortableCode(t *testing.T) {
	x := []float64{-2, -0.5, 0, 0.5, 2}
	dst := make([]float64, len(x))
	GeluErf(dst, x)
	for i, v := range x {
		require.InDelta(t, v/2*(1+math.Erf(v/math.Sqrt2)), dst[i], 1e-15)
	}
	require.Equal(t, 2.0, Max(x))
	require.Equal(t, 0.0, Sum(x))
}

func TestLengthsMustAgree(t *testing.T) {
	a, b := make([]float32, 3), make([]float32, 4)
	require.Panics(t, func() { Add(a, a, b) })
	require.Panics(t, func() { Exp(a, b) })
	require.Panics(t, func() { SoftmaxStep(b, 2, 2, 3, a, a, a) })
	require.Panics(t, func() { DropoutRow(a, a, 0, 0, 1.5) })
}

func TestKernelsDoNotAllocate(t *testing.T) {
	x, y := make([]float32, 100), make([]float32, 100)
	rows := slices.Repeat([]float32{1}, 10)
	forEachISA(t, func(t *testing.T) {
		require.Zero(t, testing.AllocsPerRun(20, func() {
			Exp(y, x)
			_ = Sum(x)
			LayerNormRow(y, x, x, x, 1e-5)
			SoftmaxStep(y, 10, 10, 10, rows, rows, rows)
			DropoutRow(y, x, 1, 5, 0.5)
			AdamW(y, x, x, x, AdamWConfig{BiasCorr1: 1, BiasCorr2: 1, Eps: 1})
		}))
	})
}

// A goroutine that does nothing but run kernels must let the garbage collector stop the world. The bound is generous: without a
// place to stop, it takes seconds a cycle.
func TestKernelsDoNotStallTheCollector(t *testing.T) {
	x := make([]float32, 20*maxCall)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			Exp(x, x)
			SumSquares(x)
		}
	}()
	start := time.Now()
	for range 5 {
		runtime.GC()
	}
	took := time.Since(start)
	stop.Store(true)
	<-done
	require.Less(t, took, 5*time.Second)
}
