package main

import (
	"image"
	"image/color"
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
	for y := range side {
		for x := range side {
			t := 0.5 + (dx*(float64(x)-side/2)+dy*(float64(y)-side/2))/(1.5*side)
			grey := 0.5 * (a[0] + b[0])
			set(img, x, y, 1, func(c int) float64 { return 0.6*grey + 0.4*(a[c]*(1-t)+b[c]*t) })
		}
	}
	return img
}

// set mixes a colour into a pixel.
func set(img *image.RGBA, x, y int, alpha float64, c func(int) float64) {
	p := img.Pix[img.PixOffset(x, y):]
	for i := range 3 {
		p[i] = uint8(math.Round(255 * min(1, max(0, (1-alpha)*float64(p[i])/255+alpha*c(i)))))
	}
	p[3] = 255
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
			set(img, x, y, cover, func(c int) float64 { return shade * base[c] })
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

func noise(rng *rand.Rand, img *image.RGBA) {
	for y := range side {
		for x := range side {
			p := img.RGBAAt(x, y)
			n := 8 * rng.NormFloat64()
			f := func(v uint8) uint8 { return uint8(min(255, max(0, float64(v)+n))) }
			img.SetRGBA(x, y, color.RGBA{f(p.R), f(p.G), f(p.B), 255})
		}
	}
}
