package quantize

import "math"

// grid is the numbers that codes with one scale stand for: scale·(code − zero) for codes from least to most.
type grid struct {
	scale             float64 // a float32, and a normal one, so that codes times it are as exact as can be
	zero, least, most int
}

// gridOf is the grid that covers numbers from lo to hi.
func (c Config) gridOf(lo, hi float64) grid {
	levels := c.Scheme.levels()
	lo, hi = min(lo, 0), max(hi, 0)
	if !c.Asymmetric {
		return c.symmetric(normalScale(max(-lo, hi) / float64(levels/2-1)))
	}
	scale := normalScale((hi - lo) / float64(levels-1))
	return grid{scale: scale, zero: min(int(math.RoundToEven(-lo/scale)), levels-1), most: levels - 1}
}

// symmetric is the symmetric grid of a scale: as many codes below the middle as above it.
func (c Config) symmetric(scale float64) grid {
	levels := c.Scheme.levels()
	return grid{scale: scale, zero: levels / 2, least: 1, most: levels - 1}
}

// normalScale is s rounded to float32, at least the smallest normal number.
func normalScale(s float64) float64 { return max(float64(float32(s)), 0x1p-126) }

// code is the code nearest to x.
func (g grid) code(x float64) int {
	r := math.RoundToEven(x / g.scale)
	return int(min(max(r, float64(g.least-g.zero)), float64(g.most-g.zero))) + g.zero
}

// value is what a code stands for, rounded once to float32 as kernels do.
func (g grid) value(code int) float32 { return float32(g.scale) * float32(code-g.zero) }

// rangeOfNumbers is the smallest and the largest of x and 0.
func rangeOfNumbers(x []float64) (lo, hi float64) {
	for _, v := range x {
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}
