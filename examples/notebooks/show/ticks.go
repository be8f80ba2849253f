package show

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

// ticks marks round numbers, or round sizes, or what is in at.
type ticks struct {
	log, bytes bool
	at         []float64
}

// most is how many numbers an axis has room for.
const most = 8

// Ticks implements plot.Ticker.
func (t ticks) Ticks(low, high float64) (out []plot.Tick) {
	if t.at != nil {
		for _, v := range t.at {
			out = append(out, plot.Tick{Value: v, Label: t.label(v)})
		}
		return out
	}
	if t.log {
		return t.logTicks(low, high)
	}
	base := 10.0
	if t.bytes {
		base = 1024
	}
	step := roundStep((high-low)/most, base)
	for i := math.Ceil(low / step); i*step <= high; i++ {
		out = append(out, plot.Tick{Value: i * step, Label: t.label(i * step)})
	}
	return out
}

// roundStep is the smallest of 1, 2 and 5 times a power of ten, or of the powers of two for bytes, that is at least x.
func roundStep(x, base float64) float64 {
	if base == 1024 {
		return math.Exp2(math.Ceil(math.Log2(x)))
	}
	ten := math.Pow(10, math.Floor(math.Log10(x)))
	for _, f := range []float64{1, 2, 5} {
		if ten*f >= x {
			return ten * f
		}
	}
	return 10 * ten
}

// logTicks marks 1, 2 and 5 times the powers of ten while there is room, else powers of ten; of bytes, powers of two.
func (t ticks) logTicks(low, high float64) (out []plot.Tick) {
	mark := func(v float64) {
		if v >= low && v <= high {
			out = append(out, plot.Tick{Value: v, Label: t.label(v)})
		}
	}
	if t.bytes {
		every := max(1, math.Ceil(math.Log2(high/low)/most))
		for e := math.Floor(math.Log2(low)/every) * every; math.Exp2(e) <= high; e += every {
			mark(math.Exp2(e))
		}
		return out
	}
	decades := math.Log10(high / low)
	factors := []float64{1, 2, 5}
	if decades > 3 {
		factors = factors[:1]
	}
	every := max(1, math.Ceil(decades/most))
	for e := math.Floor(math.Log10(low)/every) * every; math.Pow(10, e) <= high; e += every {
		for _, f := range factors {
			mark(f * math.Pow(10, e))
		}
	}
	return out
}

// distinct are the places of points, in order.
func distinct(points plotter.XYs) (places []float64) {
	for _, p := range points {
		places = append(places, p.X)
	}
	slices.Sort(places)
	return slices.Compact(places)
}

func (t ticks) label(v float64) string {
	if t.bytes {
		return Bytes(v)
	}
	if v != 0 && math.Abs(v) >= 1e6 {
		return fmt.Sprintf("%.3g", v)
	}
	return fmt.Sprintf("%.6g", math.Round(v*1e9)/1e9+0) // −0 + 0 is 0
}

// Bytes writes a number of bytes with a unit: 1.5 MiB.
func Bytes(n float64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	i := 0
	for i < len(units)-1 && math.Abs(n) >= 1024 {
		n /= 1024
		i++
	}
	if math.Abs(n) >= 100 {
		return fmt.Sprintf("%.0f %s", n, units[i])
	}
	return fmt.Sprintf("%.3g %s", n, units[i])
}
