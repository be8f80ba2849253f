package main

import "math"

const (
	patch    = 8
	cells    = side / patch // patches in a row
	patches  = cells * cells
	around   = 2 * patch        // pixels on each side of a patch that it sees
	window   = patch + 2*around // a side of all that it sees
	features = window/2*window/2 + 3*(window/4)*(window/4)
)

// look writes what each patch of a normalised picture (3, side, side) sees in the window around it, 0 beyond the edge: at
// half resolution how far colours are from the picture's mean, which shows shapes, and at a quarter the colours.
func look(dst, pixels []float32) {
	const n, h, c = side * side / 4, window / 2, window / 4
	half := shrink(pixels, side)
	contrast := make([]float32, n)
	for ch := range 3 {
		plane, mean := half[ch*n:(ch+1)*n], float32(0)
		for _, x := range plane {
			mean += x / n
		}
		for i, x := range plane {
			contrast[i] += (x - mean) * (x - mean)
		}
	}
	for i, x := range contrast {
		contrast[i] = 2 * float32(math.Sqrt(float64(x)))
	}
	colours := shrink(half, side/2)
	clear(dst[:patches*features])
	for p := range patches {
		x, y := p%cells, p/cells
		to := dst[p*features:][:features]
		crop(to[:h*h], contrast, side/2, (x*patch-around)/2, (y*patch-around)/2, h)
		for ch := range 3 {
			crop(to[h*h+ch*c*c:][:c*c], colours[ch*n/4:][:n/4], side/4, (x*patch-around)/4, (y*patch-around)/4, c)
		}
	}
}

// shrink halves the three planes of a square picture.
func shrink(pixels []float32, side int) []float32 {
	out := make([]float32, len(pixels)/4)
	for row := range len(pixels) / side / 2 { // of all planes
		from, to := pixels[2*row*side:][:2*side], out[row*side/2:][:side/2]
		for x := range to {
			to[x] = (from[2*x] + from[2*x+1] + from[side+2*x] + from[side+2*x+1]) / 4
		}
	}
	return out
}

// crop copies a square of n pixels a side from (x, y) of a plane, as far as it reaches.
func crop(dst, plane []float32, side, x, y, n int) {
	from, to := max(0, x), min(side, x+n)
	for row := max(0, y); row < min(side, y+n); row++ {
		copy(dst[(row-y)*n+from-x:], plane[row*side+from:row*side+to])
	}
}
