package quantize_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
	"stheno/ops/quantize"
)

func observed(t testing.TB, batches ...[]float64) *quantize.Stats {
	t.Helper()
	s := &quantize.Stats{}
	for _, x := range batches {
		require.NoError(t, s.Observe(dense(slices.Clone(x), len(x), 1), 0.9))
	}
	return s
}

// rangeBy is the range that an observer chooses.
func rangeBy(t testing.TB, s *quantize.Stats, o quantize.Observer, asymmetric bool) (lo, hi float64) {
	t.Helper()
	lo, hi, err := s.Range(quantize.ObserverConfig{Observer: o, Asymmetric: asymmetric})
	require.NoError(t, err)
	require.True(t, lo <= 0 && 0 <= hi)
	if !asymmetric {
		require.Equal(t, -lo, hi)
	}
	return lo, hi
}

var observers = []quantize.Observer{quantize.MinMax, quantize.MovingAverage, quantize.Percentile, quantize.MSE, quantize.Entropy}

// heavy is a normal distribution with a few numbers far outside.
func heavy(seed uint64, n int) []float64 {
	x := optest.Normal[float64](seed, n, 1)
	for i := 0; i < n; i += 1000 {
		x[i] = 12 * float64(1-i/1000%2*2)
	}
	return x
}

// The order of numbers, and how they are split and merged, changes no count, so that all ranges are the same.
func TestStatsDoNotDependOnOrder(t *testing.T) {
	var parts [][]float64
	for i, sigma := range []float64{1, 1e-9, 300, 0, 1e-320, 0.02} {
		parts = append(parts, optest.Normal[float64](uint64(i), 500, sigma))
	}
	whole := observed(t, slices.Concat(parts...))
	backwards := slices.Clone(parts)
	slices.Reverse(backwards)
	merged := observed(t, parts[4])
	for _, p := range [][]float64{parts[3], parts[0], parts[5], parts[1], parts[2]} {
		require.NoError(t, merged.Merge(observed(t, p)))
	}
	lo, counts := whole.Histogram.Bins()
	n := whole.Histogram.Zeros()
	for _, c := range counts {
		n += c
	}
	require.EqualValues(t, 3000, n)
	for _, s := range []*quantize.Stats{observed(t, backwards...), merged} {
		l, c := s.Histogram.Bins()
		require.Equal(t, lo, l)
		require.Equal(t, counts, c)
		require.Equal(t, whole.Histogram.Width(), s.Histogram.Width())
		require.Equal(t, []any{whole.Count, whole.Min, whole.Max, whole.AbsMax}, []any{s.Count, s.Min, s.Max, s.AbsMax})
		for _, o := range observers {
			if o == quantize.MovingAverage {
				continue
			}
			l1, h1 := rangeBy(t, whole, o, true)
			l2, h2 := rangeBy(t, s, o, true)
			require.Equal(t, []float64{l1, h1}, []float64{l2, h2}, "%v", o)
		}
	}
}

// Each bin counts the numbers from its lower edge to just below its upper one.
func TestHistogramCountsItsBins(t *testing.T) {
	x := []float64{1, -1, 0.5, -0.25, 3, 2.999, 0, -3}
	s := observed(t, x)
	lo, counts := s.Histogram.Bins()
	w := s.Histogram.Width()
	require.Equal(t, math.Ldexp(1, 2-12), w, "numbers below 4 in 4,096 bins a side")
	for i, n := range counts {
		a, b := lo+float64(i)*w, lo+float64(i+1)*w
		var want int64
		for _, v := range x {
			if v != 0 && v >= a && v < b {
				want++
			}
		}
		require.Equal(t, want, n, "[%v, %v)", a, b)
	}
	require.EqualValues(t, 1, s.Histogram.Zeros())
	require.Zero(t, new(quantize.Histogram).Width())
}

func TestMinMaxAndMovingAverage(t *testing.T) {
	s := observed(t, []float64{-1, 2}, []float64{-3, 1}, []float64{0.5, 4})
	lo, hi := rangeBy(t, s, quantize.MinMax, true)
	require.Equal(t, []float64{-3, 4}, []float64{lo, hi})
	lo, hi = rangeBy(t, s, quantize.MovingAverage, true)
	// 0.9·(0.9·−1 + 0.1·−3) + 0.1·0.5, and the same of 2, 1 and 4
	require.InDelta(t, -1.03, lo, 1e-12)
	require.InDelta(t, 2.11, hi, 1e-12)
	_, hi = rangeBy(t, s, quantize.MovingAverage, false)
	require.InDelta(t, 2.11, hi, 1e-12)
	lo, hi = rangeBy(t, observed(t, []float64{3, 5}), quantize.MinMax, true)
	require.Equal(t, []float64{0, 5}, []float64{lo, hi}, "0 is always in the range")
}

func TestPercentile(t *testing.T) {
	x := heavy(1, 20000)
	s := observed(t, x)
	sorted := slices.Clone(x)
	slices.Sort(sorted)
	lo, hi, err := s.Range(quantize.ObserverConfig{Observer: quantize.Percentile, Percent: 99, Asymmetric: true})
	require.NoError(t, err)
	w := s.Histogram.Width()
	require.InDelta(t, sorted[100], lo, 2*w)
	require.InDelta(t, sorted[len(x)-101], hi, 2*w)
	for i, v := range sorted {
		sorted[i] = math.Abs(v)
	}
	slices.Sort(sorted)
	_, hi, err = s.Range(quantize.ObserverConfig{Observer: quantize.Percentile, Percent: 99})
	require.NoError(t, err)
	require.InDelta(t, sorted[len(x)-201], hi, 2*w)
	_, hi, err = s.Range(quantize.ObserverConfig{Observer: quantize.Percentile, Percent: 100})
	require.NoError(t, err)
	require.Equal(t, 12.0, hi)
}

// roundedError is the squared error of x as codes over [lo, hi].
func roundedError(x []float64, lo, hi float64, levels int) (sum float64) {
	step := (hi - lo) / float64(levels-1)
	for _, v := range x {
		d := v - step*min(max(math.RoundToEven(v/step), math.RoundToEven(lo/step)), math.RoundToEven(hi/step))
		sum += d * d
	}
	return sum
}

// The range that MSE reads off a histogram is as good on the numbers themselves as the best of a plain search.
func TestMSEIsTheBestRange(t *testing.T) {
	positive := optest.Normal[float64](4, 20000, 1)
	for i, v := range positive {
		positive[i] = max(0, v) * v * v
	}
	for name, x := range map[string][]float64{"normal": optest.Normal[float64](1, 20000, 1), "heavy": heavy(2, 20000), "positive": positive} {
		for _, asymmetric := range []bool{false, true} {
			levels := 255
			if asymmetric {
				levels = 256
			}
			s := observed(t, x)
			lo, hi := rangeBy(t, s, quantize.MSE, asymmetric)
			got, best := roundedError(x, lo, hi, levels), math.Inf(1)
			l0, h0 := rangeBy(t, s, quantize.MinMax, asymmetric)
			for k := 1; k <= 200; k++ {
				limit := max(-l0, h0) * float64(k) / 200
				best = min(best, roundedError(x, max(l0, -limit), min(h0, limit), levels))
			}
			require.LessOrEqual(t, got, 1.02*best, "%s: steps of a sixteenth of an octave miss the best by a little", name)
			require.LessOrEqual(t, got, roundedError(x, l0, h0, levels)*1.001, name)
		}
	}
}

func TestEntropyClipsOutliersOnly(t *testing.T) {
	x := optest.Normal[float64](3, 50000, 1)
	x[7], x[9] = 100, -100
	_, hi := rangeBy(t, observed(t, x), quantize.Entropy, false)
	require.Less(t, hi, 12.0)
	require.Greater(t, hi, 2.5)
	even := make([]float64, 50000)
	for i := range even {
		even[i] = float64(i)/25000 - 1 + 1e-6
	}
	_, hi = rangeBy(t, observed(t, even), quantize.Entropy, false)
	require.Greater(t, hi, 0.95)
}

func TestScale(t *testing.T) {
	s := observed(t, []float64{-1, 3})
	scale, zero, err := s.Scale(quantize.ObserverConfig{})
	require.NoError(t, err)
	require.Equal(t, float64(float32(3.0/127)), scale)
	require.Equal(t, 128, zero)
	scale, zero, err = s.Scale(quantize.ObserverConfig{Asymmetric: true})
	require.NoError(t, err)
	require.Equal(t, float64(float32(4.0/255)), scale)
	require.Equal(t, 64, zero, "round(1/(4/255)), 63.75")
	for _, o := range observers { // nothing but zeros, and a single number
		for _, x := range [][]float64{{0, 0}, {7}, {-7, 0}} {
			scale, _, err := observed(t, x).Scale(quantize.ObserverConfig{Observer: o, Asymmetric: true})
			require.NoError(t, err)
			require.Greater(t, scale, 0.0)
		}
	}
}

func TestObserverErrors(t *testing.T) {
	s := observed(t, []float64{1})
	for want, call := range map[string]func() error{
		"Observer: got 5, want 0 (min-max) to 4 (entropy)": func() error { _, _, err := s.Range(quantize.ObserverConfig{Observer: 5}); return err },
		"Percent: got 101": func() error { _, _, err := s.Range(quantize.ObserverConfig{Percent: 101}); return err },
		"Percent: got NaN": func() error { _, _, err := s.Range(quantize.ObserverConfig{Percent: math.NaN()}); return err },
		"got no numbers":   func() error { _, _, err := new(quantize.Stats).Scale(quantize.ObserverConfig{}); return err },
		"got NaN at":       func() error { return s.Observe(dense([]float64{1, math.NaN()}, 2, 1), 0.9) },
		"got -Inf at":      func() error { return s.Observe(dense([]float32{float32(math.Inf(-1))}, 1), 0.9) },
		"got 2 channels":   func() error { return s.Observe(dense([]float64{1, 2}, 1, 2), 0.9) },
		"momentum: got 1":  func() error { return s.Observe(dense([]float64{1}, 1), 1) },
		"got nil":          func() error { return s.Observe(nil, 0) },
		"got dtype int":    func() error { return s.Observe(ints(1), 0) },
		"2 channels, want 1": func() error {
			other := &quantize.Stats{}
			require.NoError(t, other.Observe(dense([]float64{1, 2}, 1, 2), 0))
			return s.Merge(other)
		},
	} {
		before := *s
		require.ErrorContains(t, call(), want)
		require.Equal(t, before, *s, "nothing is half changed")
	}
}

func ExampleStats_Range() {
	var s quantize.Stats
	x := make([]float32, 10001)
	for i := range x {
		x[i] = float32(i%100) / 100
	}
	x[0] = 50
	if err := s.Observe(dense(x, len(x), 1), 0.9); err != nil {
		fmt.Println(err)
		return
	}
	for _, o := range []quantize.Observer{quantize.MinMax, quantize.Percentile} {
		lo, hi, err := s.Range(quantize.ObserverConfig{Observer: o, Percent: 99.9, Asymmetric: true})
		fmt.Printf("%v %.2f to %.2f %v\n", o, lo, hi, err)
	}
	// Output:
	// min-max 0.00 to 50.00 <nil>
	// percentile 0.00 to 1.00 <nil>
}
