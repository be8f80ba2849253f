package main

import (
	"image"
	"math"
	"math/rand/v2"
)

// rgb are the colours of the lexicon.
var rgb = [][3]float64{{0.85, 0.15, 0.15}, {0.15, 0.65, 0.2}, {0.15, 0.3, 0.9}, {0.93, 0.82, 0.15}, {0.55, 0.2, 0.7}, {0.2, 0.8, 0.85}}

// background is a slope between two dull colours.
func background(rng *rand.Rand) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, side, side))
	var a, b [3]float64
	for c := range 3 {
		a[c], b[c] = 0.35+0.35*rng.Float64(), 0.35+0.35*rng.Float64()
	}
	dx, dy := math.Sincos(2 * math.Pi * rng.Float64())
	grey := 0.5 * (a[0] + b[0])
	for i := range 3 { // 255 times the colour at t is a + t·b
		a[i], b[i] = 255*(0.6*grey+0.4*a[i])+0.5, 255*0.4*(b[i]-a[i])
	}
	for y := range side {
		row := img.Pix[y*img.Stride:][:4*side]
		for x := range side {
			t := 0.5 + (dx*(float64(x)-side/2)+dy*(float64(y)-side/2))/(1.5*side)
			p := row[4*x:][:4]
			p[0], p[1], p[2], p[3] = uint8(a[0]+t*b[0]), uint8(a[1]+t*b[1]), uint8(a[2]+t*b[2]), 255
		}
	}
	return img
}

// set mixes a colour into the pixel that p begins with.
func set(p []uint8, alpha float64, c [3]float64) {
	for i, v := range c {
		p[i] = uint8((1-alpha)*float64(p[i]) + 255*alpha*v + 0.5)
	}
}

// paint draws o, anti-aliased by its distance function, and notes its box.
func paint(img *image.RGBA, o *object) {
	base := rgb[o.traits[colourKind]]
	for y := max(0, int(o.y-o.r)-1); y < min(side, int(o.y+o.r)+2); y++ {
		for x := max(0, int(o.x-o.r)-1); x < min(side, int(o.x+o.r)+2); x++ {
			dx, dy := float64(x)+0.5-o.x, float64(y)+0.5-o.y
			cover := min(1, max(0, 0.5-distance(o.traits[shapeKind], dx, dy, o.r)))
			if cover == 0 {
				continue
			}
			shade := 1.0
			if o.traits[textureKind] == 1 && math.Mod(dx+dy+100, 7) < 3 {
				shade = 0.45
			}
			set(img.Pix[img.PixOffset(x, y):], cover, [3]float64{shade * base[0], shade * base[1], shade * base[2]})
			if cover >= 0.5 {
				o.box = o.box.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
}

// distance is that from the edge of a shape of radius r, negative inside.
func distance(shape int, x, y, r float64) float64 {
	ax, ay := math.Abs(x), math.Abs(y)
	switch shape {
	case 0:
		return math.Hypot(x, y) - r
	case 1:
		return max(ax, ay) - 0.85*r
	case 2: // an isosceles triangle that points up
		return max(y-0.8*r, (2*ax-y-0.95*r)/math.Sqrt(5))
	case 3:
		return max(min(ax, ay)-0.32*r, max(ax, ay)-r)
	default:
		return math.Abs(math.Hypot(x, y)-0.75*r) - 0.25*r
	}
}

// noise makes each pixel a little lighter or darker.
func noise(rng *rand.Rand, img *image.RGBA) {
	for at := 0; at < len(img.Pix); at += 4 {
		n := int(math.Round(8 * rng.NormFloat64()))
		for c, v := range img.Pix[at : at+3] {
			img.Pix[at+c] = uint8(min(255, max(0, int(v)+n)))
		}
	}
}
