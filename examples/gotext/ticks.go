package main

import (
	"fmt"
	"math"

	"gonum.org/v1/plot"
)

// roundTicks marks at most eight round numbers.
type roundTicks struct{}

// Ticks implements plot.Ticker.
func (roundTicks) Ticks(low, high float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10(max(1, high-low))))
	for _, f := range []float64{0.1, 0.2, 0.5, 1, 2} {
		if (high-low)/(step*f) <= 8 {
			step *= f
			break
		}
	}
	var out []plot.Tick
	for x := math.Ceil(low/step) * step; x <= high; x += step {
		out = append(out, plot.Tick{Value: x, Label: fmt.Sprintf("%.4g", x)})
	}
	return out
}

// bitTicks marks 1, 2, 3 … bits, and halves below 3.
type bitTicks struct{}

// Ticks implements plot.Ticker.
func (bitTicks) Ticks(low, high float64) []plot.Tick {
	var out []plot.Tick
	for y := 0.5; y <= high; y += 0.5 {
		if y >= low && (y < 3 || y == math.Trunc(y)) {
			out = append(out, plot.Tick{Value: y, Label: fmt.Sprint(y)})
		}
	}
	return out
}
