package quantize

import (
	"fmt"
	"math"
)

// Observer is a rule that chooses, from what was recorded of a layer's inputs, the range that their codes cover. Numbers beyond
// it are clipped.
type Observer int

// The observers.
const (
	// MinMax takes all numbers in: from the smallest to the largest.
	MinMax Observer = iota
	// MovingAverage takes the exponential moving averages of each run's smallest and largest number (Jacob et al. 2018, arXiv
	// 1712.05877, §3.1). It depends on the order of runs.
	MovingAverage
	// Percentile leaves a given part of the numbers outside.
	Percentile
	// MSE takes the range with the least mean squared error of the codes.
	MSE
	// Entropy takes the range with the least Kullback–Leibler divergence of the histogram of the codes from that of the numbers
	// (Migacz 2017, "8-bit inference with TensorRT").
	Entropy
)

// String returns the observer's name.
func (o Observer) String() string {
	switch o {
	case MinMax:
		return "min-max"
	case MovingAverage:
		return "moving-average"
	case Percentile:
		return "percentile"
	case MSE:
		return "mse"
	case Entropy:
		return "entropy"
	}
	return fmt.Sprintf("Observer(%d)", int(o))
}

// ObserverConfig configures Stats.Range and Stats.Scale. The zero value is the symmetric range of all numbers.
type ObserverConfig struct {
	Observer Observer

	// Percent of the numbers that Percentile keeps inside; what it leaves out is split between the two ends unless the range is
	// symmetric. 0 means 99.99.
	Percent float64

	// Asymmetric allows ranges that are not symmetric about 0. They contain 0 all the same.
	Asymmetric bool
}

func (c ObserverConfig) normal(fn string) (ObserverConfig, error) {
	if c.Observer < MinMax || c.Observer > Entropy {
		return c, fmt.Errorf("%s: Observer: got %d, want %d (%v) to %d (%v)", fn, int(c.Observer), int(MinMax), MinMax, int(Entropy), Entropy)
	}
	if c.Percent == 0 {
		c.Percent = 99.99
	}
	if !(c.Percent > 0 && c.Percent <= 100) {
		return c, fmt.Errorf("%s: Percent: got %v, want a number above 0, at most 100", fn, c.Percent)
	}
	return c, nil
}

// levels is the number of codes of 8 bits.
func (c ObserverConfig) levels() int {
	if c.Asymmetric {
		return 256
	}
	return 255
}

// Range returns the range that codes of 8 bits cover: −hi to hi, or lo ≤ 0 to hi ≥ 0 if cfg is asymmetric. It is an error if
// nothing was recorded. MSE and Entropy choose among the ranges [max(min, −t), min(max, t)] for t from the largest magnitude down
// in steps of a sixteenth of an octave; MSE is computed as if numbers were spread evenly within a bin of the histogram.
func (s *Stats) Range(cfg ObserverConfig) (lo, hi float64, err error) {
	const fn = "quantize.Range"
	if cfg, err = cfg.normal(fn); err != nil {
		return 0, 0, err
	}
	if s == nil || s.Count == 0 {
		return 0, 0, fmt.Errorf("%s: got no numbers, want at least one recorded", fn)
	}
	lo, hi = s.Min, s.Max
	switch cfg.Observer {
	case MovingAverage:
		lo, hi = s.MovingMin, s.MovingMax
	case Percentile:
		lo, hi = s.percentile(cfg)
	case MSE:
		lo, hi = s.search(cfg, s.squaredError)
	case Entropy:
		lo, hi = s.search(cfg, s.divergence)
	}
	lo, hi = cfg.span(lo, hi)
	return lo, hi, nil
}

// Scale returns the distance of neighbouring codes of 8 bits over the range that Range gives, and the code of 0: a number x is the
// code clamp(round(x/scale) + zero) of 0 to 255, from 1 on if symmetric.
func (s *Stats) Scale(cfg ObserverConfig) (scale float64, zero int, err error) {
	lo, hi, err := s.Range(cfg)
	if err != nil {
		return 0, 0, err
	}
	g := Config{Scheme: INT8, Asymmetric: cfg.Asymmetric}.gridOf(lo, hi)
	return g.scale, g.zero, nil
}

// span is the range that contains 0, and is symmetric if it is to be.
func (c ObserverConfig) span(lo, hi float64) (float64, float64) {
	lo, hi = min(lo, 0), max(hi, 0)
	if !c.Asymmetric {
		hi = max(-lo, hi)
		lo = -hi
	}
	return lo, hi
}

// percentile reads the range off the histogram: ends are edges of bins, no farther out than the numbers themselves.
func (s *Stats) percentile(cfg ObserverConfig) (lo, hi float64) {
	h := &s.Histogram
	out := int64(float64(s.Count) * (100 - cfg.Percent) / 100) // how many may lie outside
	if h.counts == nil || out == 0 {
		return s.Min, s.Max
	}
	i, j := 0, len(h.counts) // bins [i, j) are inside
	var below, above int64
	if !cfg.Asymmetric {
		for i < histogramHalf && below+h.counts[i]+h.counts[j-1] <= out {
			below += h.counts[i] + h.counts[j-1]
			i, j = i+1, j-1
		}
	} else {
		for i < histogramHalf && below+h.counts[i] <= out/2 {
			below += h.counts[i]
			i++
		}
		for j > histogramHalf && above+h.counts[j-1] <= out/2 {
			above += h.counts[j-1]
			j--
		}
	}
	return max(s.Min, h.edge(i)), min(s.Max, h.edge(j))
}

// search returns the range of least cost.
func (s *Stats) search(cfg ObserverConfig, cost func(lo, hi float64, levels int) float64) (lo, hi float64) {
	lo, hi = s.Min, s.Max
	if s.Histogram.counts == nil {
		return lo, hi
	}
	best, top := math.Inf(1), max(-s.Min, s.Max)
	for k := range 16 * 8 {
		t := top * math.Exp2(-float64(k)/16)
		l, h := max(s.Min, -t), min(s.Max, t)
		from, to := cfg.span(l, h)
		if c := cost(from, to, cfg.levels()); c < best {
			best, lo, hi = c, l, h
		}
	}
	return lo, hi
}

// squaredError is the sum of squared errors of codes over [lo, hi], numbers taken to be spread evenly in their bins.
func (s *Stats) squaredError(lo, hi float64, levels int) float64 {
	h := &s.Histogram
	step := (hi - lo) / float64(levels-1)
	width := h.Width()
	// The integral of the squared error from 0 to x, for x within the codes: a twelfth of step³ a step.
	within := func(x float64) float64 {
		n := math.RoundToEven(x / step)
		r := x - n*step
		return n*step*step*step/12 + r*r*r/3
	}
	cubed := func(x float64) float64 { return x * x * x / 3 }
	var sum float64
	for i, n := range h.counts {
		if n == 0 {
			continue
		}
		a, b := h.edge(i), h.edge(i+1)
		var e float64
		if a < lo {
			e += cubed(min(b, lo)-lo) - cubed(a-lo)
		}
		if b > hi {
			e += cubed(b-hi) - cubed(max(a, hi)-hi)
		}
		if l, u := max(a, lo), min(b, hi); l < u {
			e += within(u) - within(l)
		}
		sum += float64(n) * e / width
	}
	return sum
}

// divergence is the Kullback–Leibler divergence of what codes over [lo, hi] can tell apart from the histogram, +Inf where there
// are fewer bins than codes. Numbers beyond the range count in the outermost bins of the histogram, but not of the codes'.
func (s *Stats) divergence(lo, hi float64, levels int) float64 {
	h := &s.Histogram
	i0, i1 := h.bin(lo), h.bin(hi)+1
	bins := h.counts[i0:i1]
	if len(bins) < levels {
		return math.Inf(1)
	}
	var all, inside, below, above int64
	filled := 0
	for i, n := range h.counts {
		all += n
		switch {
		case i < i0:
			below += n
		case i >= i1:
			above += n
		default:
			inside += n
			if n > 0 {
				filled++
			}
		}
	}
	if inside == 0 {
		return math.Inf(1)
	}
	// A little of an even distribution keeps what only the outermost bins hold from being infinitely surprising.
	const even = 1e-4
	var kl float64
	for k := range levels {
		a, b := k*len(bins)/levels, (k+1)*len(bins)/levels
		var sum, used int64
		for _, n := range bins[a:b] {
			sum += n
			if n > 0 {
				used++
			}
		}
		for i := a; i < b; i++ {
			p, q := bins[i], 0.0
			if p > 0 {
				q = float64(sum) / float64(used) / float64(inside)
			}
			if i == 0 {
				p += below
			}
			if i == len(bins)-1 {
				p += above
			}
			if p == 0 {
				continue
			}
			q = (1-even)*q + even/float64(filled)
			kl += float64(p) / float64(all) * math.Log(float64(p)/float64(all)/q)
		}
	}
	return kl
}
