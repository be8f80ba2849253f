package quantize

import (
	"fmt"
	"math"
	"slices"

	"gorgonia.org/tensor"

	"stheno/internal/kernel"
	"stheno/internal/op"
)

// Stats is what was seen of a layer's inputs. The zero value has seen nothing.
type Stats struct {
	Runs     int   // tensors
	Count    int64 // numbers
	Min, Max float64

	// MovingMin and MovingMax are the moving averages of each run's smallest and largest number: m·average + (1−m)·new, from
	// the first run's on.
	MovingMin, MovingMax float64

	// AbsMax is the largest magnitude of each channel, a channel being an index of the last dimension.
	AbsMax []float64

	Histogram Histogram

	// Moments are the second moments of the channels, if they were asked for.
	Moments *Moments
}

// Observe adds the numbers of x, float32 or float64 of rank 1 or more, whose last dimension is the channels and has the size that
// it had before. momentum is that of the moving averages. A number that is not finite is an error, and nothing is added then.
func (s *Stats) Observe(x *tensor.Dense, momentum float64) error {
	const fn = "quantize.Observe"
	if s == nil || x == nil {
		return fmt.Errorf("%s: got nil, want statistics and a tensor", fn)
	}
	if !(momentum >= 0 && momentum < 1) {
		return fmt.Errorf("%s: momentum: got %v, want 0 or more, below 1", fn, momentum)
	}
	if x.Dims() < 1 || x.Shape().TotalSize() == 0 {
		return fmt.Errorf("%s: got shape %v, want rank 1 or more, and every dimension at least 1", fn, x.Shape())
	}
	var err error
	channels := x.Shape()[x.Dims()-1]
	switch x.Dtype() {
	case tensor.Float32:
		err = observe[float32](s, x, channels, momentum)
	case tensor.Float64:
		err = observe[float64](s, x, channels, momentum)
	default:
		err = fmt.Errorf("got dtype %v, want float32 or float64", x.Dtype())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", fn, err)
	}
	return nil
}

func observe[T kernel.Float](s *Stats, v *tensor.Dense, channels int, momentum float64) error {
	x, err := op.Data[T](v)
	if err != nil {
		return err
	}
	if s.AbsMax != nil && len(s.AbsMax) != channels {
		return fmt.Errorf("got %d channels, want %d as before", channels, len(s.AbsMax))
	}
	if s.Moments != nil && s.Moments.Channels() != channels {
		return fmt.Errorf("got %d channels, want %d as the moments have", channels, s.Moments.Channels())
	}
	lo, hi := x[0], x[0]
	for i, v := range x {
		if d := v - v; d != 0 { // NaN of NaN and infinities
			return fmt.Errorf("got %v at element %d, want finite numbers", v, i)
		}
		lo, hi = min(lo, v), max(hi, v)
	}
	s.addRange(float64(lo), float64(hi), momentum)
	if s.AbsMax == nil {
		s.AbsMax = make([]float64, channels)
	}
	for row := x; len(row) > 0; row = row[channels:] {
		for j, v := range row[:channels] {
			s.AbsMax[j] = max(s.AbsMax[j], math.Abs(float64(v)))
		}
	}
	s.Count += int64(len(x))
	count(&s.Histogram, x, max(-float64(lo), float64(hi)))
	if s.Moments != nil {
		addMoments(s.Moments, x)
	}
	return nil
}

// addRange takes a run's smallest and largest number in.
func (s *Stats) addRange(lo, hi, momentum float64) {
	if s.Runs == 0 {
		s.Min, s.Max, s.MovingMin, s.MovingMax = lo, hi, lo, hi
	} else {
		s.Min, s.Max = min(s.Min, lo), max(s.Max, hi)
		s.MovingMin = momentum*s.MovingMin + (1-momentum)*lo
		s.MovingMax = momentum*s.MovingMax + (1-momentum)*hi
	}
	s.Runs++
}

// count adds x, whose largest magnitude is m, to h.
func count[T kernel.Float](h *Histogram, x []T, m float64) {
	if m == 0 {
		h.zeros += int64(len(x))
		return
	}
	h.widen(m)
	inverse := math.Ldexp(1, -h.exp)
	for _, v := range x {
		if v == 0 {
			h.zeros++
			continue
		}
		h.counts[int(math.Floor(float64(v)*inverse))+histogramHalf]++
	}
}

// Merge adds what other has seen. Moving averages are weighted with the numbers of runs; all else is as if s had observed other's
// tensors, the last bits of moments excepted.
func (s *Stats) Merge(other *Stats) error {
	const fn = "quantize.Merge"
	switch {
	case s == nil || other == nil:
		return fmt.Errorf("%s: got nil, want statistics", fn)
	case other.Runs == 0:
		return nil
	case s.Runs == 0:
		*s = *other.clone()
		return nil
	case len(s.AbsMax) != len(other.AbsMax):
		return fmt.Errorf("%s: got %d channels, want %d", fn, len(other.AbsMax), len(s.AbsMax))
	case (s.Moments == nil) != (other.Moments == nil):
		return fmt.Errorf("%s: got statistics with moments and without, want both or neither", fn)
	}
	if s.Moments != nil {
		if err := s.Moments.Merge(other.Moments); err != nil {
			return err
		}
	}
	a, b := float64(s.Runs)/float64(s.Runs+other.Runs), float64(other.Runs)/float64(s.Runs+other.Runs)
	s.MovingMin, s.MovingMax = a*s.MovingMin+b*other.MovingMin, a*s.MovingMax+b*other.MovingMax
	s.Min, s.Max = min(s.Min, other.Min), max(s.Max, other.Max)
	s.Runs += other.Runs
	s.Count += other.Count
	for j, m := range other.AbsMax {
		s.AbsMax[j] = max(s.AbsMax[j], m)
	}
	s.Histogram.merge(&other.Histogram)
	return nil
}

func (s *Stats) clone() *Stats {
	c := *s
	c.AbsMax, c.Histogram = slices.Clone(s.AbsMax), s.Histogram.clone()
	if s.Moments != nil {
		c.Moments = s.Moments.clone()
	}
	return &c
}
