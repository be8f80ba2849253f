package quantize

import (
	"math"
	"slices"
)

// Histogram counts numbers in bins of equal width, a power of two that doubles as larger numbers come: bin i of 2·histogramHalf
// holds [(i−histogramHalf)·Width, (i−histogramHalf+1)·Width). Neighbouring bins of one width are exactly a bin of the next, and
// the width follows from the largest magnitude alone, so that the counts do not depend on the order of numbers, nor on how they
// were split between histograms that were merged. Zeros are counted apart: every grid of codes holds them exactly.
type Histogram struct {
	exp    int // the width is 2^exp
	counts []int64
	zeros  int64
}

const (
	histogramHalf = 4096 // bins on each side of 0, of which the largest magnitude uses at least half
	histogramLog  = 12
	leastExp      = -1000 // so that 2^-exp is a normal float64
)

// Width is that of a bin, 0 while there is none.
func (h *Histogram) Width() float64 {
	if h.counts == nil {
		return 0
	}
	return math.Ldexp(1, h.exp)
}

// Zeros is the number of zeros, which no bin counts.
func (h *Histogram) Zeros() int64 { return h.zeros }

// Bins returns the bins from the first to the last that holds a number: lo is where the first begins. The counts are a copy.
func (h *Histogram) Bins() (lo float64, counts []int64) {
	i, j := 0, len(h.counts)
	for i < j && h.counts[i] == 0 {
		i++
	}
	for j > i && h.counts[j-1] == 0 {
		j--
	}
	return h.edge(i), slices.Clone(h.counts[i:j])
}

// edge is where bin i begins.
func (h *Histogram) edge(i int) float64 { return math.Ldexp(float64(i-histogramHalf), h.exp) }

// bin is the bin of x, the first or last one for what lies beyond.
func (h *Histogram) bin(x float64) int {
	return min(max(int(math.Floor(x*math.Ldexp(1, -h.exp)))+histogramHalf, 0), 2*histogramHalf-1)
}

// widen makes room for magnitudes up to m > 0.
func (h *Histogram) widen(m float64) {
	_, e := math.Frexp(m) // m < 2^e
	h.widenTo(max(e-histogramLog, leastExp))
}

func (h *Histogram) widenTo(exp int) {
	if h.counts == nil {
		h.counts, h.exp = make([]int64, 2*histogramHalf), exp
		return
	}
	if exp <= h.exp {
		return
	}
	shift := min(exp-h.exp, histogramLog+1)
	old := h.counts
	h.counts, h.exp = make([]int64, 2*histogramHalf), exp
	for i, n := range old {
		h.counts[(i-histogramHalf)>>shift+histogramHalf] += n
	}
}

// merge adds the counts of other.
func (h *Histogram) merge(other *Histogram) {
	h.zeros += other.zeros
	if other.counts == nil {
		return
	}
	h.widenTo(other.exp)
	shift := min(h.exp-other.exp, histogramLog+1)
	for i, n := range other.counts {
		h.counts[(i-histogramHalf)>>shift+histogramHalf] += n
	}
}

func (h Histogram) clone() Histogram {
	h.counts = slices.Clone(h.counts)
	return h
}
