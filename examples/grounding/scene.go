package main

import (
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// side is that of a scene, in pixels.
const side = 96

// kinds are the ways in which a phrase can describe an object; each word names one value of one kind.
const (
	colourKind = iota
	shapeKind
	sizeKind
	textureKind
	kinds
)

var kindNames = [kinds]string{"colour", "shape", "size", "texture"}

// lexicon holds the synonyms of each value of each kind.
var lexicon = [kinds][][]string{
	colourKind:  {{"red", "crimson"}, {"green", "emerald"}, {"blue", "azure"}, {"yellow", "golden"}, {"purple", "violet"}, {"cyan", "turquoise"}},
	shapeKind:   {{"circle", "disc"}, {"square", "box"}, {"triangle"}, {"cross", "plus"}, {"ring", "hoop"}},
	sizeKind:    {{"small", "little"}, {"big", "large"}},
	textureKind: {{"plain"}, {"striped"}},
}

// wordOrder is the order of kinds in English: a big striped red circle.
var wordOrder = [kinds]int{sizeKind, textureKind, colourKind, shapeKind}

var rgb = [][3]float64{{0.85, 0.15, 0.15}, {0.15, 0.65, 0.2}, {0.15, 0.3, 0.9}, {0.93, 0.82, 0.15}, {0.55, 0.2, 0.7}, {0.2, 0.8, 0.85}}

// words are all of the lexicon, in a fixed order: the vocabulary.
var words = func() (all []string) {
	for _, kind := range lexicon {
		for _, synonyms := range kind {
			all = append(all, synonyms...)
		}
	}
	return all
}()

// object is one shape of a scene: traits are indices into the lexicon.
type object struct {
	traits  [kinds]int
	x, y, r float64
	box     image.Rectangle
}

// heldOut says whether a colour and shape are never shown together in training.
func heldOut(o object) bool { return (o.traits[colourKind]+2*o.traits[shapeKind])%len(rgb) == 0 }

// phrase describes exactly one object of its scene.
type phrase struct {
	words []string
	kind  string
	box   image.Rectangle
}

func (p phrase) String() string { return "the " + strings.Join(p.words, " ") }

type scene struct {
	img     *image.RGBA
	phrases []phrase
}

// newScene draws 3 to 5 objects and n phrases about them. With unseen set, one object is of a held-out combination and
// the phrases are about it; otherwise there is none such.
func newScene(rng *rand.Rand, n int, unseen bool) scene {
	var objects []object
	for want := 3 + rng.IntN(3); len(objects) < want; {
		var o object
		for k := range o.traits {
			o.traits[k] = rng.IntN(len(lexicon[k]))
		}
		if heldOut(o) != (unseen && len(objects) == 0) {
			continue
		}
		o.r = 10 + 3*rng.Float64()
		if o.traits[sizeKind] == 1 {
			o.r = 16 + 4*rng.Float64()
		}
		if !place(rng, &o, objects) {
			want = min(want, max(len(objects), 1))
			continue
		}
		objects = append(objects, o)
	}
	s := scene{img: background(rng)}
	for i := range objects {
		paint(s.img, &objects[i])
	}
	noise(rng, s.img)
	for len(s.phrases) < n {
		at := 0
		if !unseen {
			at = rng.IntN(len(objects))
		}
		if p, ok := describe(rng, objects, at, unseen); ok {
			s.phrases = append(s.phrases, p)
		} else if !distinct(objects) {
			return newScene(rng, n, unseen)
		}
	}
	return s
}

// distinct says whether every object can be told from the others by all its traits.
func distinct(objects []object) bool {
	for i, a := range objects {
		if slices.ContainsFunc(objects[:i], func(b object) bool { return a.traits == b.traits }) {
			return false
		}
	}
	return true
}

// place finds room for o: neighbours may touch and overlap a little.
func place(rng *rand.Rand, o *object, others []object) bool {
	for range 50 {
		o.x, o.y = o.r+1+rng.Float64()*(side-2*o.r-2), o.r+1+rng.Float64()*(side-2*o.r-2)
		if !slices.ContainsFunc(others, func(p object) bool { return math.Hypot(o.x-p.x, o.y-p.y) < 0.95*(o.r+p.r) }) {
			return true
		}
	}
	return false
}

// describe picks traits at random and words for them, if they fit the one object only. A phrase about a held-out
// combination names both colour and shape.
func describe(rng *rand.Rand, objects []object, at int, unseen bool) (phrase, bool) {
	var use [kinds]bool
	use[colourKind], use[shapeKind] = unseen || rng.IntN(4) > 0, unseen || rng.IntN(4) > 0
	use[sizeKind], use[textureKind] = rng.IntN(4) == 0, rng.IntN(4) == 0
	if !use[colourKind] && !use[shapeKind] {
		return phrase{}, false
	}
	for i, o := range objects {
		alike := true
		for k := range kinds {
			alike = alike && (!use[k] || o.traits[k] == objects[at].traits[k])
		}
		if i != at && alike {
			return phrase{}, false
		}
	}
	p := phrase{box: objects[at].box}
	var names []string
	for _, k := range wordOrder {
		if use[k] {
			synonyms := lexicon[k][objects[at].traits[k]]
			p.words = append(p.words, synonyms[rng.IntN(len(synonyms))])
			names = append(names, kindNames[k])
		}
	}
	if !use[shapeKind] {
		p.words = append(p.words, "thing")
	}
	p.kind = strings.Join(names, "+")
	return p, true
}

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
	for y := range side {
		for x := range side {
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
